"""/v2 byte by byte: every way to write a request, and the lies that a request can tell."""

import json

import numpy as np
import pytest

from client import check_discretion
from oip import LENGTH, body, error, post, read, tensor

X = np.random.default_rng(6).normal(size=(3, 40)).astype(np.float32)
INFER = "/v2/models/quantize_int8/infer"
ALL_BINARY = {"parameters": {"binary_data_output": True}}


def send(client, data, headers=None, path=INFER):
    return client.request("POST", path, data=data, headers=headers or {})


def test_every_way_to_write_a_request_gives_the_same_bytes(client):
    flat = X.ravel()
    answers = {
        "json": read(post(client, "quantize_int8", [tensor("x", flat)])),
        "binary": read(post(client, "quantize_int8", [tensor("x", flat, True)])),
        "binary out": read(post(client, "quantize_int8", [tensor("x", flat)], **ALL_BINARY)),
        "gzip": read(post(client, "quantize_int8", [tensor("x", flat, True)], "gzip")),
        "deflate": read(post(client, "quantize_int8", [tensor("x", flat, True)], "deflate")),
        "json gzip": read(post(client, "quantize_int8", [tensor("x", flat)], "gzip")),
        "raw": read(send(client, flat.tobytes(), {LENGTH: "0"})),
        "version": read(post(client, "quantize_int8", [tensor("x", flat, True)], version=1)),
    }
    nested = {"name": "x", "shape": [3, 40], "datatype": "FP32", "data": X.tolist()}
    answers["nested"] = read(send(client, json.dumps({"inputs": [nested]})))
    expected = client.quantize(flat, "int8")
    for name, (document, outputs) in answers.items():
        assert document["model_name"] == "quantize_int8" and document["model_version"] == "1", name
        assert outputs["q"].tobytes() == expected.codes.tobytes(), name
        assert outputs["scale"].tobytes() == expected.scale.tobytes(), name
        assert outputs["zero_point"].tolist() == [0], name
    binary = [part for name in ("raw", "binary out") for part in [answers[name][0]["outputs"]]]
    assert all("data" not in output for part in binary for output in part)


def test_json_and_binary_inputs_mix(client):
    q, scale, zero = np.int8([[1, 2], [3, -4]]), np.float32([0.5, 0.25]), np.int32([0, 1])
    expected = (q.astype(np.float32) - zero[:, None]) * scale[:, None]
    for binary in range(8):
        parts = [
            tensor("q", q, bool(binary & 1)),
            tensor("scale", scale, bool(binary & 2)),
            tensor("zero_point", zero, bool(binary & 4)),
        ]
        if binary == 5:
            parts.reverse()
        _, outputs = read(post(client, "dequantize_int8_per_channel", parts))
        np.testing.assert_array_equal(outputs["x"], expected)


def test_elements_may_start_anywhere(client):
    expected = client.quantize(X.astype(np.float64), "int8").codes
    for pad in range(16):
        header, tail = body([tensor("x", X.astype(np.float64), True)], id="i" * pad)
        answer = read(send(client, header + tail, {LENGTH: str(len(header))}))
        assert answer[0]["id"] == "i" * pad
        np.testing.assert_array_equal(answer[1]["q"], expected)


@pytest.mark.parametrize("length", ["-1", "1e30", "abc", "+1", "", "0x10", "1" * 40, "1 1", "1,1"])
def test_a_header_length_that_is_no_number(client, length):
    header, tail = body([tensor("x", X, True)])
    text = error(send(client, header + tail, {LENGTH: length}), 400)
    assert "inference-header-content-length" in text


def test_a_header_length_that_lies(client):
    header, tail = body([tensor("x", X, True)])
    data = header + tail
    for length in (len(data) + 1, 2**31, 2**63, 2**64 - 1):
        text = error(send(client, data, {LENGTH: str(length)}), 400)
        assert str(len(data)) in text, text
    for length in (1, len(header) - 1, len(header) + 1, len(data)):
        error(send(client, data, {LENGTH: str(length)}), 400)


def test_two_header_lengths(server, client):
    header, tail = body([tensor("x", X, True)])
    for second, status in [(len(header), b" 200 "), (len(header) + 1, b" 400 ")]:
        with server.connect() as connection:
            head = f"POST {INFER} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {len(header + tail)}\r\n"
            head += "".join(f"{LENGTH}: {length}\r\n" for length in (len(header), second))
            connection.sendall(head.encode() + b"\r\n" + header + tail)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert status in answer.split(b"\r\n")[0], answer[:300]


