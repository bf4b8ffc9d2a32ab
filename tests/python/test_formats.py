"""Every format in and out, and answers of quantize fed straight back."""

import base64
import gzip
import itertools
import json
import subprocess
import zlib

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import zstandard
from onnx import TensorProto, helper, numpy_helper

import reference
from client import (
    DTYPES,
    REALS,
    JSON,
    NPY,
    RAW,
    SAFETENSORS,
    check_problem,
    dtype_name,
    encode,
    nested,
    npy_bytes,
    query,
    read_quantized,
    read_safetensors,
    read_tensor,
    tensor_json,
    write_safetensors,
)

KINDS = [JSON, NPY, RAW, SAFETENSORS]
X = (np.random.default_rng(1).standard_normal((6, 10)) * 3).astype(np.float32)
SCHEMES = {
    "int8": {"bits": 8},
    "uint8_channel": {"bits": 8, "signed": False, "axis": -1},
    "int4_group": {"bits": 4, "axis": 0, "group_size": 4},
    "int4_packed": {"bits": 4, "packed": True, "group_size": 4},
    "uint3_packed_block": {"bits": 3, "signed": False, "packed": True, "block_shape": [4, 4]},
    "int2_packed": {"bits": 2, "packed": True},
    "int5_token": {"bits": 5, "granularity": "token"},
    "uint16": {"bits": 16, "signed": False},
    "int16": {"bits": 16},
}


def send(client, x, kind, scheme, accept=None, **extra):
    """One call of quantize in that format."""
    if kind == JSON:
        body = tensor_json(x) | {"scheme": scheme}
        return client.post("/v1/quantize", body, accept=accept, params=extra)
    params = scheme | extra
    if kind == RAW:
        params = params | {"dtype": dtype_name(x), "shape": list(x.shape)}
    return client.post("/v1/quantize", encode(x, kind), kind=kind, accept=accept, params=params)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accept", [JSON, SAFETENSORS])
def test_answers_go_straight_back(client, name, kind, accept):
    first = read_quantized(send(client, X, JSON, SCHEMES[name]))
    response = send(client, X, kind, SCHEMES[name], accept)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == accept
    result = read_quantized(response)
    np.testing.assert_array_equal(result.codes, first.codes)
    np.testing.assert_array_equal(result.scale, first.scale)
    assert result.report == first.report and result.scheme == first.scheme
    restored = [client.dequantize(response, accept=answer) for answer in KINDS]
    for other in restored[1:]:
        np.testing.assert_array_equal(other, restored[0])
    keys = ("granularity", "axis", "group_size", "block_shape")
    index, _ = reference.slices(X.shape, **{key: result.scheme[key] for key in keys})
    scale, zero_point = result.scale.ravel()[index], result.zero_point.ravel()[index]
    if not result.scheme["packed"]:
        expected = reference.decode(result.codes.astype(np.int64), scale, zero_point)
        np.testing.assert_array_equal(restored[0], expected)
    assert np.abs(restored[0] - X).max() == pytest.approx(result.report["max_abs_error"], rel=1e-6)
    assert restored[0].shape == X.shape


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("kind", [JSON, NPY, RAW])
@pytest.mark.parametrize("accept", [NPY, RAW])
def test_bare_codes_go_back_with_their_parameters(client, name, kind, accept):
    """npy and octet-stream answers hold one tensor; the rest stands in headers or is asked for."""
    whole = read_quantized(send(client, X, JSON, SCHEMES[name]))
    parts = {}
    for output in ("codes", "scale", "zero_point"):
        response = send(client, X, kind, SCHEMES[name], accept, output=output)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == accept
        parts[output] = read_tensor(response)
        assert json.loads(response.headers["quantd-scheme"]) == whole.scheme
        assert json.loads(response.headers["quantd-report"]) == whole.report
        if whole.scale.ndim == 0:
            assert np.float32(response.headers["quantd-scale"]) == whole.scale
            assert int(response.headers["quantd-zero-point"]) == whole.zero_point
    np.testing.assert_array_equal(parts["codes"], whole.codes)
    np.testing.assert_array_equal(parts["scale"], whole.scale)
    np.testing.assert_array_equal(parts["zero_point"], whole.zero_point)

    keys = ("bits", "signed", "granularity", "axis", "group_size", "block_shape", "packed")
    params = {key: whole.scheme[key] for key in keys if whole.scheme[key] is not None}
    params |= {"scale": [repr(float(s)) for s in parts["scale"].ravel()]}
    params |= {"zero_point": parts["zero_point"].ravel()}
    if accept == RAW:
        params |= {"dtype": dtype_name(parts["codes"]), "shape": list(X.shape)}
    elif whole.scheme["packed"]:
        params |= {"shape": list(X.shape)}
    body = encode(parts["codes"], accept)
    answer = client.post("/v1/dequantize", body, kind=accept, accept=NPY, params=params)
    assert answer.status_code == 200, answer.text
    expected = client.dequantize(send(client, X, JSON, SCHEMES[name]))
    np.testing.assert_array_equal(read_tensor(answer), expected)


