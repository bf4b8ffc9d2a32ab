"""Floats and blocks: against ml_dtypes and ONNX here, and against what other peers stored (tests/golden)."""

import hashlib
import json
import pathlib
import sys

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from client import DTYPES, JSON, NPY, RAW, SAFETENSORS, check_problem, read_safetensors, read_tensor, write_safetensors

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
sys.path.insert(0, str(GOLDEN))
import samples  # noqa: E402

# Name, type of the codes in a file, name of the type in ONNX.
EIGHTHS = {
    "fp8_e4m3": ("F8_E4M3", "FLOAT8E4M3FN"),
    "fp8_e5m2": ("F8_E5M2", "FLOAT8E5M2"),
    "fp8_e4m3fnuz": ("F8_E4M3FNUZ", "FLOAT8E4M3FNUZ"),
    "fp8_e5m2fnuz": ("F8_E5M2FNUZ", "FLOAT8E5M2FNUZ"),
}
MICRO = ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "mxint8", "nvfp4"]
X = (np.random.default_rng(5).standard_normal((6, 64)) * 3).astype(np.float32)


def halves(dtype):
    """Every number of a type of 16 bits that is finite."""
    x = np.arange(1 << 16, dtype=np.uint16).view(dtype).astype(np.float32)
    return x[np.isfinite(x)]


def parts_of(client, tensors, **params):
    """Parts of each tensor, of one request for all, and the answer."""
    body = write_safetensors(tensors)
    answer = client.post("/v1/quantize", body, kind=SAFETENSORS, accept=SAFETENSORS, params=params)
    assert answer.status_code == 200, answer.text
    return read_safetensors(answer.content), answer


def codes_of(client, x, **params):
    (parts, _), _ = parts_of(client, {"x": x}, **params)
    return parts["x.codes"]


def same(a, b):
    """Equal bit for bit, but that any NaN is as good as another."""
    a, b = np.asarray(a), np.asarray(b)
    nan = np.isnan(a.astype(np.float32)) & np.isnan(b.astype(np.float32))
    bits = {1: np.uint8, 2: np.uint16}[a.dtype.itemsize]
    return bool(((a.view(bits) == b.view(bits)) | nan).all())


