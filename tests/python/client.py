"""Requests as a user would send them, and answers in one form whatever their format."""

import base64
import dataclasses
import io
import json

import ml_dtypes
import numpy as np
import requests
import schemathesis

JSON = "application/json"
NPY = "application/x-npy"
RAW = "application/octet-stream"
SAFETENSORS = "application/x-safetensors"
PROBLEM = "application/problem+json"

DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
}
# Floats of eight bits, which JSON and npy have no names for; of the last there are scales alone.
EIGHTHS = [dtype for name, dtype in DTYPES.items() if name.startswith("F8")]
REALS = [name for name in DTYPES if name != "F8_E8M0"]
NAMES = {dtype: name for name, dtype in DTYPES.items()}
SCHEMA_CHECK_BYTES = 32 << 10


@dataclasses.dataclass
class Quantized:
    """An answer of /v1/quantize for one tensor."""

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    scheme: dict
    report: dict
    shape: tuple


class Client:
    """Calls one server."""

    def __init__(self, url):
        self.url = url
        self.session = requests.Session()
        # Compressed answers only where a test asks for them.
        self.session.headers["accept-encoding"] = "identity"
        self.schema = schemathesis.openapi.from_url(url + "/openapi.json")

    def request(self, method, path, **options):
        """Any request; the answer is checked against the OpenAPI document."""
        options.setdefault("timeout", 120)
        response = self.session.request(method, self.url + path, **options)
        self.check(method, path.split("?")[0], response)
        return response

    def check(self, method, path, response):
        """Holds an answer against the operation's description."""
        assert response.headers.get("x-request-id"), path
        try:
            operation = self.schema[self.template(path)][method]
        except (LookupError, AttributeError):
            return
        kind = response.headers.get("content-type", "").split(";")[0]
        if response.request.method != "HEAD" and len(response.content) <= SCHEMA_CHECK_BYTES:
            operation.validate_response(response)
        assert response.status_code == 200 or kind in (PROBLEM, JSON), kind

    def template(self, path):
        """The documented path that a path is one of: itself, or one with names in braces."""
        documented = list(self.schema)
        if path in documented:
            return path
        parts = path.split("/")
        for template in documented:
            pairs = list(zip(template.split("/"), parts))
            if template.count("/") == path.count("/") and all(a == b or a.startswith("{") for a, b in pairs):
                return template
        return path

    def post(self, path, body=None, kind=None, accept=None, params=None, headers=None, **options):
        """A POST; a dict is sent as JSON."""
        headers = dict(headers or {})
        if isinstance(body, (dict, list)):
            kind, body = kind or JSON, json.dumps(body)
        if kind:
            headers["content-type"] = kind
        if accept:
            headers["accept"] = accept
        params = {name: query(value) for name, value in (params or {}).items()}
        return self.request("POST", path, data=body, params=params, headers=headers, **options)

    def quantize(self, x, scheme=None, kind=JSON, accept=None, **options):
        """Quantizes one array and gives the answer in one form."""
        scheme = scheme or {}
        if kind == JSON:
            body = tensor_json(x) | {"scheme": scheme} | options
            response = self.post("/v1/quantize", body, accept=accept)
        else:
            scheme = {"preset": scheme} if isinstance(scheme, str) else scheme
            params = scheme | options
            if kind == RAW:
                params = params | {"dtype": dtype_name(x), "shape": list(x.shape)}
            body = encode(x, kind)
            response = self.post("/v1/quantize", body, kind=kind, accept=accept, params=params)
        assert response.status_code == 200, response.text
        return read_quantized(response)

    def dequantize(self, response, accept=None, **params):
        """Sends an answer of quantize back exactly as it came."""
        kind = response.headers["content-type"]
        answer = self.post("/v1/dequantize", response.content, kind=kind, accept=accept, params=params)
        assert answer.status_code == 200, answer.text
        return read_tensor(answer)


def query(value):
    """A value as it is written in a query string."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, np.ndarray):
        value = value.ravel().tolist()
    if isinstance(value, (list, tuple)):
        return ",".join(str(item) for item in value)
    return str(value)


def dtype_name(x):
    """The name of an array's element type."""
    return NAMES[np.asarray(x).dtype.newbyteorder("<")]


def nested(x):
    """An array as JSON numbers, with words for what JSON cannot write."""
    x = np.asarray(x)
    if dtype_name(x).startswith("F8"):
        return x.view(np.uint8).tolist()
    if x.dtype.kind in "iu":
        return x.tolist()
    words = {float("inf"): "Infinity", float("-inf"): "-Infinity"}

    def convert(value):
        if isinstance(value, list):
            return [convert(item) for item in value]
        return "NaN" if value != value else words.get(value, value)

    return convert(x.astype("f8").tolist())


def tensor_json(x, base64_data=False):
    """The members of a JSON request that make up a tensor."""
    x = np.asarray(x)
    head = {"dtype": dtype_name(x), "shape": list(x.shape)}
    if base64_data:
        return head | {"data_b64": base64.b64encode(x.tobytes()).decode()}
    return head | {"data": nested(x)}


