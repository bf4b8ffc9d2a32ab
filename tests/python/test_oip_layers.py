"""Hosted layers as models of /v2, and requests that run together: the same bytes as alone."""

import asyncio
import concurrent.futures
import json

import numpy as np
import pytest
import requests
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from client import JSON, RAW, Client, dtype_name, read_tensor, tensor_json
from oip import LENGTH, NAMES, body, error, post, read, tensor
from server import Server

RNG = np.random.default_rng(8)
K, N = 96, 40
W = RNG.normal(size=(N, K)).astype(np.float32)
MODES = {
    "per_token": {"input": "int8_per_token"},
    "dynamic": {"input": "uint8"},
    "static": {"input": {"signed": False, "min": -4.0, "max": 4.0}},
    "codes": {"input": {"signed": False, "min": -4.0, "max": 4.0}, "output": {"signed": True, "min": -30.0, "max": 30.0}},
}


def make(client, name, **fields):
    fields = {"weight": tensor_json(W) | {"scheme": "int8_per_channel"}} | fields
    response = client.request("PUT", f"/v1/layers/{name}", data=json.dumps(fields), headers={"content-type": JSON})
    assert response.status_code in (200, 201), response.text
    return response.json()


def forward(client, name, x, **params):
    params = {"dtype": dtype_name(x), "shape": list(x.shape)} | params
    response = client.post(f"/v1/layers/{name}/forward", x.tobytes(), kind=RAW, accept=RAW, params=params)
    assert response.status_code == 200, response.text
    return read_tensor(response)


def given(x):
    return triton.InferInput("x", list(x.shape), NAMES[x.dtype.newbyteorder("<")]).set_data_from_numpy(x)


@pytest.fixture(scope="module")
def layers(client):
    return {mode: make(client, f"oip-{mode}", **fields) for mode, fields in MODES.items()}


@pytest.mark.parametrize("mode", MODES)
def test_a_layer_is_a_model(server, client, layers, mode):
    name, version = f"oip-{mode}", str(layers[mode]["version"])
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as sync:
        assert sync.is_model_ready(name) and sync.is_model_ready(name, version)
        assert not sync.is_model_ready(name, "99")
        metadata = sync.get_model_metadata(name)
        assert metadata["versions"] == [version] and metadata["platform"] == "quantd_layer"
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, K]}]
        datatype = "INT8" if mode == "codes" else "FP32"
        assert metadata["outputs"] == [{"name": "y", "datatype": datatype, "shape": [-1, N]}]
        assert {"name": name, "version": version, "state": "READY", "reason": ""} in sync.get_model_repository_index()
        for shape in [(1, K), (5, K), (2, 3, K), (200, K), (0, K)]:
            x = RNG.normal(size=shape).astype(np.float32)
            expected = forward(client, name, x, batch=False)
            for model_version in ("", version):
                result = sync.infer(name, [given(x)], model_version)
                assert result.as_numpy("y").tobytes() == expected.tobytes()
                assert result.as_numpy("y").shape == expected.shape
            assert result.get_response()["model_version"] == version
            assert forward(client, name, x).tobytes() == expected.tobytes()
            parameters = {"batch": False}
            assert sync.infer(name, [given(x)], parameters=parameters).as_numpy("y").tobytes() == expected.tobytes()
        stats = sync.get_inference_statistics(name)["model_stats"][0]
        assert stats["inference_count"] >= 400 and stats["memory_usage"][0]["byte_size"] > N * K
        with pytest.raises(triton.InferenceServerException, match="version"):
            sync.infer(name, [given(x)], "99")
    x = RNG.normal(size=(3, K)).astype(np.float32)
    expected = forward(client, name, x)
    # JSON, mixed and bare bytes.
    _, outputs = read(post(client, name, [tensor("x", x)]))
    assert outputs["y"].tobytes() == expected.tobytes()
    raw = client.request("POST", f"/v2/models/{name}/infer", data=x.tobytes(), headers={LENGTH: "0"})
    assert read(raw)[1]["y"].tobytes() == expected.tobytes()
    if mode == "codes":
        parameters = json.loads(raw.content[: int(raw.headers[LENGTH])])["outputs"][0]["parameters"]
        assert float(parameters["quantd_scale"]) > 0 and parameters["quantd_zero_point"] == "0"


