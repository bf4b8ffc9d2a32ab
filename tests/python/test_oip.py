"""/v2 through the clients that people have: tritonclient, sync and asyncio, and KServe's of REST."""

import asyncio
import concurrent.futures

import kserve
import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from oip import NAMES

RNG = np.random.default_rng(5)
X = RNG.normal(size=(6, 200)).astype(np.float32)
PRESETS = ["int8", "uint8", "int8_per_channel", "int8_per_token", "int4_g128", "uint4_g128", "int16", "int2"]


@pytest.fixture(scope="module")
def sync(server):
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as client:
        yield client


def given(name, x, binary=True):
    made = triton.InferInput(name, list(x.shape), NAMES[x.dtype.newbyteorder("<")])
    return made.set_data_from_numpy(x, binary_data=binary)


def v1(client, x, preset, **scheme):
    return client.quantize(x, {"preset": preset} | scheme)


def same(result, expected):
    """Outputs of a quantizing model against an answer of /v1, bit for bit."""
    np.testing.assert_array_equal(result.as_numpy("q"), expected.codes)
    assert result.as_numpy("q").dtype == expected.codes.dtype
    scale = result.as_numpy("scale")
    assert scale.tobytes() == expected.scale.tobytes()
    np.testing.assert_array_equal(result.as_numpy("zero_point").ravel(), expected.zero_point.ravel())
    names = result.get_output("metrics")["parameters"]["metric_names"].split(",")
    metrics = dict(zip(names, result.as_numpy("metrics"), strict=True))
    for name, value in expected.report.items():
        assert metrics[name] == value or (value is None and np.isnan(metrics[name])), name


def test_the_server_and_its_models_are_described(sync):
    assert sync.is_server_live() and sync.is_server_ready()
    metadata = sync.get_server_metadata()
    assert metadata["name"] == "quantd"
    assert set(metadata["extensions"]) == {
        "binary_tensor_data",
        "model_configuration",
        "model_repository",
        "statistics",
    }
    index = sync.get_model_repository_index()
    # Other tests keep layers.
    names = {entry["name"] for entry in index if entry["name"].startswith(("quantize_", "dequantize_", "matmul_"))}
    assert {"quantize_int8", "dequantize_int8_per_channel", "matmul_int8"} <= names
    assert all(entry["state"] == "READY" for entry in index)
    for name in names:
        assert sync.is_model_ready(name) and sync.is_model_ready(name, "1")
        described = sync.get_model_metadata(name, "1")
        assert (described["name"], described["versions"]) == (name, ["1"])
        config = sync.get_model_config(name)
        for part, tensors in (("inputs", config["input"]), ("outputs", config["output"])):
            assert [tensor["name"] for tensor in described[part]] == [tensor["name"] for tensor in tensors]
            for tensor, configured in zip(described[part], tensors, strict=True):
                assert configured["data_type"] == "TYPE_" + tensor["datatype"]
                assert configured["dims"] == tensor["shape"]
    assert not sync.is_model_ready("quantize_int9") and not sync.is_model_ready("quantize_int8", "2")
    with pytest.raises(triton.InferenceServerException, match="no such model"):
        sync.get_model_metadata("quantize_int9")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_model_gives_what_v1_gives(sync, client, preset):
    result = sync.infer("quantize_" + preset, [given("x", X)], request_id="a-7")
    assert result.get_response()["id"] == "a-7"
    assert result.get_response()["model_name"] == "quantize_" + preset
    same(result, v1(client, X, preset))


def test_metadata_says_what_comes(sync):
    for entry in sync.get_model_repository_index():
        name = entry["name"]
        if not name.startswith("quantize_"):
            continue
        described = {tensor["name"]: tensor["datatype"] for tensor in sync.get_model_metadata(name)["outputs"]}
        # Of a size that blocks divide.
        x = np.resize(X, (4, 64))
        result = sync.infer(name, [given("x", x)])
        parts = [output["name"] for output in result.get_response()["outputs"] if output["name"] != "metrics"]
        for output in result.get_response()["outputs"]:
            assert described.pop(output["name"]) == output["datatype"], name
        assert not described, name
        # bfloat16 has no type in NumPy.
        if name == "quantize_bf16":
            continue
        back = [given(part, result.as_numpy(part)) for part in parts]
        restored = sync.infer("de" + name, back).as_numpy("x")
        assert restored.shape == x.shape
        # Half a step, and another half where a rounded zero point moves the ends.
        steps = result.as_numpy("scale").max() if "zero_point" in parts else np.abs(x).max() / 4
        assert np.abs(restored - x).max() <= steps, name


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.int32])
def test_element_types(sync, client, dtype):
    x = (X * 20).astype(dtype)
    result = sync.infer("quantize_int8_per_channel", [given("x", x)])
    same(result, v1(client, x, "int8_per_channel"))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1,), (), (2, 3, 4, 5)])