def test_defaults_follow_the_request(client):
    assert send(client, X, JSON, {}).headers["content-type"] == JSON
    for kind in (NPY, RAW, SAFETENSORS):
        assert send(client, X, kind, {}).headers["content-type"] == SAFETENSORS
    assert send(client, X, NPY, {}, "*/*").headers["content-type"] == SAFETENSORS
    chosen = send(client, X, NPY, {}, "application/x-npy;q=0.2, application/json;q=0.8")
    assert chosen.headers["content-type"] == JSON
    problem = send(client, X, JSON, {}, "text/html")
    check_problem(problem, "not-acceptable", 406, "accept")
    several = write_safetensors({"a": X, "b": X})
    several = client.post("/v1/quantize", several, kind=SAFETENSORS, accept=NPY)
    check_problem(several, "not-acceptable", 406)
    # One fits, whatever it is called.
    one = send(client, X, SAFETENSORS, {}, NPY)
    assert one.content == send(client, X, NPY, {}, NPY).content


@pytest.mark.parametrize(("dtype", "kind"), [
    (dtype, kind) for dtype in REALS for kind in KINDS if kind != NPY or not dtype.startswith(("BF16", "F8"))
])
def test_types_in(client, dtype, kind):
    low = 0 if dtype[0] == "U" else -100
    x = np.random.default_rng(2).integers(low, 100, (4, 5)).astype(DTYPES[dtype])
    result = client.quantize(x, {"bits": 8, "signed": False, "symmetric": False}, kind=kind)
    wide = np.float64 if dtype in ("F64", "I64", "U64", "I32", "U32") else np.float32
    assert result.scale.dtype in (np.float32, wide)
    steps = np.float64(max(x.astype(float).max(), 0) - min(x.astype(float).min(), 0))
    assert float(result.scale) == pytest.approx(steps / 255, rel=1e-7)
    source = 8 * DTYPES[dtype].itemsize
    assert result.report["compression_ratio"] == pytest.approx(
        source / result.report["bits_per_element"]
    )


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_types_out(client, dtype):
    first = send(client, X, JSON, {"bits": 8})
    body = first.json() | {"output_dtype": dtype}
    exact = client.dequantize(first)
    for accept in (JSON, RAW, SAFETENSORS):
        answer = client.post("/v1/dequantize", body, accept=accept)
        assert answer.status_code == 200, answer.text
        found = read_tensor(answer)
        assert found.dtype == DTYPES[dtype]
        np.testing.assert_array_equal(found, exact.astype(DTYPES[dtype]))
    packed = send(client, X, NPY, {"bits": 8}, SAFETENSORS)
    found = client.dequantize(packed, accept=RAW, output_dtype=dtype)
    np.testing.assert_array_equal(found, exact.astype(DTYPES[dtype]))


@pytest.mark.parametrize("accept", [JSON, SAFETENSORS])
def test_many_tensors(client, accept):
    tensors = {
        "encoder.weight": X,
        "a.codes": X[0],
        "scalar": np.float32(3).reshape(()),
        "empty": np.zeros((0, 4), np.float32),
        "b/~x": X.astype(ml_dtypes.bfloat16),
    }
    body = write_safetensors(tensors, {"format": "pt"})
    params = {"preset": "int8", "include": "*"}
    response = client.post("/v1/quantize", body, kind=SAFETENSORS, accept=accept, params=params)
    assert response.status_code == 200, response.text
    if accept == SAFETENSORS:
        found, metadata = read_safetensors(response.content)
        expected = {f"{n}.{p}" for n in tensors for p in ("codes", "scale", "zero_point")}
        assert set(found) == expected
        for name in tensors:
            report = json.loads(metadata[name])
            assert report == json.loads(metadata["report"])[name] and "mse" in report
    as_json = {"tensors": {n: tensor_json(x) for n, x in tensors.items()}, "scheme": "int8"}
    again = client.post("/v1/quantize", as_json, accept=accept)
    assert again.status_code == 200, again.text
    if accept == JSON:
        assert again.json() == response.json()
    back = client.post("/v1/dequantize", response.content, kind=accept, accept=SAFETENSORS)
    assert back.status_code == 200, back.text
    restored, _ = read_safetensors(back.content)
    assert set(restored) == set(tensors)
    for name, x in tensors.items():
        assert restored[name].shape == x.shape
        if x.size:
            assert np.abs(restored[name] - x.astype(np.float32)).max() < 0.1


