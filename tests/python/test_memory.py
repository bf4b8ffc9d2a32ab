"""The budget of bytes holds for everything that a request makes.

For each route that takes a body, requests whose answers or whose work are as expensive as they get, one at a time and
four at once: the memory of the process stays below what it had when idle, the budget, and a margin. A request may be
refused for want of memory; it may not take it.
"""

import concurrent.futures
import gzip
import json
import pathlib

import numpy as np
import pytest
import requests
from server import Server

MIB = 1 << 20
BUDGET = 64 * MIB
MARGIN = 32 * MIB
RAW = "application/octet-stream"
JSON = "application/json"
SAFETENSORS = "application/x-safetensors"
REFUSED = {413, 503, 507}


@pytest.fixture(scope="module")
def server():
    server = Server(
        "--max-inflight-bytes", str(BUDGET),
        "--max-body-bytes", str(32 * MIB),
        "--max-layer-bytes", str(16 * MIB),
        "--max-calibrator-bytes", str(16 * MIB),
        "--max-queue-wait-ms", "60000",
        "--log-level", "error",
    )  # fmt: skip
    yield server
    assert server.stop() == 0


def numbers(count, dtype=np.float32):
    """Numbers whose text is long."""
    return (np.random.default_rng(count).standard_normal(count) / 3).astype(dtype).tobytes()


def raw(path, body, accept=JSON, **headers):
    return path, body, {"content-type": RAW, "accept": accept} | headers


def text(path, document, accept=JSON, **headers):
    body = document if isinstance(document, str) else json.dumps(document)
    return path, body.encode(), {"content-type": JSON, "accept": accept} | headers


def ones(count):
    return "[" + ",".join(["1"] * count) + "]"


def matrices(a, b, **options):
    tensor = lambda shape: f'{{"shape":{json.dumps(shape)},"data":{ones(int(np.prod(shape)))}}}'
    rest = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in options.items())
    return f'{{"a":{tensor(a)},"b":{tensor(b)}{rest}}}'


def infer(model, name, datatype, count, **parameters):
    head = {"parameters": parameters, "inputs": [{"name": name, "shape": [count], "datatype": datatype, "data": "?"}]}
    return text(f"/v2/models/{model}/infer", json.dumps(head).replace('"?"', ones(count)))