def test_shapes_of_any_rank(sync, client, shape):
    x = RNG.normal(size=shape).astype(np.float32)
    for binary in (True, False):
        if shape == () and not binary:
            continue
        result = sync.infer("quantize_int8", [given("x", x, binary)])
        same(result, v1(client, x, "int8"))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compression_both_ways(sync, client, coding):
    result = sync.infer(
        "quantize_int8",
        [given("x", X)],
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    same(result, v1(client, X, "int8"))
    # The client reads the coding from the header: see that there is one.
    answer = client.request(
        "POST",
        "/v2/models/quantize_int8/infer",
        json={"inputs": [{"name": "x", "shape": [2000], "datatype": "FP32", "data": [1.5] * 2000}]},
        headers={"accept-encoding": coding},
    )
    assert answer.headers["content-encoding"] == coding
    assert answer.json()["outputs"][0]["data"] == [127] * 2000


def test_outputs_that_were_asked_for(sync, client):
    wanted = [triton.InferRequestedOutput("scale", binary_data=False), triton.InferRequestedOutput("q")]
    result = sync.infer("quantize_int8_per_channel", [given("x", X)], outputs=wanted)
    document = result.get_response()
    assert [output["name"] for output in document["outputs"]] == ["scale", "q"]
    assert "data" in document["outputs"][0] and "data" not in document["outputs"][1]
    expected = v1(client, X, "int8_per_channel")
    assert result.as_numpy("scale").tobytes() == expected.scale.tobytes()
    np.testing.assert_array_equal(result.as_numpy("q"), expected.codes)
    with pytest.raises(triton.InferenceServerException, match="no output \"y\""):
        sync.infer("quantize_int8", [given("x", X)], outputs=[triton.InferRequestedOutput("y")])
    with pytest.raises(triton.InferenceServerException, match="classification"):
        sync.infer("quantize_int8", [given("x", X)], outputs=[triton.InferRequestedOutput("q", class_count=3)])


def test_parameters_override_the_scheme(sync, client):
    x = np.abs(X)
    parameters = {"bits": 5, "granularity": "group", "group_size": 25, "axis": -1, "nan": "zero", "symmetric": False}
    result = sync.infer("quantize_uint8", [given("x", x)], parameters=parameters)
    same(result, v1(client, x, "uint8", **parameters))
    result = sync.infer("quantize_int8", [given("x", X)], parameters={"block_shape": "2,50"})
    same(result, v1(client, X, "int8", block_shape=[2, 50]))
    for parameters, text in [
        ({"bits": 9}, "/parameters/bits: not a supported number of bits; use 2, 3, 4, 5, 6, 7, 8 or 16"),
        ({"bits": "8"}, "/parameters/bits: not an integer in the allowed range; use 2, 3, 4, 5, 6, 7, 8 or 16"),
        ({"bitz": 8}, "/parameters/bitz: unknown option"),
        ({"preset": "uint8"}, "/parameters/preset: the name of the model says it"),
        ({"axis": 7, "granularity": "channel"}, "/parameters/axis"),
    ]:
        with pytest.raises(triton.InferenceServerException) as refused:
            sync.infer("quantize_int8", [given("x", X)], parameters=parameters)
        assert text in refused.value.message(), parameters
        assert refused.value.status() == "400"


def test_packed_codes_say_what_they_are(sync, client):
    result = sync.infer("quantize_int4_g128", [given("x", X)], parameters={"packed": True})
    expected = v1(client, X, "int4_g128", packed=True)
    np.testing.assert_array_equal(result.as_numpy("q").ravel(), expected.codes.ravel())
    output = result.get_output("q")
    assert output["datatype"] == "UINT8"
    parameters = {key: value for key, value in output["parameters"].items() if key != "binary_data_size"}
    assert parameters == {"quantd_dtype": "I4", "quantd_packing": "int4_lo_hi", "quantd_shape": "[6,200]"}
    # Unpacked by hand, low nibble first, they are the codes.
    low, high = result.as_numpy("q") & 15, result.as_numpy("q") >> 4
    nibbles = np.stack([low, high], -1).reshape(6, 200).astype(np.int8)
    plain = sync.infer("quantize_int4_g128", [given("x", X)])
    np.testing.assert_array_equal(np.where(nibbles > 7, nibbles - 16, nibbles), plain.as_numpy("q"))
    parts = [given(part, result.as_numpy(part)) for part in ("q", "scale", "zero_point")]
    back = sync.infer("dequantize_int4_g128", parts, parameters={"packed": True, "shape": "6,200"})
    parts = [given(part, plain.as_numpy(part)) for part in ("q", "scale", "zero_point")]
    plain = sync.infer("dequantize_int4_g128", parts).as_numpy("x")
    assert back.as_numpy("x").tobytes() == plain.tobytes()


def test_products(sync, client):
    w = RNG.normal(size=(200, 30)).astype(np.float32)
    result = sync.infer("matmul_int8", [given("a", X), given("b", w)])
    expected = client.post("/v1/matmul", {"a": {"data": X.tolist()}, "b": {"data": w.tolist()}}).json()
    assert result.as_numpy("y").tobytes() == np.array(expected["data"], np.float32).tobytes()
    result = sync.infer(
        "matmul_int8",
        [given("a", X), given("b", np.ascontiguousarray(w.T))],
        parameters={"a_scheme": "int8_per_token", "transpose_b": True, "report": True},
    )
    assert np.abs(result.as_numpy("y") - X @ w).max() < 1
    names = result.get_output("metrics")["parameters"]["metric_names"]
    assert names == "mse,max_abs_error,sqnr_db,cosine"
    assert np.abs(result.as_numpy("y") - X @ w).max() == pytest.approx(result.as_numpy("metrics")[1], rel=1e-3)
    # 8-bit integers are codes: exact sums.
    a, b = RNG.integers(-128, 128, (4, 50)).astype(np.int8), RNG.integers(-128, 128, (50, 3)).astype(np.int8)
    sums = sync.infer("matmul_int8", [given("a", a), given("b", b)]).as_numpy("y")
    np.testing.assert_array_equal(sums, a.astype(np.int32) @ b.astype(np.int32))
    assert sums.dtype == np.int32
    scale = np.float32([0.5, 0.25, 2])
    parts = [given("a", a), given("b", b), given("a_scale", np.float32([0.125])), given("b_scale", scale)]
    scaled = sync.infer("matmul_int8", parts).as_numpy("y")
    np.testing.assert_array_equal(scaled, sums.astype(np.float32) * np.float32(0.125) * scale)


def test_not_finite(sync):
    x = np.float32([1, np.nan, np.inf, -3])
    with pytest.raises(triton.InferenceServerException) as refused:
        sync.infer("quantize_int8", [given("x", x)])
    assert refused.value.status() == "422" and "element 1 is NaN" in refused.value.message()
    result = sync.infer("quantize_int8", [given("x", x)], parameters={"nan": "zero"})
    np.testing.assert_array_equal(result.as_numpy("q"), [42, 0, 127, -127])
    names = result.get_output("metrics")["parameters"]["metric_names"].split(",")
    metrics = dict(zip(names, result.as_numpy("metrics"), strict=True))
    assert (metrics["nan"], metrics["inf"]) == (1, 1)
    # An exact result has no signal-to-noise ratio: NaN, as null in JSON.
    wanted = [triton.InferRequestedOutput("metrics", binary_data=False)]
    exact = sync.infer("quantize_int8", [given("x", np.zeros(3, np.float32))], outputs=wanted)
    assert exact.get_output("metrics")["data"][4] is None
    assert np.isnan(exact.as_numpy("metrics")[4])
    # An infinite output cannot be JSON. 2^127 * 100 overflows.
    parts = [given("q", np.int8([100])), given("scale", np.float32([2.0**127]))]
    wanted = [triton.InferRequestedOutput("x", binary_data=False)]
    with pytest.raises(triton.InferenceServerException) as refused:
        sync.infer("dequantize_int8", parts, outputs=wanted)
    assert refused.value.status() == "422" and "binary" in refused.value.message()
    assert sync.infer("dequantize_int8", parts).as_numpy("x") == np.inf


def test_statistics_count(sync):
    def stats(model="quantize_uint4"):
        (found,) = sync.get_inference_statistics(model)["model_stats"]
        return found

    before = stats()
    sync.infer("quantize_uint4", [given("x", X)])
    with pytest.raises(triton.InferenceServerException):
        sync.infer("quantize_uint4", [given("y", X)])
    after = stats()
    assert after["inference_count"] == before["inference_count"] + 1
    assert after["execution_count"] == before["execution_count"] + 1
    for name, change in [("success", 1), ("fail", 1), ("queue", 1), ("compute_infer", 1), ("compute_input", 1)]:
        grown = after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"]
        assert grown == change, name
        assert after["inference_stats"][name]["ns"] > before["inference_stats"][name]["ns"], name
    assert after["last_inference"] > 1.7e12
    total = sync.get_inference_statistics()["model_stats"]
    assert len(total) == len(sync.get_model_repository_index())


def test_the_repository_of_built_in_models(sync):
    sync.load_model("quantize_int8")
    with pytest.raises(triton.InferenceServerException, match="built in"):
        sync.unload_model("quantize_int8")
    with pytest.raises(triton.InferenceServerException, match="no such model"):
        sync.load_model("quantize_int9")
    for options in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"abc"}}):
        with pytest.raises(triton.InferenceServerException) as refused:
            sync.load_model("quantize_int8", **options)
        assert refused.value.status() == "501"
    with pytest.raises(triton.InferenceServerException) as refused:
        sync.get_trace_settings()
    assert refused.value.status() == "501"