def checkpoint():
    """Tensors as those of a BERT with a convolution: by name, type and all."""
    rng = np.random.default_rng(12)
    normal = lambda *shape: (rng.standard_normal(shape) * 0.05).astype(np.float32)
    layer = "bert.encoder.layer.0"
    return {
        "bert.embeddings.position_ids": np.arange(512)[None],
        "bert.embeddings.word_embeddings.weight": normal(97, 32),
        "bert.embeddings.LayerNorm.weight": np.ones(32, np.float32),
        "bert.embeddings.LayerNorm.bias": normal(32),
        f"{layer}.attention.self.query.weight": normal(32, 32).astype(np.float16),
        f"{layer}.attention.self.query.bias": normal(32).astype(np.float16),
        f"{layer}.output.dense.weight": normal(32, 64).astype(ml_dtypes.bfloat16),
        f"{layer}.output.dense.bias": normal(32).astype(ml_dtypes.bfloat16),
        f"{layer}.output.LayerNorm.weight": np.ones(32, np.float64),
        "conv.weight": normal(4, 3, 3, 3),
        "conv.bias": normal(4),
        "mask": rng.integers(0, 2, (5, 3)).astype(bool),
        "spectrum": normal(3).astype(np.complex64),
        "eight": normal(3, 3).astype(ml_dtypes.float8_e4m3fn),
        "temperature": np.array(0.07, np.float32),
    }


WEIGHTS = {"query.weight", "dense.weight", "word_embeddings.weight", "conv.weight"}


def is_weight(name):
    return any(name.endswith(weight) for weight in WEIGHTS)


def loaded(data):
    """What the package reads of a file: name, type, shape and bytes."""
    return {name: (part["dtype"], tuple(part["shape"]), bytes(part["data"])) for name, part in safetensors.deserialize(data)}


def test_a_checkpoint_goes_through_as_a_whole(client):
    """Weights are quantized, all else is there byte for byte, before and after they are restored."""
    tensors = checkpoint()
    file = safetensors.numpy.save(tensors, {"format": "pt"})
    whole = loaded(file)
    answer = client.post("/v1/quantize", file, kind=SAFETENSORS, params={"preset": "int8_per_channel"})
    assert answer.status_code == 200, answer.text
    quantized = loaded(answer.content)
    passed = [name for name in tensors if not is_weight(name)]
    parts = [f"{name}.{part}" for name in tensors if is_weight(name) for part in ("codes", "scale", "zero_point")]
    assert sorted(quantized) == sorted(passed + parts)
    header = json.loads(answer.content[8 : 8 + int.from_bytes(answer.content[:8], "little")])
    metadata = header["__metadata__"]
    assert sorted(json.loads(metadata["passed"])) == sorted(passed)
    assert set(json.loads(metadata["report"])) == {name for name in tensors if is_weight(name)}
    for accept in ("identity", "gzip"):
        body = answer.content if accept == "identity" else gzip.compress(answer.content)
        headers = {"content-encoding": accept} if accept == "gzip" else {}
        back = client.post("/v1/dequantize", body, kind=SAFETENSORS, headers=headers)
        assert back.status_code == 200, back.text
        restored = loaded(back.content)
        assert set(restored) == set(tensors)
        for name in passed:
            assert quantized[name] == restored[name] == whole[name], name
        for name in filter(is_weight, tensors):
            dtype, shape, data = restored[name]
            x = tensors[name].astype(np.float32)
            assert (dtype, shape) == ("F32", x.shape)
            found = np.frombuffer(data, np.float32).reshape(shape)
            np.testing.assert_allclose(found, x, atol=np.abs(x).max() / 254 * 1.01)