def quantizations():
    for n, scheme in [
        (2 * MIB, ""),
        (MIB, "&bits=16"),
        (MIB, "&group_size=1"),
        (MIB // 4, "&group_size=4&per_slice=true"),
        (MIB, "&range=mse"),
        (MIB, "&range=percentile&percentile=99.9"),
    ]:
        for accept in [JSON, SAFETENSORS]:
            yield raw(f"/v1/quantize?dtype=F32&shape={n}{scheme}", numbers(n), accept)
    yield raw(f"/v1/quantize?dtype=F32&shape={MIB}", numbers(MIB), **{"accept-encoding": "zstd"})
    yield raw(f"/v1/quantize?dtype=F32&shape={MIB}", gzip.compress(bytes(4 * MIB), 1), **{"content-encoding": "gzip"})
    yield text("/v1/quantize", f'{{"data":{ones(4 * MIB)},"dtype":"F64"}}')
    yield text("/v1/quantize", {"data": [1], "scheme": {"range": "explicit", "min": -1, "max": [1] * MIB}})
    yield text("/v1/quantize", {"tensors": {str(i): {"data": [1, 2]} for i in range(4096)}}, SAFETENSORS)


def dequantizations():
    for query in ["output_dtype=F64&scale=0.1", "scale_dtype=F64&scale=0.1", "scale=0.1&group_size=1&axis=-1&granularity=group"]:
        for n in [MIB, 8 * MIB]:
            yield raw(f"/v1/dequantize?dtype=I8&shape={n}&{query}", bytes(range(256)) * (n // 256))
    codes = ones(MIB)
    yield text("/v1/dequantize", f'{{"codes":{codes},"scale":{codes},"scale_dtype":"F64","scheme":{{"granularity":"channel","axis":0}}}}')


def looks(path):
    for dtype in [np.float32, np.float64, np.float16]:
        name = {2: "F16", 4: "F32", 8: "F64"}[np.dtype(dtype).itemsize]
        yield raw(f"{path}?dtype={name}&shape=1024,1024", numbers(MIB, dtype))


def products():
    for a, b in [([4 * MIB, 1, 1], [1, 1, 1]), ([MIB, 1], [1, 4]), ([1, 32768], [32768, 64])]:
        yield text("/v1/matmul", matrices(a, b, report=True))
        yield text("/v1/matmul", matrices(a, b), RAW)


def forwards(name):
    n = 64 * 16384
    yield raw(f"/v1/layers/{name}/forward?dtype=F32&shape=16384,64", numbers(n))
    yield raw(f"/v1/layers/{name}/forward?dtype=F64&shape=16384,64", numbers(n, np.float64), RAW)


# For each path of the document, the requests that are tried.
ROUTES = {
    "/v1/quantize": quantizations,
    "/v1/dequantize": dequantizations,
    "/v1/compare": lambda: looks("/v1/compare"),
    "/v1/inspect": lambda: [
        *looks("/v1/inspect"),
        raw("/v1/inspect?dtype=F32&shape=1024,1024&granularity=channel&axis=0&bins=1000", numbers(MIB)),
    ],
    "/v1/matmul": products,
    "/v1/layers": lambda: [
        raw(f"/v1/layers?name=big&dtype={name}&shape=1024,2048", numbers(2 * MIB, dtype))
        for name, dtype in [("F32", np.float32), ("F64", np.float64)]
    ],
    "/v1/layers/{name}": lambda: [
        ("PUT", *raw("/v1/layers/put?dtype=F32&shape=1024,1024", numbers(MIB))),
        ("PUT", *text("/v1/layers/put", f'{{"weight":{{"data":[{ones(MIB)}]}}}}')),
    ],
    "/v1/layers/{name}/forward": lambda: forwards("small"),
    "/v1/layers/{name}/evaluate": lambda: [
        raw(f"/v1/layers/small/evaluate?dtype=F32&shape={m},64", numbers(64 * m)) for m in [4096, 16384]
    ],
    "/v1/calibrators": lambda: [
        text("/v1/calibrators", {"name": "many", "replace": True, "range": "mse"} | extra)
        for extra in [{}, {"x": [1] * MIB}]
    ],
    "/v1/calibrators/{name}/batches": lambda: [
        raw("/v1/calibrators/channels/batches?dtype=F32&shape=65536,32", numbers(2 * MIB)),
        raw("/v1/calibrators/histogram/batches?dtype=F64&shape=1048576", numbers(MIB, np.float64)),
    ],
    "/v1/calibrators/{name}/merge": lambda: [
        text("/v1/calibrators/histogram/merge", {"from": "other"}),
        text("/v1/calibrators/histogram/merge", f'{{"document":{{"format":"quantd-calibrator","positive":[{ones(4 * MIB)}]}}}}'),
    ],
    "/v2/models/{model}/infer": lambda: [
        infer("quantize_int8", "x", "FP32", 4 * MIB),
        infer("quantize_int8", "x", "FP64", 2 * MIB, granularity="group", group_size=1, axis=-1),
    ],
    "/v2/models/{model}/versions/{version}/infer": lambda: [
        ("POST", path.replace("/infer", "/versions/1/infer"), *rest)
        for path, *rest in [infer("quantize_int16", "x", "FP64", MIB)]
    ],
    "/v2/repository/index": lambda: [text("/v2/repository/index", {"ready": True})],
    "/v2/repository/models/{model}/load": lambda: [text("/v2/repository/models/small/load", {})],
    "/v2/repository/models/{model}/unload": lambda: [text("/v2/repository/models/gone/unload", {"parameters": {}})],
}


def test_every_route_with_a_body_is_tried(server):
    document = requests.get(server.url + "/openapi.json", timeout=60).json()
    with_body = {path for path, item in document["paths"].items() if {"post", "put"} & item.keys()}
    assert with_body == ROUTES.keys()


@pytest.fixture(scope="module")
def prepared(server):
    """What the requests are about; gives the memory of the process when all is quiet."""
    weight = numbers(64 * 256)
    url = server.url + "/v1/layers?name=small&dtype=F32&shape=256,64"
    assert requests.post(url, data=weight, headers={"content-type": RAW}, timeout=60).status_code == 201
    for name, how in [
        ("channels", {"range": "min_max", "granularity": "channel", "axis": 0}),
        ("histogram", {"range": "mse"}),
        ("other", {"range": "mse"}),
    ]:
        answer = requests.post(server.url + "/v1/calibrators", json={"name": name} | how, timeout=60)
        assert answer.status_code == 201, answer.text
    return server.resident_bytes()[0]


def send(server, request):
    method, path, body, headers = request if len(request) == 4 else ("POST", *request)
    try:
        return requests.request(method, server.url + path, data=body, headers=headers, timeout=300).status_code
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        return 503  # refused before the body was read, and closed


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("path", ROUTES)
def test_the_budget_holds(server, prepared, path, at_once):
    statuses = set()
    for request in ROUTES[path]():
        pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            found = set(pool.map(lambda _: send(server, request), range(at_once)))
        statuses |= found
        assert server.process.poll() is None
        _, peak = server.resident_bytes()
        over = (peak - prepared) / BUDGET
        # What layers and calibrators keep has budgets of its own.
        assert peak < prepared + BUDGET * 1.15 + MARGIN + 32 * MIB * path.startswith(("/v1/layers", "/v1/calib")), (
            f"{over:.0%} of the budget: {request[:-2]} {found}"
        )
    assert statuses - REFUSED, f"nothing of {path} fits"
    assert requests.get(server.url + "/livez", timeout=60).status_code == 200