def test_asyncio(server, client):
    async def calls():
        async with triton_aio.InferenceServerClient(f"{server.host}:{server.port}") as aio:
            assert await aio.is_server_live() and await aio.is_server_ready()
            assert await aio.is_model_ready("quantize_int8")
            assert (await aio.get_server_metadata())["name"] == "quantd"
            # Long enough to be compressed if the header were taken at its word: aiohttp asks by
            # itself, and the client does not undo it.
            assert len(await aio.get_model_repository_index()) > 20
            assert len((await aio.get_inference_statistics())["model_stats"]) > 20
            assert (await aio.get_model_metadata("quantize_int8"))["inputs"][0]["name"] == "x"
            assert (await aio.get_model_config("quantize_int8"))["backend"] == "quantd"
            many = [aio.infer("quantize_int8", [given("x", X * i)]) for i in range(1, 30)]
            results = await asyncio.gather(*many)
            for i, result in enumerate(results, 1):
                same(result, v1(client, X * np.float32(i), "int8"))
            for coding in ("gzip", "deflate"):
                result = await aio.infer(
                    "quantize_int8",
                    [given("x", X)],
                    request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )
                same(result, v1(client, X, "int8"))
            with pytest.raises(triton.InferenceServerException, match="no input"):
                await aio.infer("quantize_int8", [given("x", X), given("z", X)])
            large = RNG.normal(size=(300, 1000)).astype(np.float32)
            same(await aio.infer("quantize_int8", [given("x", large)]), v1(client, large, "int8"))

    asyncio.run(calls())