def test_what_a_layer_refuses(client, layers):
    for x, text in [
        (np.zeros((2, K + 1), np.float32), "/inputs/0/shape"),
        (np.zeros((), np.float32), "/inputs/0/shape"),
        (np.full((1, K), np.nan, np.float32), "NaN"),
    ]:
        for parameters in ({}, {"batch": False}):
            answer = post(client, "oip-per_token", [tensor("x", x, True)], parameters=parameters)
            assert text in error(answer, 422 if text == "NaN" else 400)
    x = np.zeros((1, K), np.float32)
    assert "/parameters/bits" in error(post(client, "oip-per_token", [tensor("x", x)], parameters={"bits": 4}), 400)
    assert 'no input "z"' in error(post(client, "oip-per_token", [tensor("x", x), tensor("z", x)]), 400)
    assert 'no output "q"' in error(post(client, "oip-per_token", [tensor("x", x)], outputs=[{"name": "q"}]), 400)
    # A name that a built-in model has, or a route.
    for name in ("quantize_int8", "stats"):
        fields = {"weight": tensor_json(W)}
        answer = client.request("PUT", f"/v1/layers/{name}", data=json.dumps(fields), headers={"content-type": JSON})
        assert answer.status_code == 400 and answer.json()["errors"][0]["pointer"] == "/name"


def test_versions_and_chains(client):
    assert make(client, "oip-v")["version"] == 1
    x = RNG.normal(size=(2, K)).astype(np.float32)
    _, first = read(post(client, "oip-v", [tensor("x", x, True)], version=1))
    again = tensor_json(2 * W) | {"scheme": "int8_per_channel"}
    assert make(client, "oip-v", weight=again)["version"] == 2
    document, second = read(post(client, "oip-v", [tensor("x", x, True)]))
    assert document["model_version"] == "2"
    np.testing.assert_array_equal(second["y"], 2 * first["y"])
    error(post(client, "oip-v", [tensor("x", x, True)], version=1), 404)
    make(client, "oip-next", weight=tensor_json(W[:7, :N]) | {"scheme": "int8_per_channel"})
    response = client.post("/v1/layers", {"name": "oip-chain", "kind": "chain", "chain": ["oip-v", "oip-next"]})
    assert response.status_code == 201, response.text
    _, outputs = read(post(client, "oip-chain", [tensor("x", x, True)]))
    step = forward(client, "oip-next", forward(client, "oip-v", x))
    assert outputs["y"].tobytes() == step.tobytes() and step.shape == (2, 7)
    answer = client.request("POST", "/v2/repository/models/oip-v/unload")
    assert 'chain "oip-chain" uses it' in error(answer, 409)
    for name in ("oip-chain", "oip-v"):
        assert client.request("POST", f"/v2/repository/models/{name}/unload").status_code == 200
        # Without a directory it is gone.
        error(client.request("GET", f"/v2/models/{name}/ready"), 404)


def test_unloaded_and_loaded_again(tmp_path):
    server = Server("--log-level", "warn", "--layer-dir", str(tmp_path))
    client = Client(server.url)
    make(client, "kept")
    x = RNG.normal(size=(2, K)).astype(np.float32)
    _, before = read(post(client, "kept", [tensor("x", x, True)]))

    def state():
        index = client.request("POST", "/v2/repository/index").json()
        ready = client.request("POST", "/v2/repository/index", data=b'{"ready": true}').json()
        (entry,) = [entry for entry in index if entry["name"] == "kept"]
        assert (entry["state"] == "READY") == any(entry["name"] == "kept" for entry in ready)
        return entry["state"], client.request("GET", "/v2/models/kept/ready").status_code

    assert state() == ("READY", 200)
    assert client.request("POST", "/v2/repository/models/kept/unload").status_code == 200
    assert state() == ("UNAVAILABLE", 503)
    assert "unloaded" in error(post(client, "kept", [tensor("x", x, True)]), 404)
    assert client.request("POST", "/v2/repository/models/kept/load").status_code == 200
    assert state() == ("READY", 200)
    _, after = read(post(client, "kept", [tensor("x", x, True)]))
    assert after["y"].tobytes() == before["y"].tobytes()
    assert server.stop() == 0


