"""Requests of the Open Inference Protocol by hand, byte for byte."""

import gzip
import json
import zlib

import ml_dtypes
import numpy as np

LENGTH = "Inference-Header-Content-Length"
DATATYPES = {
    "FP64": np.dtype("<f8"),
    "FP32": np.dtype("<f4"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "INT64": np.dtype("<i8"),
    "INT32": np.dtype("<i4"),
    "INT16": np.dtype("<i2"),
    "INT8": np.dtype("i1"),
    "UINT16": np.dtype("<u2"),
    "UINT8": np.dtype("u1"),
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}


def tensor(name, x, binary=False, **parameters):
    """An input, and the bytes that follow the header for it."""
    entry = {"name": name, "shape": list(x.shape), "datatype": NAMES[x.dtype.newbyteorder("<")]}
    data = x.tobytes() if binary else b""
    if binary:
        parameters["binary_data_size"] = len(data)
    else:
        entry["data"] = x.ravel().tolist()
    if parameters:
        entry["parameters"] = parameters
    return entry, data


def body(inputs, **rest):
    """Header and bytes of a request whose inputs `tensor` made."""
    header = json.dumps({"inputs": [entry for entry, _ in inputs]} | rest).encode()
    return header, b"".join(data for _, data in inputs)


def post(client, model, inputs, coding=None, version=None, **rest):
    """Sends a request; binary when any input is."""
    header, tail = body(inputs, **rest)
    headers = {LENGTH: str(len(header))} if tail else {}
    data = header + tail
    if coding:
        headers["content-encoding"] = coding
        data = gzip.compress(data) if coding == "gzip" else zlib.compress(data)
    path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
    return client.request("POST", path, data=data, headers=headers)


def read(response):
    """The answer's document and its outputs by name."""
    assert response.status_code == 200, response.text
    length = response.headers.get(LENGTH)
    if length is None:
        assert response.headers["content-type"] == "application/json"
        document, tail = response.json(), b""
    else:
        assert response.headers["content-type"] == "application/octet-stream"
        document, tail = json.loads(response.content[: int(length)]), response.content[int(length) :]
    outputs = {}
    for output in document["outputs"]:
        dtype = DATATYPES[output["datatype"]]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            x = np.array(output["data"], dtype)
        else:
            x, tail = np.frombuffer(tail[:size], dtype), tail[size:]
        outputs[output["name"]] = x.reshape(output["shape"])
    assert not tail
    return document, outputs


def error(response, status):
    """The text of an error in the protocol's form."""
    assert response.status_code == status, (response.status_code, response.text[:300])
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert list(document) == ["error"] and document["error"], document
    return document["error"]