def test_concurrent_requests_do_not_mix(server, client):
    inputs = [RNG.normal(size=(5, 64)).astype(np.float32) for _ in range(48)]
    expected = [v1(client, x, "int8_per_channel") for x in inputs]

    def call(x):
        with triton.InferenceServerClient(f"{server.host}:{server.port}") as own:
            return own.infer("quantize_int8_per_channel", [given("x", x)])

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for result, expect in zip(pool.map(call, inputs), expected, strict=True):
            same(result, expect)


def test_kserve(server, client):
    def request(x, binary):
        made = kserve.InferInput("x", list(x.shape), NAMES[x.dtype.newbyteorder("<")])
        made.set_data_from_numpy(x, binary_data=binary)
        return kserve.InferRequest("quantize_int8", [made])

    async def calls():
        config = kserve.RESTConfig(protocol="v2")
        rest = kserve.InferenceRESTClient(config)
        assert await rest.is_server_live(server.url) is True
        assert await rest.is_server_ready(server.url) is True
        assert await rest.is_model_ready(server.url, "quantize_int8") is True
        assert await rest.is_model_ready(server.url, "nothing") is False
        expected = v1(client, X, "int8")
        for binary in (True, False):
            answer = await rest.infer(server.url, request(X, binary), model_name="quantize_int8")
            outputs = {output.name: output.as_numpy() for output in answer.outputs}
            np.testing.assert_array_equal(outputs["q"], expected.codes)
            assert outputs["scale"].astype(np.float32).tobytes() == expected.scale.tobytes()
            assert answer.model_name == "quantize_int8"
        # An empty tensor travels as null.
        empty = await rest.infer(server.url, request(X[:, :0], False), model_name="quantize_int8")
        assert empty.outputs[0].shape == [6, 0]
        with pytest.raises(Exception, match="no such model"):
            await rest.infer(server.url, request(X, True), model_name="nothing")
        with pytest.raises(Exception, match="element 0 is NaN"):
            await rest.infer(server.url, request(X * np.float32("nan"), True), model_name="quantize_int8")
        await rest.close()

    asyncio.run(calls())