def test_what_is_quantized_is_chosen_by_name(client):
    tensors = checkpoint()
    file = safetensors.numpy.save(tensors)

    def codes(*options):
        answer = client.post("/v1/quantize?" + "&".join(options), file, kind=SAFETENSORS)
        assert answer.status_code == 200, answer.text
        return {name.removesuffix(".codes") for name in loaded(answer.content) if name.endswith(".codes")}

    weights = {name for name in tensors if is_weight(name)}
    assert codes() == weights
    assert codes("exclude=bert.embeddings.*") == weights - {"bert.embeddings.word_embeddings.weight"}
    assert codes("exclude=conv.*", "exclude=*embeddings*,*.query.*") == {"bert.encoder.layer.0.output.dense.weight"}
    assert codes("include=re:.*%5C.(query%7Cdense)%5C.(weight%7Cbias)$", "exclude=*.bias") == {
        name for name in weights if "query" in name or "dense" in name
    }
    # Whatever type and shape they have.
    assert codes("include=temperature,*position_ids") == {"temperature", "bert.embeddings.position_ids"}
    for options, status, slug in (
        ("include=conv.wieght", 400, "invalid-option"),
        ("exclude=*.lora_A", 400, "invalid-option"),
        ("include=re:*", 400, "invalid-option"),
        ("include=*&exclude=mask,eight", 422, "unsupported-tensor"),
    ):
        answer = client.post(f"/v1/quantize?{options}", file, kind=SAFETENSORS)
        check_problem(answer, slug, status, None if status == 422 else options.split("=")[0])
    for kind in (NPY, RAW, JSON):
        answer = send(client, X, kind, {}, include="w") if kind != JSON else client.post(
            "/v1/quantize", tensor_json(X) | {"include": "w"}
        )
        check_problem(answer, "invalid-option", 400, "/include" if kind == JSON else "include")



@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 33])
def test_packing(client, bits, signed, count):
    x = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    plain = client.quantize(x, {"bits": bits, "signed": signed}, kind=NPY)
    packed = client.quantize(x, {"bits": bits, "signed": signed, "packed": True}, kind=NPY)
    assert packed.codes.dtype == np.uint8 and packed.shape == x.shape
    np.testing.assert_array_equal(packed.codes, reference.pack(plain.codes, bits))
    if bits in (2, 4):
        kind = {(4, True): "INT4", (4, False): "UINT4", (2, True): "INT2", (2, False): "UINT2"}
        kind = getattr(TensorProto, kind[(bits, signed)])
        codes = plain.codes.astype(helper.tensor_dtype_to_np_dtype(kind))
        assert packed.codes.tobytes() == numpy_helper.from_array(codes).raw_data
    restored = []
    for scheme in ({"packed": True}, {}):
        scheme = {"bits": bits, "signed": signed} | scheme
        restored += [client.dequantize(send(client, x, NPY, scheme, SAFETENSORS))]
        restored += [client.dequantize(send(client, x, JSON, scheme))]
    for other in restored[1:]:
        np.testing.assert_array_equal(other, restored[0])


COMPRESS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize("kind", KINDS)
def test_compressed_requests(client, encoding, kind):
    expected = send(client, X, kind, {"bits": 8}).content
    params = {} if kind == JSON else {"bits": 8}
    if kind == RAW:
        params |= {"dtype": "F32", "shape": [6, 10]}
    body = json.dumps(tensor_json(X) | {"scheme": {"bits": 8}}).encode() if kind == JSON else encode(X, kind)
    for name in (encoding, encoding.upper()):
        answer = client.post(
            "/v1/quantize",
            COMPRESS[encoding](body),
            kind=kind,
            params=params,
            headers={"content-encoding": name},
        )
        assert answer.status_code == 200, answer.text
        assert answer.content == expected


@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize("kind", [JSON, NPY, SAFETENSORS])
def test_compressed_requests_without_a_type(client, encoding, kind):
    body = json.dumps(tensor_json(X)).encode() if kind == JSON else encode(X, kind)
    expected = client.post("/v1/quantize", body, kind=kind).content
    for given in None, RAW:
        headers = {"content-encoding": encoding}
        answer = client.post("/v1/quantize", COMPRESS[encoding](body), kind=given, headers=headers)
        assert answer.status_code == 200, answer.text
        assert answer.content == expected
    for wrong, slug, status in [
        (body, "malformed-body", 400),
        (COMPRESS[encoding](b""), "unsupported-media-type", 415),
        (COMPRESS[encoding](b"GIF89a"), "unsupported-media-type", 415),
        (COMPRESS[encoding](body)[:3], "malformed-body", 400),
    ]:
        check_problem(client.post("/v1/quantize", wrong, headers=headers), slug, status)