@pytest.mark.parametrize("mode", MODES)
def test_together_is_as_alone(server, client, layers, mode):
    """Many callers of both faces at once, rows that differ, some of them wrong."""
    name = f"oip-{mode}"
    inputs = [RNG.normal(size=(1 + i % 5, K)).astype(np.float32) * (1 + i) for i in range(120)]
    expected = [forward(client, name, x, batch=False) for x in inputs]
    url = f"{server.url}/v1/layers/{name}/forward"

    def call(i):
        x, session = inputs[i], requests.Session()
        if i % 10 == 3:
            wrong = x.copy()
            wrong[0, i % K] = np.nan
            answer = session.post(url, data=wrong.tobytes(), headers={"content-type": RAW}, params=params(x))
            assert answer.status_code == 422 and "NaN" in answer.text
        if i % 10 == 6:
            wrong = session.post(url, json={"data": x[:, 1:].tolist()})
            assert wrong.status_code == 400 and "/shape" in wrong.text
        if i % 2:
            answer = session.post(
                url, data=x.tobytes(), headers={"content-type": RAW, "accept": RAW}, params=params(x)
            )
            assert answer.status_code == 200, answer.text
            return answer.content
        header, tail = body([tensor("x", x, True)], parameters={"binary_data_output": True})
        answer = session.post(
            f"{server.url}/v2/models/{name}/infer", data=header + tail, headers={LENGTH: str(len(header))}
        )
        return read(answer)[1]["y"].tobytes()

    def params(x):
        return {"dtype": "F32", "shape": ",".join(map(str, x.shape))}

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        for result, expect in zip(pool.map(call, range(len(inputs))), expected, strict=True):
            assert result == expect.tobytes()


def test_requests_do_run_together(server, client, layers):
    """Fewer products than requests, and the statistics say so; not where rows depend on one another."""

    def run(name):
        async def many():
            async with triton_aio.InferenceServerClient(f"{server.host}:{server.port}", conn_limit=64) as aio:
                x = [RNG.normal(size=(1, K)).astype(np.float32) for _ in range(640)]
                results = await asyncio.gather(*(aio.infer(name, [given(x)]) for x in x))
                return [(x, result.as_numpy("y")) for x, result in zip(x, results, strict=True)]

        before = client.request("GET", f"/v2/models/{name}/stats").json()["model_stats"][0]
        results = asyncio.run(many())
        after = client.request("GET", f"/v2/models/{name}/stats").json()["model_stats"][0]
        for x, y in results[::50]:
            assert forward(client, name, x, batch=False).tobytes() == y.tobytes()
        assert after["inference_count"] - before["inference_count"] == 640
        grown = after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
        assert grown == 640
        return after["execution_count"] - before["execution_count"], after["batch_stats"]

    executions, batches = run("oip-static")
    assert executions < 640
    assert any(batch["batch_size"] > 1 for batch in batches)
    assert all(batch["batch_size"] <= 200 for batch in batches)
    executions, _ = run("oip-dynamic")
    assert executions == 640


def test_clients_that_leave_disturb_nobody(server, client, layers):
    x = RNG.normal(size=(1, K)).astype(np.float32)
    expected = forward(client, "oip-static", x, batch=False).tobytes()
    header, tail = body([tensor("x", x, True)], parameters={"binary_data_output": True})
    head = f"POST /v2/models/oip-static/infer HTTP/1.1\r\nhost: a\r\n{LENGTH}: {len(header)}\r\n"
    request = (head + f"content-length: {len(header + tail)}\r\n\r\n").encode() + header + tail

    def leave(_):
        with server.connect() as connection:
            connection.sendall(request)

    def stay(_):
        response = requests.post(
            f"{server.url}/v2/models/oip-static/infer", data=header + tail, headers={LENGTH: str(len(header))}
        )
        return read(response)[1]["y"].tobytes()

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        gone = [pool.submit(leave, i) for i in range(200)]
        stayed = [pool.submit(stay, i) for i in range(200)]
        assert all(future.result() == expected for future in stayed)
        assert all(future.exception() is None for future in gone)
    # All that they held is given back.
    held = [line for line in client.request("GET", "/metrics").text.splitlines() if line.startswith("quantd_inflight_bytes ")]
    assert held and float(held[0].split()[1]) < 1 << 20


def test_batching_can_be_off():
    server = Server("--log-level", "warn", "--batch-rows", "1")
    client = Client(server.url)
    make(client, "single", **MODES["static"])
    x = [RNG.normal(size=(1, K)).astype(np.float32) for _ in range(60)]
    expected = [forward(client, "single", x) for x in x]

    def call(x):
        return read(post(Client(server.url), "single", [tensor("x", x, True)]))[1]["y"]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for y, expect in zip(pool.map(call, x[:16]), expected[:16], strict=True):
            assert y.tobytes() == expect.tobytes()
    stats = client.request("GET", "/v2/models/single/stats").json()["model_stats"][0]
    assert [batch["batch_size"] for batch in stats["batch_stats"]] == [1]
    assert server.stop() == 0