def test_sizes_that_do_not_add_up(client):
    header, tail = body([tensor("x", X, True)])
    headers = {LENGTH: str(len(header))}
    assert 'input "x"' in error(send(client, header + tail[:-1], headers), 400)
    assert "unexpected additional input data: 1 bytes" in error(send(client, header + tail + b"\0", headers), 400)
    header, _ = body([tensor("x", X)])
    text = error(send(client, header + b"\0\0", {LENGTH: str(len(header))}), 400)
    assert "unexpected additional input data" in text
    entry, data = tensor("x", X, True)
    for size in (0, len(data) - 4, len(data) + 4, 2**63, 2**64, -1, 1.5, "480", True):
        entry["parameters"]["binary_data_size"] = size
        header = json.dumps({"inputs": [entry]}).encode()
        text = error(send(client, header + data, {LENGTH: str(len(header))}), 400)
        assert 'input "x"' in text and "binary_data_size" in text
    entry["parameters"]["binary_data_size"] = len(data)
    entry["data"] = X.tolist()
    header = json.dumps({"inputs": [entry]}).encode()
    assert "both" in error(send(client, header + data, {LENGTH: str(len(header))}), 400)


@pytest.mark.parametrize(
    "shape, status",
    [
        ([2**32, 2**32], 400),
        ([2**31, 2**31, 0], 400),
        ([2**64 - 1], 400),
        ([2**64], 400),
        ([1] * 9, 400),
        ([-1], 400),
        ([2.0], 400),
        ("2", 400),
        (None, 400),
        ([[2]], 400),
        ([2**30], 413),
        ([3], 400),
        ([2], 200),
        ([1, 2], 200),
    ],
)
def test_shapes_are_checked(client, shape, status):
    entry = {"name": "x", "shape": shape, "datatype": "FP32", "data": [1, 2]}
    response = send(client, json.dumps({"inputs": [entry]}))
    if status != 200:
        assert 'input "x"' in error(response, status)
    assert response.status_code == status
    entry = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    header = json.dumps({"inputs": [entry]}).encode()
    response = send(client, header + X.tobytes()[:8], {LENGTH: str(len(header))})
    assert response.status_code == status, response.text


def test_empty_tensors(client):
    for entry in (
        {"name": "x", "shape": [0], "datatype": "FP32", "data": None},
        {"name": "x", "shape": [0], "datatype": "FP32"},
        {"name": "x", "shape": [0], "datatype": "FP32", "data": []},
        {"name": "x", "shape": [2, 0], "datatype": "FP32", "data": [[], []]},
        {"name": "x", "shape": [0], "datatype": "FP32", "parameters": {"binary_data_size": 0}},
        {"name": "x", "shape": [0], "datatype": "BF16", "parameters": {"binary_data_size": 0}},
    ):
        _, outputs = read(send(client, json.dumps({"inputs": [entry]})))
        assert outputs["q"].size == 0
    assert read(send(client, b"", {LENGTH: "0"}))[1]["q"].size == 0
    entry = {"name": "x", "shape": [1], "datatype": "FP32", "data": None}
    assert "has neither data" in error(send(client, json.dumps({"inputs": [entry]})), 400)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_halves_are_binary_only(client, datatype):
    entry = {"name": "x", "shape": [1], "datatype": datatype, "data": [1]}
    text = error(send(client, json.dumps({"inputs": [entry]})), 400)
    assert f"{datatype} data via JSON is not supported" in text and "binary" in text
    parts = [tensor("q", np.int8([1])), tensor("scale", np.float32([1]))]
    short = {"FP16": "F16"}.get(datatype, datatype)
    refused = post(client, "dequantize_int8", parts, parameters={"output_dtype": short})
    assert "binary" in error(refused, 400)
    given = {"output_dtype": short, "binary_data_output": True}
    document, outputs = read(post(client, "dequantize_int8", parts, parameters=given))
    assert document["outputs"][0]["datatype"] == datatype and outputs["x"].astype(float) == [1.0]


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e39", "1e400", "null", "true", '"a"', "[1]"])
def test_what_is_no_number(client, token):
    text = '{"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, %s]}]}' % token
    message = error(send(client, text), 400)
    assert "/inputs/0/data/1" in message
    if token.strip("-") in ("NaN", "Infinity"):
        assert "send binary" in message