def test_compressed_answers(client):
    x = np.random.default_rng(4).standard_normal((64, 64)).astype(np.float32)
    plain = send(client, x, JSON, {"bits": 8}).content
    for encoding, decode in (
        ("gzip", gzip.decompress),
        ("zstd", lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
    ):
        answer = client.session.post(
            client.url + "/v1/quantize",
            json=tensor_json(x) | {"scheme": {"bits": 8}},
            headers={"accept-encoding": encoding},
            stream=True,
            timeout=60,
        )
        assert answer.headers["content-encoding"] == encoding
        assert "accept-encoding" in answer.headers["vary"].lower()
        raw = answer.raw.read(decode_content=False)
        assert len(raw) < len(plain) and decode(raw) == plain
    binary = client.post(
        "/v1/quantize", npy_bytes(x), kind=NPY, headers={"accept-encoding": "gzip, zstd"}
    )
    assert "content-encoding" not in binary.headers, "codes are noise to a compressor"


@pytest.mark.parametrize("order,endian,dtype", itertools.product("CF", "<>", ["f2", "f4", "f8", "i2", "u4"]))
def test_npy_orders(client, order, endian, dtype):
    x = np.asarray(X[:4, :6].reshape(2, 2, 6) * 10, order=order).astype(endian + dtype, order=order)
    if dtype[0] == "u":
        x = np.abs(np.asarray(X[:4, :6] * 10)).astype(endian + dtype, order=order).reshape((2, 2, 6), order=order)
    expected = client.quantize(np.ascontiguousarray(x).astype("<" + dtype), {"axis": 1}, kind=NPY)
    found = client.quantize(x, {"axis": 1}, kind=NPY)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.scale, expected.scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("accept", KINDS)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (1, 1, 1, 1, 1, 1, 1, 1)], ids=str)
def test_scalars_and_empty_tensors(client, kind, accept, shape):
    x = np.full(shape, 2, np.float32)
    response = send(client, x, kind, {"bits": 8}, accept)
    assert response.status_code == 200, response.text
    if accept in (NPY, RAW):
        assert read_tensor(response).shape == shape
        return
    result = read_quantized(response)
    assert result.codes.shape == shape
    assert np.all(result.codes == 127)
    assert client.dequantize(response).shape == shape
    if not x.size:
        assert result.report["mse"] is None