@pytest.mark.parametrize("name", EIGHTHS)
@pytest.mark.parametrize("source", [np.float16, ml_dtypes.bfloat16])
def test_every_half_becomes_what_ml_dtypes_and_onnx_make_of_it(client, name, source):
    dtype, onnx_name = EIGHTHS[name]
    x = halves(source)
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, -np.float32(np.inf))])
    x = x[np.isfinite(x)]
    plain = codes_of(client, x[None], preset=name, scale=1, saturate="false")
    assert plain.dtype == DTYPES[dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        assert same(plain[0], x.astype(DTYPES[dtype]))
    cast = helper.make_node("Cast", ["x"], ["y"], to=getattr(TensorProto, onnx_name), saturate=1)
    value = helper.make_tensor_value_info
    types = [value("x", TensorProto.FLOAT, [None])], [value("y", getattr(TensorProto, onnx_name), [None])]
    model = helper.make_model(helper.make_graph([cast], "cast", *types))
    (expected,) = ReferenceEvaluator(model).run(None, {"x": x})
    saturated = codes_of(client, x[None], preset=name, scale=1)
    assert same(saturated[0], expected)


@pytest.mark.parametrize("name", EIGHTHS)
def test_every_code_is_restored(client, name):
    dtype = DTYPES[EIGHTHS[name][0]]
    codes = np.arange(256, dtype=np.uint8).view(dtype).reshape(4, 64)
    scale = np.array([1, 0.5, 3, 1e-3], np.float32)
    metadata = {"scheme": json.dumps({"format": name, "granularity": "channel", "axis": 0})}
    body = write_safetensors({"codes": codes, "scale": scale}, metadata)
    answer = client.post("/v1/dequantize", body, kind=SAFETENSORS, accept=SAFETENSORS)
    assert answer.status_code == 200, answer.text
    expected = codes.astype(np.float32) * scale[:, None]
    assert np.array_equal(read_tensor(answer), expected, equal_nan=True)


@pytest.mark.parametrize(("name", "dtype"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_halves_are_casts(client, name, dtype):
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 1 << 32, (1, 20000), dtype=np.uint32)
    x = bits.view(np.float32)
    x = np.where(np.isnan(x), np.float32(0), x)
    # Half of the numbers beside ties.
    x[0, ::2] = ((bits & 0xFFFF0000) | 0x8000).astype(np.uint32).view(np.float32)[0, ::2]
    x = np.where(np.isnan(x), np.float32(0), x)
    with np.errstate(over="ignore"):
        expected = x.astype(dtype)
    codes = codes_of(client, x, preset=name)
    assert codes.dtype == np.dtype(dtype) and same(codes, expected)
    if name == "f16":  # ml_dtypes rounds twice
        double = x.astype(np.float64) * (1 + 2.0**-40)
        with np.errstate(over="ignore"):
            assert same(codes_of(client, double, preset=name), double.astype(dtype))
    nan = codes_of(client, np.array([[np.nan, 1, -np.inf]], np.float32), preset=name).astype(np.float32)
    assert np.isnan(nan[0, 0]) and nan[0, 1] == 1 and nan[0, 2] == -np.inf


def digest(*parts):
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:12]


GOLDEN_FORMATS = json.loads((GOLDEN / "formats.json").read_text())


def scheme_of(peer):
    """The scheme by which a peer's bytes are made."""
    maker, name, *rounding = peer.split("-")
    if name == "fp8":
        channel = {"granularity": "channel", "axis": 0}
        return {"preset": "fp8_e4m3"} | (channel if rounding == ["channel"] else {})
    if name == "nvfp4":
        profiles = {"ct": "compressed-tensors", "ao": "torch", "mo": "modelopt"}
        return {"preset": name, "profile": profiles[maker]}
    if maker == "ct":
        names = {"mxfp8": "mxfp8_e4m3", "mxfp6": "mxfp6_e2m3", "mxfp4": "mxfp4"}
        return {"preset": names[name], "scale_rounding": "even"}
    # torchao does not pack floats of 6 bits.
    unpacked = {"packed": False} if name.startswith("mxfp6") else {}
    return {"preset": name, "scale_rounding": rounding[0], "profile": "torch"} | unpacked


@pytest.mark.parametrize("peer", GOLDEN_FORMATS["peers"])
def test_tensors_are_stored_as_peers_store_them(client, peer):
    tensors = samples.tensors()
    assert digest(*tensors) == GOLDEN_FORMATS["inputs"]
    rows = GOLDEN_FORMATS["peers"][peer]
    assert sum(row is not None for row in rows) >= 200
    names = {f"t{i:03}": x for i, x in enumerate(tensors)}
    (parts, _), answer = parts_of(client, names, **scheme_of(peer))
    restored = client.post("/v1/dequantize", answer.content, kind=SAFETENSORS, accept=SAFETENSORS)
    assert restored.status_code == 200, restored.text
    restored, _ = read_safetensors(restored.content)
    wrong = []
    for (name, _), row in zip(names.items(), rows):
        own = [parts[f"{name}.{part}"] for part in ("codes", "scale", "global_scale") if f"{name}.{part}" in parts]
        if row is not None and [digest(*own), digest(restored[name] + np.float32(0))] != row:
            wrong.append(name)
    assert not wrong, (len(wrong), wrong)


@pytest.mark.parametrize("name", ["f16", "bf16", *EIGHTHS, *MICRO])
@pytest.mark.parametrize("kind", [JSON, SAFETENSORS])
@pytest.mark.parametrize("packed", [None, False])
def test_answers_go_straight_back(client, name, kind, packed):
    """In every way out, and with the report that what comes back has."""
    scheme = {"preset": name} if packed is None else {"preset": name, "packed": packed}
    body = {"data": X.tolist(), "scheme": scheme}
    answer = client.post("/v1/quantize", body, accept=kind)
    assert answer.status_code == 200, answer.text
    restored = [client.dequantize(answer, accept=accept) for accept in (JSON, NPY, RAW, SAFETENSORS)]
    for other in restored[1:]:
        np.testing.assert_array_equal(other, restored[0])
    assert restored[0].shape == X.shape
    if kind == JSON:
        report, scheme = answer.json()["report"], answer.json()["scheme"]
        flat = np.array(answer.json()["codes"]).ravel()
        assert flat.min() >= 0 or name == "mxint8"
    else:
        _, metadata = read_safetensors(answer.content)
        report, scheme = json.loads(metadata["report"]), json.loads(metadata["scheme"])
    error = X.astype(np.float64) - restored[0]
    assert report["mse"] == pytest.approx((error**2).mean(), rel=1e-12)
    assert report["max_abs_error"] == np.abs(error).max()
    # What was resolved is a scheme that says the same.
    again = client.post("/v1/quantize", {"data": X.tolist(), "scheme": scheme}, accept=kind)
    assert again.content == answer.content
    if name != "nvfp4":
        double = client.post("/v1/quantize", body | {"dtype": "F64"}, accept=kind)
        assert double.status_code == 200, double.text


CONTRACT = [
    ("fp8_e4m3", {"granularity": "channel", "axis": 0}, {"codes": ("F8_E4M3", [6, 64]), "scale": ("F32", [6])}),
    ("fp8_e5m2", {}, {"codes": ("F8_E5M2", [6, 64]), "scale": ("F32", [])}),
    ("fp8_e4m3", {"block_shape": "4,32"}, {"codes": ("F8_E4M3", [6, 64]), "scale": ("F32", [2, 2])}),
    ("bf16", {}, {"codes": ("BF16", [6, 64])}),
    ("mxfp8_e5m2", {}, {"codes": ("F8_E5M2", [6, 64]), "scale": ("F8_E8M0", [6, 2])}),
    ("mxfp6_e3m2", {}, {"codes": ("U8", [6, 48]), "scale": ("F8_E8M0", [6, 2])}),
    ("mxfp4", {}, {"codes": ("U8", [6, 32]), "scale": ("F8_E8M0", [6, 2])}),
    ("mxfp4", {"packed": "false"}, {"codes": ("U8", [6, 64]), "scale": ("F8_E8M0", [6, 2])}),
    ("mxint8", {}, {"codes": ("I8", [6, 64]), "scale": ("F8_E8M0", [6, 2])}),
    (
        "nvfp4",
        {},
        {"codes": ("U8", [6, 32]), "scale": ("F8_E4M3", [6, 4]), "global_scale": ("F32", [1])},
    ),
]


@pytest.mark.parametrize(("name", "options", "expected"), CONTRACT)
def test_parts_have_the_types_and_shapes_that_peers_give_them(client, name, options, expected):
    params = {"preset": name} | options
    answer = client.post("/v1/quantize", X.tobytes(), kind=RAW, accept=SAFETENSORS,
                         params=params | {"dtype": "F32", "shape": [6, 64]})
    assert answer.status_code == 200, answer.text
    size = int.from_bytes(answer.content[:8], "little")
    header = json.loads(answer.content[8 : 8 + size])
    del header["__metadata__"]
    assert {key: (entry["dtype"], entry["shape"]) for key, entry in header.items()} == expected


@pytest.mark.parametrize("name", ["fp8_e4m3", "mxfp4", "mxfp6_e2m3"])
def test_bare_codes_go_back_with_their_scales(client, name):
    params = {"preset": name, "dtype": "F32", "shape": [6, 64]}
    whole = client.post("/v1/quantize", X.tobytes(), kind=RAW, accept=JSON, params=params)
    expected = client.dequantize(whole)
    for accept in (NPY, RAW):
        codes = client.post("/v1/quantize", X.tobytes(), kind=RAW, accept=accept, params=params)
        assert codes.status_code == 200, codes.text
        back = {"format": name, "shape": [6, 64], "scale": codes.headers["quantd-scale"]}
        answer = client.post("/v1/dequantize", codes.content, kind=accept, accept=NPY, params=back)
        assert answer.status_code == 200, answer.text
        np.testing.assert_array_equal(read_tensor(answer), expected)


@pytest.mark.parametrize("name", ["fp8_e4m3", "mxfp4", "mxint8", "nvfp4"])
def test_models_of_v2_say_what_their_bytes_are(client, name):
    data = {"name": "x", "shape": [6, 64], "datatype": "FP32", "data": X.ravel().tolist()}
    made = client.post(f"/v2/models/quantize_{name}/infer", {"inputs": [data]})
    assert made.status_code == 200, made.text
    outputs = {output["name"]: output for output in made.json()["outputs"]}
    inputs = [output for key, output in outputs.items() if key != "metrics"]
    stored = {"fp8_e4m3": "F8_E4M3", "mxfp4": "mxfp4", "nvfp4": "nvfp4"}
    if name in stored:
        assert outputs["q"]["datatype"] == "UINT8"
        assert outputs["q"]["parameters"]["quantd_dtype"] == stored[name]
        assert outputs["q"]["parameters"]["quantd_shape"] == "[6,64]"
    restored = client.post(f"/v2/models/dequantize_{name}/infer", {"inputs": inputs})
    assert restored.status_code == 200, restored.text
    expected = client.dequantize(client.post("/v1/quantize", {"data": X.tolist(), "scheme": name}))
    (x,) = restored.json()["outputs"]
    np.testing.assert_array_equal(np.array(x["data"], np.float32).reshape(6, 64), expected)


def test_every_format_in_one_comparison(client):
    formats = ["int8", "fp8_e4m3", "nvfp4", "mxfp4", "mxfp8_e4m3", "bf16"]
    params = {"formats": ",".join(formats), "dtype": "F32", "shape": [6, 64]}
    answer = client.post("/v1/compare", X.tobytes(), kind=RAW, params=params)
    assert answer.status_code == 200, answer.text
    rows = {row["name"]: row for row in answer.json()["results"]}
    assert sorted(rows) == sorted(formats)
    for name, row in rows.items():
        single = client.post("/v1/quantize", {"data": X.tolist(), "scheme": name}).json()
        assert row["report"] == single["report"] and row["scheme"] == single["scheme"]
        assert row["scheme"]["format"] == ("int" if name == "int8" else name)
    sweep = client.post("/v1/compare", {"data": X.tolist()}).json()["results"]
    assert {"bf16", "fp8_e4m3", "mxfp4", "nvfp4"} <= {row["scheme"]["format"] for row in sweep}
    check_problem(
        client.post("/v1/compare", {"data": [1], "formats": ["int8"], "schemes": ["int4"]}),
        "invalid-option", 400, "/formats",
    )


def test_ranges_clip_and_searches_find_the_least_error(client):
    x = np.random.default_rng(9).standard_t(3, (4, 512)).astype(np.float32)
    channel = {"format": "fp8_e5m2", "granularity": "channel"}
    made = client.post("/v1/quantize", {"data": x.tolist(), "scheme": channel | {"percentile": 99}}).json()
    expected = np.percentile(np.abs(x), 99, axis=1).astype(np.float32) / np.float32(57344)
    np.testing.assert_allclose(made["scale"], expected, rtol=1e-6)
    assert made["report"]["clipped"] > 0
    reports = {}
    for method in ("min_max", "mse"):
        scheme = channel | {"format": "fp8_e4m3", "range": method}
        reports[method] = client.post("/v1/quantize", {"data": x.tolist(), "scheme": scheme}).json()
    assert reports["mse"]["report"]["mse"] <= reports["min_max"]["report"]["mse"]
    # Exhaustively, in NumPy.
    amax = np.abs(x[0]).max()

    def error(k):
        scale = np.float32(np.float32(amax * np.float32(k)) / np.float32(100)) / np.float32(448)
        v = np.clip(x[0] / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        return ((x[0].astype(np.float64) - v * scale) ** 2).sum()

    best = min(range(100, 0, -1), key=error)
    found = reports["mse"]["scale"][0] * 448 / amax * 100
    assert found == pytest.approx(best, rel=1e-5)


def test_nan_and_infinities_follow_the_format(client):
    x = np.tile(np.float32([1, -2, 3, 4]), (2, 16))
    x[0, 3], x[1, 40] = np.nan, -np.inf
    params = {"preset": "fp8_e4m3"}
    (parts, metadata), answer = parts_of(client, {"x": x}, **params)
    codes = parts["x.codes"].astype(np.float32)
    assert np.isnan(codes[0, 3]) and codes[1, 40] == -448
    report = json.loads(metadata["x"])
    assert report["nan"] == 1 and report["inf"] == 1 and report["mse"] is not None
    # A block of NaN is NaN as a whole, one with an infinity has the scale of one.
    (parts, _), answer = parts_of(client, {"x": x}, preset="mxfp4")
    assert parts["x.scale"].view(np.uint8).tolist() == [[255, 127], [127, 253]]
    restored = client.post("/v1/dequantize", answer.content, kind=SAFETENSORS, accept=SAFETENSORS)
    restored = read_safetensors(restored.content)[0]["x"]
    assert np.isnan(restored[0, :32]).all() and np.isfinite(restored[0, 32:]).all()
    # 6 * 2^126 is beyond F32.
    assert np.isfinite(restored[1, :40]).all() and restored[1, 40] == -np.inf
    (parts, _), _ = parts_of(client, {"x": x}, preset="mxfp4", nan="zero")
    assert parts["x.scale"].view(np.uint8)[0, 0] == 127
    refused = client.post("/v1/quantize", write_safetensors({"x": x}), kind=SAFETENSORS, params={"preset": "nvfp4"})
    assert "NaN" in check_problem(refused, "non-finite", 422)["detail"]


@pytest.mark.parametrize("method", [{"percentile": 99}, {"range": "mse"}, {}])
def test_slices_without_finite_elements_have_a_scale(client, method):
    for data in ([], [[]], ["NaN"], [["NaN", "Infinity"], [1, 2]]):
        scheme = {"format": "fp8_e4m3", "granularity": "token", "profile": "onnx"} | method
        answer = client.post("/v1/quantize", {"data": data, "scheme": scheme})
        assert answer.status_code == 200, answer.text
        assert np.array(answer.json()["scale"]).ravel()[:1].tolist() in ([], [1.0])


def test_zeros_stay_zeros_among_tiny_numbers(client):
    x = np.zeros((1, 32), np.float32)
    x[0, 0] = 2e-36
    for profile in ("torch", "modelopt", "compressed-tensors"):
        (parts, _), answer = parts_of(client, {"x": x}, preset="nvfp4", profile=profile)
        restored = client.post("/v1/dequantize", answer.content, kind=SAFETENSORS, accept=SAFETENSORS)
        assert not read_safetensors(restored.content)[0]["x"][0, 1:].any(), profile
    beyond = {"data": [[1e39] * 16], "dtype": "F64", "scheme": "nvfp4"}
    assert "F32" in check_problem(client.post("/v1/quantize", beyond), "invalid-option", 400, "/data")["detail"]


def test_packed_integers_of_few_elements_come_back_through_v2(client):
    for bits, n in ((4, 1), (6, 3), (7, 5), (2, 1)):
        data = {"name": "x", "shape": [n], "datatype": "FP32", "data": [-1.0, 0.5, 1.0, 0.25, -0.5][:n]}
        parameters = {"bits": bits, "packed": True}
        made = client.post("/v2/models/quantize_int8/infer", {"inputs": [data], "parameters": parameters})
        assert made.status_code == 200, made.text
        inputs = [output for output in made.json()["outputs"] if output["name"] != "metrics"]
        back = client.post("/v2/models/dequantize_int8/infer", {"inputs": inputs, "parameters": {"bits": bits}})
        assert back.status_code == 200, back.text
        assert back.json()["outputs"][0]["data"][0] == pytest.approx(-1, abs=1e-6)


CODES_REFUSED = [
    ({"codes": [[200] * 32], "dtype": "U8", "scale": [[127]], "scheme": {"format": "mxfp4", "packed": False}}, "element 0"),
    ({"codes": [[1] * 32], "dtype": "F8_E5M2", "scale": [[127]], "scheme": "mxfp8_e4m3"}, "F8_E5M2 codes"),
    ({"codes": [[1] * 32], "dtype": "F8_E4M3", "scale": [[127, 127]], "scheme": "mxfp8_e4m3"}, "2 scales of 1 blocks"),
    ({"codes": [[1, 2]], "dtype": "F8_E4M3", "scale": [1, 2, 3], "scheme": "fp8_e4m3"}, "3 values for 1 slices"),
    ({"codes": [[1] * 8], "dtype": "U8", "scale": [[56]], "global_scale": [0], "scheme": "nvfp4"}, "positive"),
    ({"codes": [[1] * 7], "dtype": "U8", "scale": [[56]], "global_scale": [1], "scheme": "nvfp4"}, "whole number of blocks"),
    ({"codes": [[1] * 8], "dtype": "U8", "scale": [[56]], "scheme": "nvfp4"}, "missing"),
]


@pytest.mark.parametrize(("body", "detail"), CODES_REFUSED)
def test_codes_that_fit_nothing_are_refused(client, body, detail):
    answer = client.post("/v1/dequantize", body)
    assert answer.status_code in (400, 422), answer.text
    assert detail in answer.json()["detail"], answer.text


REFUSED = [
    ({"format": "mxfp4"}, (), "/data", "a scalar has no axis"),
    ({"format": "f16", "scale": 2}, (2, 64), "/scheme/scale", "does not go with format f16"),
    ({"format": "mxfp4"}, (2, 40), "/data", "no whole number of blocks of 32"),
    ({"format": "nvfp4", "axis": 0}, (8, 32), "/data", "no whole number of blocks of 16"),
    ({"format": "mxfp4", "axis": 0}, (32, 3), "/scheme/packed", "no whole number of bytes"),
    ({"format": "mxfp4", "group_size": 16}, (2, 64), "/scheme/group_size", "have 32 elements"),
    ({"format": "mxfp4", "granularity": "channel"}, (2, 64), "/scheme/granularity", "along an axis"),
    ({"format": "nvfp4", "scale_rounding": "ceil"}, (2, 64), "/scheme/scale_rounding", "no powers of two"),
    ({"format": "nvfp4", "nan": "keep"}, (2, 64), "/scheme/nan", "no NaN"),
    ({"format": "mxfp4", "profile": "modelopt"}, (2, 64), "/scheme/profile", "not one that format mxfp4 has"),
    ({"format": "fp8_e4m3", "bits": 4}, (2, 64), "/scheme/bits", "does not go with format fp8_e4m3"),
    ({"format": "fp8_e4m3", "range": "entropy_ort"}, (2, 64), "/scheme/range", "is for integers"),
    ({"format": "fp8_e4m3", "profile": "tflite"}, (2, 64), "/scheme/profile", "tflite"),
    ({"format": "bf16", "granularity": "token"}, (2, 64), "/scheme/granularity", "has no scales"),
    ({"format": "mxfp8_e4m3", "range": "mse"}, (2, 64), "/scheme/range", "largest magnitudes"),
    ({"format": "int", "saturate": True}, (2, 64), "/scheme/saturate", "does not go with format int"),
    ({"format": "int", "profile": "modelopt"}, (2, 64), "/scheme/profile", "modelopt"),
]


@pytest.mark.parametrize(("scheme", "shape", "place", "detail"), REFUSED)
def test_contradictions_name_both_sides(client, scheme, shape, place, detail):
    answer = client.post("/v1/quantize", {"data": np.ones(shape).tolist(), "scheme": scheme})
    problem = check_problem(answer, "invalid-option", 400, place)
    assert detail in problem["detail"], problem