def test_integers_stay_integers(client):
    big = [2**63 - 1, -(2**63), 2**53 + 1]
    entry = {"name": "x", "shape": [3], "datatype": "INT64", "data": big}
    _, as_json = read(send(client, json.dumps({"inputs": [entry]})))
    _, as_binary = read(post(client, "quantize_int8", [tensor("x", np.int64(big), True)]))
    assert as_json["q"].tolist() == as_binary["q"].tolist()
    for value in (2**63, 1.5, 1e3):
        entry["data"] = [value, 0, 0]
        error(send(client, json.dumps({"inputs": [entry]})), 400)


def entry(**changes):
    made = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]} | changes
    return {key: value for key, value in made.items() if value is not ...}


@pytest.mark.parametrize(
    "document, text",
    [
        ({}, "/inputs: missing"),
        ({"inputs": []}, 'input "x" is missing'),
        ({"inputs": {}}, "array"),
        ({"inputs": [1]}, "/inputs/0"),
        ({"inputs": [entry(name="y")]}, 'input "x" is missing'),
        ({"inputs": [entry(), entry(name="y")]}, 'the model has no input "y"'),
        ({"inputs": [entry(), entry()]}, 'input "x" is given twice'),
        ({"inputs": [entry(name=...)]}, "/inputs/0/name"),
        ({"inputs": [entry(name=1)]}, "/inputs/0/name"),
        ({"inputs": [entry(name="n" * 1000)]}, "/inputs/0/name"),
        ({"inputs": [entry(datatype=...)]}, "/inputs/0/datatype"),
        ({"inputs": [entry(datatype="F32")]}, "use one of: FP64, FP32"),
        ({"inputs": [entry(datatype="BYTES")]}, "/inputs/0/datatype"),
        ({"inputs": [entry(datatype="BOOL")]}, "/inputs/0/datatype"),
        ({"inputs": [entry(shape=...)]}, "shape is missing"),
        ({"inputs": [entry(data=...)]}, "has neither data"),
        ({"inputs": [entry(parameters=[])]}, "parameters"),
        ({"inputs": [entry(parameters={"shared_memory_region": "a"}, data=...)]}, "shared memory"),
        ({"inputs": [entry()], "outputs": [{"name": "q"}, {"name": "q"}]}, 'output "q" is given twice'),
        ({"inputs": [entry()], "outputs": [{"name": "zz"}]}, 'no output "zz"'),
        ({"inputs": [entry()], "outputs": [{}]}, "/outputs/0/name"),
        ({"inputs": [entry()], "outputs": [{"name": "q", "parameters": {"binary_data": 1}}]}, "binary_data"),
        ({"inputs": [entry()], "outputs": [{"name": "q", "parameters": {"classification": 2}}]}, "classification"),
        ({"inputs": [entry()], "id": 7}, "/id"),
        ({"inputs": [entry()], "parameters": {"binary_data_output": "yes"}}, "/parameters/binary_data_output"),
        ({"inputs": [entry()], "parameters": {"block_shape": [1, 2]}}, "/parameters/block_shape"),
        ({"inputs": [entry()], "parameters": {"sequence_id": 5}}, "/parameters/sequence_id"),
        ({"inputs": [entry()], "parameters": 1}, "/parameters"),
    ],
)
def test_documents_that_are_refused(client, document, text):
    message = error(send(client, json.dumps(document)), 400)
    assert text in message
    check_discretion(message)


def test_what_the_protocol_does_not_know_is_left_alone(client):
    document = {
        "model_name": "other",
        "id": None,
        "outputs": None,
        "parameters": {"priority": 3, "timeout": 60_000_000, "sequence_id": 0, "nan": None},
        "inputs": [entry(parameters={"content_type": "np"}, extra=[{}])],
        "more": {"deep": [[[[]]]]},
    }
    _, outputs = read(send(client, json.dumps(document)))
    assert outputs["q"].tolist() == [127]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b"\xef\xbb\xbf{}",
        b'{"inputs": [}',
        b'{"inputs": [' + b"[" * 200_000,
        b'{"inputs": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"parameters": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b', "inputs": []}',
        b'{"inputs": [], "inputs": []}',
        b'{"inputs": [{"name": "\xff", "shape": [1], "datatype": "FP32", "data": [1]}]}',
        b'{"id": "' + b"a" * 100_000 + b'", "inputs": []}',
        b'{"inputs": [' + b",".join([b"{}"] * 5000) + b"]}",
        b"{" + b",".join(b'"k%d": 1' % i for i in range(1000)) + b"}",
    ],
)
def test_broken_bodies(client, data):
    response = send(client, data)
    assert response.status_code in (400, 413), response.text
    check_discretion(error(response, response.status_code))
    error(send(client, data, {LENGTH: str(max(len(data), 1))}), 400 if len(data) == 0 else response.status_code)