def test_words_for_what_json_cannot_write(client):
    body = {"data": [1.5, "NaN", "Infinity", "-Infinity"], "scheme": {"nan": "zero"}}
    answer = client.post("/v1/quantize", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["codes"] == [127, 0, 127, -127]
    for word in ("nan", "inf", "Infinite", "", "1"):
        problem = client.post("/v1/quantize", {"data": [1.5, word]})
        assert problem.status_code in (400, 422), word


@pytest.mark.parametrize("dtype", REALS)
def test_base64(client, dtype):
    x = np.arange(6).reshape(2, 3).astype(DTYPES[dtype])
    body = tensor_json(x, base64_data=True) | {"scheme": "uint8"}
    plain = tensor_json(x) | {"scheme": "uint8"}
    answer = client.post("/v1/quantize", body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == client.post("/v1/quantize", plain).json()


@pytest.mark.parametrize(
    "text",
    ["", "====", "AAA", "AAAA AAAA", "%%%%", base64.urlsafe_b64encode(b"\xff" * 24).decode(), "AAAA" * 100],
)
def test_broken_base64(client, text):
    problem = client.post("/v1/quantize", {"data_b64": text, "shape": [6], "dtype": "F32"})
    assert problem.status_code == 400, problem.text
    assert problem.json()["errors"][0]["pointer"] == "/data_b64"


def test_nested_and_flat_data_say_the_same(client):
    flat = {"data": X.ravel().tolist(), "shape": [6, 10], "scheme": "int8"}
    deep = {"data": X.tolist(), "scheme": "int8"}
    assert client.post("/v1/quantize", flat).json() == client.post("/v1/quantize", deep).json()
    for data, shape in (([[1, 2], [3]], None), ([1, 2, 3], [2, 2]), ([[1], 2], None), ([1, [2]], None)):
        body = {"data": data} | ({"shape": shape} if shape else {})
        problem = client.post("/v1/quantize", body)
        check_problem(problem, "malformed-body", 400)
    assert client.post("/v1/quantize", {"data": 3}).json()["shape"] == []


def test_the_call_of_the_issue(client):
    body = {
        "data": [[0.1, -2.0], [3.3, 0]],
        "dtype": "F32",
        "scheme": {
            "bits": 8,
            "signed": True,
            "symmetric": True,
            "granularity": "channel",
            "axis": 0,
            "range": "percentile",
            "percentile": 99.9,
        },
    }
    answer = client.post("/v1/quantize", body)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["dtype"], body["shape"]) == ("I8", [2, 2])
    assert body["codes"] == [[6, -127], [127, 0]] and body["zero_point"] == [0, 0]
    assert len(body["scale"]) == 2
    fields = {"mse", "mse_clipped", "mse_rounded", "max_abs_error", "sqnr_db", "cosine", "clipped"}
    fields |= {"nan", "inf", "zeroed", "bits_per_element", "compression_ratio"}
    assert set(body["report"]) == fields


def test_query_and_body_are_one_vocabulary(client):
    fields = {
        "bits": 6,
        "signed": False,
        "symmetric": False,
        "granularity": "channel",
        "axis": -1,
        "range": "percentile",
        "percentile": 99.5,
        "profile": "torch",
        "nan": "zero",
        "packed": True,
    }
    by_body = send(client, X, JSON, fields).json()
    params = {name: query(value) for name, value in fields.items()}
    by_query = client.post("/v1/quantize", npy_bytes(X), kind=NPY, accept=JSON, params=params).json()
    assert by_body == by_query
    for params in ({"scheme": "int8"}, {"preset": "int8"}):
        assert client.post("/v1/quantize", npy_bytes(X), kind=NPY, params=params).status_code == 200
    presets = client.request("GET", "/info").json()["presets"]
    assert {"int8", "uint8", "int4", "int8_per_channel", "int4_g128"} <= {p["name"] for p in presets}
    for preset in presets:
        # Of a size that blocks divide.
        x = np.resize(X, (4, 64))
        codes = client.quantize(x, preset["name"]).codes
        packed = {"mxfp4": 2, "nvfp4": 2, "mxfp6_e2m3": 4 / 3, "mxfp6_e3m2": 4 / 3}
        assert codes.size == x.size / packed.get(preset["name"], 1)


def test_media_types_are_guessed_where_none_is_named(client):
    text = json.dumps({"data": nested(X), "scheme": "int8"})
    form = "application/x-www-form-urlencoded"
    assert client.post("/v1/quantize", text, kind=form).status_code == 200
    for body in (text, npy_bytes(X), write_safetensors({"w": X})):
        assert client.post("/v1/quantize", body).status_code == 200
    problem = check_problem(client.post("/v1/quantize", "a=1", kind=form), "unsupported-media-type", 415)
    assert "content-type" in json.dumps(problem).lower(), "tells the fix"
    check_problem(client.post("/v1/quantize", b"x", kind="text/html"), "unsupported-media-type", 415)
    vendor = "application/vnd.docker.ai.safetensors"
    assert client.post("/v1/quantize", write_safetensors({"w": X}), kind=vendor).status_code == 200


def test_what_libraries_send_by_themselves(client, tmp_path):
    expect = client.post("/v1/quantize", npy_bytes(X), kind=NPY, params={"bits": 4, "signed": False}).content
    file = tmp_path / "w.npy"
    file.write_bytes(npy_bytes(X))
    for fields in ({"params": {"bits": 4, "signed": False}}, {"data": {"bits": 4, "signed": False}}):
        with file.open("rb") as upload:
            answer = client.request("POST", "/v1/quantize", files={"upload": upload}, **fields)
        assert answer.content == expect
    url = f"{client.url}/v1/quantize?bits=4&signed=False"
    for options in (["-F", f"file=@{file}"], ["--data-binary", f"@{file}"]):
        assert subprocess.run(["curl", "-sf", url, *options], capture_output=True, check=True).stdout == expect
    saved = subprocess.run(["curl", "-sfOJ", url, "-F", f"file=@{file}"], cwd=tmp_path, check=True)
    assert saved.returncode == 0 and (tmp_path / "quantize.safetensors").read_bytes() == expect
    params = {"dtype": str(X.dtype), "shape": X.shape, "scheme.bits": 4, "signed": False}
    raw = client.request("POST", "/v1/quantize", data=X.tobytes(), params=params, headers={"content-type": RAW})
    assert raw.content == expect