def npy_bytes(x):
    """An array as an npy file."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(x), allow_pickle=False)
    return out.getvalue()


def write_safetensors(tensors, metadata=None):
    """Arrays as a safetensors file, written by hand: NumPy's writer knows no bfloat16."""
    header, offset = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, x in tensors.items():
        header[name] = {
            "dtype": dtype_name(x),
            "shape": list(x.shape),
            "data_offsets": [offset, offset + x.nbytes],
        }
        offset += x.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    parts = [np.ascontiguousarray(x).tobytes() for x in tensors.values()]
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def read_safetensors(data):
    """Arrays and metadata of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        assert begin == end, "a hole or an overlap"
        end = stop
        part = data[8 + size + begin : 8 + size + stop]
        tensors[name] = np.frombuffer(part, DTYPES[entry["dtype"]]).reshape(entry["shape"])
    assert 8 + size + end == len(data), "bytes after the last tensor"
    return tensors, metadata


def encode(x, kind):
    """An array as a body of that media type."""
    if kind == NPY:
        return npy_bytes(x)
    if kind == SAFETENSORS:
        return write_safetensors({"w": x})
    assert kind == RAW, kind
    return np.ascontiguousarray(x).tobytes()


def numbers(value, dtype):
    """JSON numbers as an array."""

    def convert(item):
        if isinstance(item, list):
            return [convert(part) for part in item]
        return float(item.replace("Infinity", "inf")) if isinstance(item, str) else item

    if dtype in EIGHTHS:
        return np.array(value, np.uint8).view(dtype)
    return np.array(convert(value), dtype=dtype)


def read_json_item(item):
    """One tensor's part of a JSON answer of quantize."""
    dtype = DTYPES[item["dtype"]]
    if dtype.kind not in "iu":
        codes = np.array(item["codes"], {1: np.uint8, 2: np.uint16}[dtype.itemsize]).view(dtype)
    else:
        codes = numbers(item["codes"], dtype)
    if not item["scheme"]["packed"]:
        codes = codes.reshape(item["shape"])
    return Quantized(
        codes=codes,
        scale=numbers(item["scale"], DTYPES[item["scale_dtype"]]) if "scale" in item else None,
        zero_point=numbers(item["zero_point"], np.int64) if "zero_point" in item else None,
        scheme=item["scheme"],
        report=item["report"],
        shape=tuple(item["shape"]),
    )


def read_quantized(response):
    """An answer of quantize for one tensor, from JSON or safetensors."""
    kind = response.headers["content-type"]
    if kind == JSON:
        body = response.json()
        item = body["tensors"]["w"] if "tensors" in body else body
        return read_json_item(item)
    assert kind == SAFETENSORS, kind
    tensors, metadata = read_safetensors(response.content)
    scheme, report, shape = (json.loads(metadata[key]) for key in ("scheme", "report", "shape"))
    prefix = ""
    if "codes" not in tensors:
        prefix = "w."
        assert json.loads(metadata["w"]) == report["w"]
        scheme, report, shape = scheme["w"], report["w"], shape["w"]
    return Quantized(
        codes=tensors[prefix + "codes"],
        scale=tensors[prefix + "scale"],
        zero_point=tensors[prefix + "zero_point"].astype(np.int64),
        scheme=scheme,
        report=report,
        shape=tuple(shape),
    )


def read_tensor(response):
    """The one tensor of an answer of dequantize, in any format."""
    kind = response.headers["content-type"]
    if kind == JSON:
        body = response.json()
        body = body["tensors"]["w"] if "tensors" in body else body
        return numbers(body["data"], DTYPES[body["dtype"]]).reshape(body["shape"])
    if kind == SAFETENSORS:
        tensors, _ = read_safetensors(response.content)
        (x,) = tensors.values()
        return x
    if kind == NPY:
        return np.load(io.BytesIO(response.content), allow_pickle=False)
    dtype = DTYPES[response.headers["quantd-dtype"]]
    shape = [int(n) for n in response.headers["quantd-shape"].split(",") if n]
    return np.frombuffer(response.content, dtype).reshape(shape)


def check_problem(response, slug, status, place=None):
    """Holds an error against what every error must be; gives its document."""
    assert response.status_code == status, (response.status_code, response.text[:500])
    assert response.headers["content-type"] == PROBLEM
    problem = response.json()
    assert problem["type"] == f"urn:quantd:error:{slug}", problem
    assert problem["status"] == status
    assert problem["title"] and problem["detail"]
    assert problem["error"] == problem["detail"]
    assert problem["instance"] == response.headers["x-request-id"]
    if place is not None:
        places = [e.get("pointer") or e.get("parameter") or e.get("header") for e in problem["errors"]]
        assert place in places, problem
    check_discretion(response.text)
    return problem


def check_discretion(text):
    """No error speaks of files, types, addresses or code."""
    import re

    for pattern in (
        r"/(?:root|home|usr|src|work|tmp|proc|etc)/",
        r"\.rs\b",
        r"\b(?:core|std|alloc|quantd|serde|serde_json|axum|hyper)::",
        r"0x[0-9a-f]{6,}",
        r"panicked|unwrap|RUST_BACKTRACE|Option<|Vec<|Result<",
        r"\bline \d+ column \d+\b",
    ):
        assert not re.search(pattern, text), (pattern, text[:500])