def test_paths_and_methods_answer_in_the_protocols_form(client):
    for path, status in [
        ("/v2/nope", 404),
        ("/v2/models/nope", 404),
        ("/v2/models/quantize_int8/versions/2", 404),
        ("/v2/models/quantize_int8/versions/one/ready", 404),
        ("/v2/models/quantize_int8/versions/-1", 404),
        ("/v2/models/%ff", 404),
        ("/v2/models/..%2f..%2fetc", 404),
        ("/v2/models/a%00b/config", 404),
        ("/v2/models/quantize_int8/infer", 405),
        ("/v2/logging", 501),
        ("/v2/systemsharedmemory/status", 501),
        ("/v2/cudasharedmemory/region/a/status", 501),
        ("/v2/models/quantize_int8/trace/setting", 501),
    ]:
        response = client.request("GET", path)
        check_discretion(error(response, status))
    assert client.request("DELETE", "/v2").headers["allow"] == "GET,HEAD"
    # Only whole segments are the protocol's.
    assert "type" in client.request("GET", "/v2x").json()
    for path in ("/v2", "/v2/"):
        assert client.request("GET", path).json()["name"] == "quantd"
    names = client.request("GET", "/v2/models").json()["models"]
    assert "quantize_int8" in names and "stats" not in names


def test_the_repository_takes_what_clients_send(client):
    path = "/v2/repository/index"
    index = client.request("POST", path, data=b"")
    assert index.status_code == 200 and isinstance(index.json(), list)
    assert client.request("POST", path, data=b'{"ready": true}').json() == index.json()
    for data in (b'{"ready": 1}', b"[]", b"{", b'"a"'):
        error(client.request("POST", path, data=data), 400)
    path = "/v2/repository/models/quantize_int8/"
    assert client.request("POST", path + "load", data=b"{}").status_code == 200
    assert client.request("POST", path + "load", data=b"").status_code == 200
    error(client.request("POST", path + "load", data=b'{"parameters": {"file:1/a": "AAAA"}}'), 501)
    error(client.request("POST", path + "load", data=b'{"parameters": 1}'), 400)
    error(client.request("POST", path + "load", data=b" " * 100_000), 413)
    unload = b'{"parameters": {"unload_dependents": false}}'
    assert "built in" in error(client.request("POST", path + "unload", data=unload), 400)


def test_raw_requests_need_one_input_and_one_free_dimension(client):
    path = "/v2/models/%s/infer"
    headers = {LENGTH: "0"}
    for model, text in [
        ("matmul_int8", "more than one input"),
        ("dequantize_int8", "more than one input"),
        ("quantize_int8_per_channel", "more than one variable dimension"),
    ]:
        assert text in error(send(client, b"\0" * 8, headers, path % model), 400)
    assert "not a multiple of 4" in error(send(client, b"\0" * 7, headers), 400)


def test_bodies_above_the_limit_are_refused_by_their_length(server):
    with server.connect() as connection:
        head = f"POST {INFER} HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000000\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 413 " in answer.split(b"\r\n")[0] and b'{"error":' in answer


def test_bombs(client):
    import gzip

    header = b'{"inputs": [{"name": "x", "shape": [300000000], "datatype": "INT8", "parameters": {"binary_data_size": 300000000}}]}'
    data = gzip.compress(header + b"\0" * 300_000_000, 1)
    headers = {LENGTH: str(len(header)), "content-encoding": "gzip"}
    assert "decodes to more than" in error(send(client, data, headers), 413)
    error(send(client, b"junk", {"content-encoding": "gzip"}), 400)
    error(send(client, b"{}", {"content-encoding": "br"}), 415)
