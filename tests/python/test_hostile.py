"""Requests that nobody should send: exact answers, no crash, flat memory."""

import concurrent.futures
import gzip
import io
import json
import re
import socket
import struct
import time
import zlib

import numpy as np
import pytest
import requests
import zstandard

from client import (
    JSON,
    NPY,
    PROBLEM,
    RAW,
    SAFETENSORS,
    check_discretion,
    check_problem,
    npy_bytes,
    query,
    write_safetensors,
)

MIB = 1 << 20
POSTS = ["/v1/quantize", "/v1/dequantize", "/v1/compare", "/v1/inspect"]
GETS = ["/", "/info", "/livez", "/readyz", "/health", "/metrics", "/openapi.json"]


def raw(server, request, timeout=15, half_close=False):
    """Sends bytes and reads until the server closes or stops talking."""
    with server.connect(timeout) as link:
        try:
            link.sendall(request)
            if half_close:
                link.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        return receive(link)


def receive(link):
    """All that arrives until the end, a reset or the time limit."""
    data = b""
    try:
        while part := link.recv(65536):
            data += part
    except OSError:
        pass
    return data


def until_cut(link):
    """All that arrives until the server ends the connection; it must do so within the time limit."""
    data = b""
    try:
        while part := link.recv(65536):
            data += part
    except ConnectionError:
        pass
    return data


def statuses(data):
    """The status of each response in a stream."""
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3}) ", data)]


def head(path="/v1/quantize", *lines, method="POST"):
    """A request's head."""
    lines = [f"{method} {path} HTTP/1.1", "host: x", *lines]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def alive(server):
    """The server still answers."""
    assert requests.get(server.url + "/livez", timeout=60).status_code == 200


@pytest.fixture(autouse=True)
def unhurt(server):
    """No test leaves the shared server dead or hot."""
    yield
    assert server.process.poll() is None
    alive(server)


# --- T7: NaN -----------------------------------------------------------------------------


def test_bare_nan_is_not_json(client):
    for text in ("NaN", "Infinity", "-Infinity", "1e", "01", ".5", "+1", "1.", "0x10", "1_000"):
        body = f'{{"data": [1, {text}]}}'
        check_problem(client.post("/v1/quantize", body, kind=JSON), "malformed-body", 400)


def test_numbers_too_large_for_their_type(client):
    for value, dtype in (("1e400", "F64"), ("1e39", "F32"), ("1e400", "F32"), ("70000", "F16")):
        answer = client.post("/v1/quantize", f'{{"data": [{value}], "dtype": "{dtype}"}}', kind=JSON)
        assert answer.status_code in (200, 400, 422), (value, dtype)
    for value, dtype in (("300", "U8"), ("-1", "U8"), ("1.5", "I8"), ("1e3", "I8"), ("9" * 30, "I64")):
        answer = client.post("/v1/quantize", f'{{"data": [{value}], "dtype": "{dtype}"}}', kind=JSON)
        assert answer.status_code in (400, 422), (value, dtype, answer.text)


# --- T8: lengths -------------------------------------------------------------------------


@pytest.mark.parametrize("path", POSTS)
def test_ten_gigabytes_are_refused_before_reading(server, path):
    before, _ = server.resident_bytes()
    data = raw(server, head(path, "content-type: application/octet-stream", "content-length: 10737418240"))
    assert statuses(data) == [413]
    assert b"urn:quantd:error:too-large" in data
    after, _ = server.resident_bytes()
    assert after < before + 16 * MIB


@pytest.mark.parametrize("path", POSTS)
def test_expect_continue_is_not_given_to_a_body_that_is_too_large(server, path):
    data = raw(server, head(path, "expect: 100-continue", "content-length: 10737418240"))
    assert statuses(data) == [413]


def test_chunks_beyond_the_limit(start):
    small = start("--max-body-bytes", "65536", "--log-level", "error")

    def body():
        for _ in range(64):
            yield b"x" * 4096

    try:
        answer = requests.post(
            small.url + "/v1/quantize", data=body(), headers={"content-type": JSON}, timeout=10
        )
        check_problem(answer, "too-large", 413)
        assert answer.headers.get("connection") == "close"
    except requests.ConnectionError:
        pass  # closed while we were still writing
    answer = requests.post(small.url + "/v1/quantize", data=b"x" * 65537, timeout=10)
    check_problem(answer, "too-large", 413)
    assert "max" in answer.text and "65536" in answer.text
    fits = json.dumps({"data": [1] * 1000}).ljust(65536)
    answer = requests.post(small.url + "/v1/quantize", data=fits, headers={"content-type": JSON}, timeout=10)
    assert answer.status_code == 200


def test_larger_than_all_memory_is_refused_at_once(start):
    """T19: a request above the whole budget does not wait for it."""
    small = start("--max-inflight-bytes", str(8 * MIB), "--max-queue-wait-ms", "600000", "--log-level", "error")
    data = raw(small, head("/v1/quantize", f"content-length: {64 * MIB}"))
    assert statuses(data) == [413]


# --- T9: options -------------------------------------------------------------------------

WRONG = [-1, 0, 2**31, 2**63, 2**64, "8", True, 1.5, [8], {"a": 1}, "", None]
INTEGERS = {
    "bits": {},
    "group_size": {"granularity": "group"},
    "axis": {"granularity": "channel"},
}


@pytest.mark.parametrize("option", INTEGERS)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_integer_options(client, option, value):
    scheme = INTEGERS[option] | {option: value}
    answer = client.post("/v1/quantize", {"data": [[1, 2], [3, 4]], "scheme": scheme})
    harmless = (option == "axis" and value in (-1, 0) and value is not True) or value is None
    harmless = harmless and not (option == "axis" and value is True) or (value == 2**31 and option == "group_size")
    if harmless and answer.status_code == 200:
        return
    problem = check_problem(answer, "invalid-option", 400, f"/scheme/{option}")
    assert any(error.get("cure") for error in problem["errors"]) or problem.get("cure")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        params = INTEGERS[option] | {option: value}
        answer = client.post("/v1/quantize", npy_bytes(np.ones((2, 2), "f4")), kind=NPY, params=params)
        check_problem(answer, "invalid-option", 400, option)


@pytest.mark.parametrize("text", ["1e400", "-1e400", "8.0", "8e0", "0x8", " 8", "8,8", "", "9" * 400, "%00"])
def test_numbers_in_queries(client, text):
    url = "/v1/quantize?bits=" + text.replace(" ", "%20")
    answer = client.post(url, npy_bytes(np.ones(2, "f4")), kind=NPY)
    if text.strip() == "8" and answer.status_code == 200:
        return
    check_problem(answer, "invalid-option", 400, "bits")
    if text not in ("", "%00"):
        answer = client.post("/v1/quantize", f'{{"data":[1],"scheme":{{"bits":{text}}}}}', kind=JSON)
        assert answer.status_code in (400, 200 if text.strip() == "8" else 400), text


CONTRADICTIONS = [
    ({"bitz": 8}, "bitz"),
    ({"range": "nonsense"}, "range"),
    ({"granularity": "channels"}, "granularity"),
    ({"profile": "tensorflow"}, "profile"),
    ({"nan": "ignore"}, "nan"),
    ({"preset": "int9"}, "preset"),
    ({"percentile": 99, "range": "mse"}, "percentile"),
    ({"range": "percentile"}, "percentile"),
    ({"range": "percentile", "percentile": 101}, "percentile"),
    ({"range": "percentile", "percentile": "NaN"}, "percentile"),
    ({"range": "explicit"}, "range"),
    ({"min": 1}, "max"),
    ({"min": 2, "max": 1}, "min"),
    ({"scale": 0}, "scale"),
    ({"scale": -1}, "scale"),
    ({"scale": [1, 2, 3]}, "scale"),
    ({"scale": 1, "min": 0, "max": 1}, "scale"),
    ({"scale": 1, "zero_point": 1000}, "zero_point"),
    ({"zero_point": 1}, "zero_point"),
    ({"group_size": 8, "granularity": "tensor"}, "group_size"),
    ({"granularity": "group"}, "group_size"),
    ({"granularity": "block"}, "block_shape"),
    ({"block_shape": [0, 1]}, "block_shape"),
    ({"block_shape": [1, 2, 3]}, "block_shape"),
    ({"granularity": "channel", "axis": 2}, "axis"),
    ({"granularity": "channel", "axis": -3}, "axis"),
    ({"restricted": True, "signed": False}, "restricted"),
    ({"profile": "compressed-tensors", "signed": False}, "signed"),
    ({"signed": "yes"}, "signed"),
    ({"bits": 9}, "bits"),
]


@pytest.mark.parametrize("scheme,field", CONTRADICTIONS, ids=lambda value: json.dumps(value))
def test_contradictions_name_their_field(client, scheme, field):
    body = {"data": [[1, 2], [3, 4]], "scheme": scheme}
    check_problem(client.post("/v1/quantize", body), "invalid-option", 400, f"/scheme/{field}")
    params = {name: query(value) for name, value in scheme.items()}
    answer = client.post("/v1/quantize", npy_bytes(np.ones((2, 2), "f4")), kind=NPY, params=params)
    check_problem(answer, "invalid-option", 400, field)


def test_fields_in_the_wrong_place(client):
    problem = client.post("/v1/quantize", {"data": [1], "bits": 8})
    check_problem(problem, "invalid-option", 400, "/bits")
    # A query may say for JSON what its body does not, and nothing else than what it does.
    assert client.post("/v1/quantize", {"data": [1]}, params={"bits": 8}).status_code == 200
    problem = client.post("/v1/quantize", {"data": [1], "scheme": {"bits": 4}}, params={"bits": 8})
    check_problem(problem, "invalid-option", 400, "bits")
    for scheme in (3, [], True):
        check_problem(client.post("/v1/quantize", {"data": [1], "scheme": scheme}), "invalid-option", 400, "/scheme")
    check_problem(client.post("/v1/quantize", {"scheme": "int8"}), "invalid-option", 400, "/data")
    twice = client.post("/v1/quantize?bits=8&bits=8", npy_bytes(np.ones(1, "f4")), kind=NPY)
    check_problem(twice, "invalid-option", 400, "bits")


# --- T10: shapes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape,fine",
    [
        ("4294967296,4294967296", False),
        ("18446744073709551615", False),
        ("18446744073709551616", False),
        ("2147483648,2147483648,0", False),
        ("-1", False),
        ("1,1,1,1,1,1,1,1,1", False),
        ("0", True),
        ("", True),
        ("3,0,2", True),
        ("2.5", False),
        ("1e3", False),
    ],
)
def test_shapes(client, shape, fine):
    count = {"": 1, "0": 0, "3,0,2": 0}.get(shape, 1)
    body = b"\0" * (4 * count)
    answer = client.post(f"/v1/quantize?dtype=F32&shape={shape}", body, kind=RAW)
    if fine:
        assert answer.status_code == 200, answer.text
    else:
        assert answer.status_code in (400, 413), answer.text
        assert answer.json()["errors"][0]["parameter"] == "shape"
        check_discretion(answer.text)
    if shape not in ("", "18446744073709551616"):
        numbers = [1.0] * count
        text = f'{{"data": {json.dumps(numbers)}, "shape": [{shape}]}}'
        answer = client.post("/v1/quantize", text, kind=JSON)
        if fine:
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code in (400, 413)
            assert answer.json()["errors"][0]["pointer"] == "/shape"


@pytest.mark.parametrize("size", [0, 1, 3, 23, 25, 4096])
def test_bodies_of_another_size(client, size):
    answer = client.post("/v1/quantize?dtype=F32&shape=2,3", b"\0" * size, kind=RAW)
    check_problem(answer, "malformed-body", 400)


# --- T11: JSON ---------------------------------------------------------------------------


def test_deep_nesting(client, server):
    before, _ = server.resident_bytes()
    for depth in (9, 200, 200_000):
        for text in (
            '{"data":' + "[" * depth + "1" + "]" * depth + "}",
            '{"data":' + "[" * depth,
            '{"data":[1],"scheme":' + "[" * depth + "]" * depth + "}",
            '{"data":[1],"scheme":' + '{"a":' * depth + "1" + "}" * depth + "}",
            '{"data":[1],"x":' + "[" * depth + "]" * depth + "}",
        ):
            answer = client.post("/v1/quantize", text, kind=JSON)
            assert answer.status_code == 400, answer.text[:200]
            check_discretion(answer.text)
            assert len(answer.content) < 4096
    after, _ = server.resident_bytes()
    assert after < before + 64 * MIB


def test_a_million_keys(client):
    text = "{" + ",".join(f'"k{i}":0' for i in range(1_000_000)) + "}"
    answer = client.post("/v1/quantize", text, kind=JSON)
    assert answer.status_code in (400, 413)
    assert len(answer.content) < 4096
    text = '{"tensors":{' + ",".join(f'"k{i}":{{"data":0}}' for i in range(200_000)) + "}}"
    answer = client.post("/v1/quantize", text, kind=JSON)
    check_problem(answer, "too-large", 413)


def test_broken_json(client):
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'{"data":[1,2]',
        b'{"data":[1,2]}}',
        b'{"data":[1,2]} x',
        b'{"data":[1,,2]}',
        b'{"data":[1 2]}',
        b'{"data":[1,]}',
        b"{'data':[1]}",
        b'{"data":[1],}',
        b'{"data":[1],"data":[2]}',
        b'\xef\xbb\xbf{"data":[1]}',
        b'{"data":["\xff\xfe"]}',
        b'{"\xff":1}',
        b'{"data":[1],"scheme":"\\ud800"}',
        b'{"data":"text"}',
        b'{"data":[true]}',
        b'{"data":[null]}',
        b'{"data":[{}]}',
        b'{"data":{"a":1}}',
        b'{"data":[1],"dtype":"F99"}',
        b'{"data":[1],"dtype":7}',
    ):
        answer = client.post("/v1/quantize", body, kind=JSON)
        assert answer.status_code == 400, (body, answer.text)
        assert answer.headers["content-type"] == PROBLEM
        check_discretion(answer.text)


def test_a_huge_string_is_not_echoed(client):
    secret = "s3cr3t" * 2_000_000
    for body in (
        json.dumps({"data": [1], "scheme": secret}),
        json.dumps({"data": [1], secret: 1}),
        json.dumps({"data": [secret]}),
        json.dumps({"data": [1], "dtype": secret}),
        json.dumps({"tensors": {secret: {"data": "x"}}}),
    ):
        answer = client.post("/v1/quantize", body, kind=JSON)
        assert answer.status_code in (400, 413)
        assert len(answer.content) < 4096, len(answer.content)


def test_payloads_are_not_echoed(client):
    mark = "31337"
    for path in POSTS:
        for body in (f'{{"data":[{mark}, x]}}', f'{{"data":[[{mark}],[1,2]]}}', f'{{"data":"{mark}"}}'):
            answer = client.post(path, body, kind=JSON)
            assert answer.status_code == 400
            assert mark not in answer.text
    body = npy_bytes(np.frombuffer(mark.encode() * 4, "u1"))[:-1]
    answer = client.post("/v1/quantize", body, kind=NPY)
    assert answer.status_code == 400 and mark not in answer.text


# --- T12, T13: HTTP ----------------------------------------------------------------------


def test_one_byte_chunks(server):
    text = json.dumps({"data": [1.5] * 20_000}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in text)
    request = head("/v1/quantize", "content-type: application/json", "transfer-encoding: chunked", "connection: close")
    before, _ = server.resident_bytes()
    data = raw(server, request + chunks + b"0\r\nx-trailer: 1\r\n\r\n", timeout=60)
    assert statuses(data) in ([200], [400])
    after, _ = server.resident_bytes()
    assert after < before + 64 * MIB


def test_chunk_extensions(server):
    request = head("/v1/quantize", "content-type: application/json", "transfer-encoding: chunked", "connection: close")
    data = raw(server, request + b"1;" + b"a" * MIB + b"\r\n{\r\n0\r\n\r\n")
    assert statuses(data) in ([], [400], [413])


@pytest.mark.parametrize(
    "name,request_bytes",
    {
        "two lengths": head("/v1/quantize", "content-length: 3", "content-length: 4") + b"abcd",
        "length and chunks": head("/v1/quantize", "content-length: 5", "transfer-encoding: chunked")
        + b"0\r\n\r\nGET /info HTTP/1.1\r\nhost: x\r\n\r\n",
        "negative length": head("/v1/quantize", "content-length: -1"),
        "length of words": head("/v1/quantize", "content-length: ten"),
        "length beyond u64": head("/v1/quantize", "content-length: 99999999999999999999999"),
        "unknown coding": head("/v1/quantize", "transfer-encoding: nonsense"),
        "folded header": head("/livez", "x-a: b\r\n c", method="GET"),
        "200 headers": head("/livez", *[f"x-{i}: {i}" for i in range(200)], method="GET"),
        "long header": head("/livez", "x-a: " + "b" * MIB, method="GET"),
        "long path": head("/" + "a" * MIB, method="GET"),
        "NUL in the path": b"GET /li\0vez HTTP/1.1\r\nhost: x\r\n\r\n",
        "NUL in a header": b"GET /livez HTTP/1.1\r\nhost: x\r\nx-a: \0\r\n\r\n",
        "no version": b"GET /livez\r\n\r\n",
        "bad version": b"GET /livez HTTP/9.9\r\nhost: x\r\n\r\n",
        "TLS hello": bytes.fromhex("16030100a5010000a10303") + b"\0" * 200,
        "space before colon": b"GET /livez HTTP/1.1\r\nhost : x\r\n\r\n",
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_requests(server, name, request_bytes):
    with server.connect(5) as link:
        try:
            link.sendall(request_bytes)
            link.settimeout(3)
        except OSError:
            pass
        data = receive(link)
    found = statuses(data)
    assert len(found) <= 1, (name, data[:400])
    assert not found or found[0] in (400, 404, 405, 408, 411, 413, 414, 415, 431, 501, 505), (name, data[:400])
    check_discretion(data.decode("latin-1"))


def test_tolerated_requests(server):
    bare = raw(server, b"GET /livez HTTP/1.1\nhost: x\nconnection: close\n\n", timeout=3)
    assert statuses(bare) in ([], [200], [400])
    absolute = raw(server, b"GET http://example.test/livez HTTP/1.1\r\nhost: example.test\r\nconnection: close\r\n\r\n")
    assert statuses(absolute) in ([200], [400], [404])


def test_pipelined_requests(server):
    body = b'{"data":[1]}'
    post = head("/v1/quantize", "content-type: application/json", f"content-length: {len(body)}") + body
    last = head("/livez", "connection: close", method="GET")
    assert statuses(raw(server, post * 3 + last)) == [200] * 4


# --- T14 to T16: time --------------------------------------------------------------------


def test_slow_heads_are_cut(start):
    slow = start("--header-timeout-ms", "1500", "--log-level", "error")
    links = [slow.connect(60) for _ in range(200)]
    for link in links:
        link.sendall(b"GET /livez HTT")
    alive(slow)
    for link in links:
        assert statuses(until_cut(link)) in ([], [408])
        link.close()


def test_dribbled_heads_are_cut(start):
    slow = start("--header-timeout-ms", "1500", "--log-level", "error")
    with slow.connect() as link, pytest.raises(OSError):
        for _ in range(600):
            link.sendall(b"x")
            time.sleep(0.1)


def test_idle_connections_do_not_last_for_ever(start):
    slow = start("--header-timeout-ms", "1500", "--log-level", "error")
    with slow.connect(60) as link:
        assert until_cut(link) == b""


def test_slow_bodies_are_cut(start):
    slow = start("--body-timeout-ms", "1500", "--log-level", "error")
    with slow.connect(60) as link:
        link.sendall(head("/v1/quantize", "content-type: application/json", "content-length: 1000"))
        with pytest.raises(OSError):
            for _ in range(600):
                link.sendall(b" ")
                time.sleep(0.1)
        data = receive(link)
    assert statuses(data) in ([408], []), data[:300]
    with slow.connect(10) as link:
        link.sendall(head("/v1/quantize", "content-type: application/json", "content-length: 1000"))
        data = receive(link)
    assert statuses(data) == [408] and b"urn:quantd:error:timeout" in data
    check_inflight_is_zero(slow)


def check_inflight_is_zero(server, patience=60):
    """All memory permits are back."""
    deadline = time.monotonic() + patience
    while True:
        text = requests.get(server.url + "/metrics", timeout=5).text
        found = [line for line in text.splitlines() if line.startswith("quantd_inflight_bytes ")]
        values = [float(line.split()[-1]) for line in found]
        if values and not any(values):
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_clients_that_do_not_read_are_dropped(start):
    slow = start("--write-timeout-ms", "1500", "--log-level", "error")
    x = np.random.default_rng(0).standard_normal(8_000_000).astype(np.float32)
    with slow.connect(30) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = head(
            "/v1/quantize?dtype=F32&shape=8000000",
            "content-type: application/octet-stream",
            f"content-length: {x.nbytes}",
            "accept: application/json",
        )
        link.sendall(request)
        link.sendall(x.tobytes())
        check_inflight_is_zero(slow)


def test_clients_that_leave(start):
    """T28: upload, queue, compute: whatever is abandoned gives its memory back."""
    server = start("--threads", "1", "--log-level", "error")
    x = np.random.default_rng(0).standard_normal(2_000_000).astype(np.float32).tobytes()
    whole = head(
        "/v1/quantize?dtype=F32&shape=2000000&range=mse",
        "content-type: application/octet-stream",
        f"content-length: {len(x)}",
    )
    for part in (len(x) // 2, len(x)):
        links = [server.connect() for _ in range(4)]
        for link in links:
            link.sendall(whole + x[:part])
        time.sleep(0.1)
        for link in links:
            link.close()
    check_inflight_is_zero(server)


# --- T17: bombs --------------------------------------------------------------------------


def bombs():
    zeros = b"\0" * (64 * MIB)
    text = b'{"data":[' + b"0," * (16 * MIB) + b"0]}"
    zstd = zstandard.ZstdCompressor(level=19).compress
    return {
        "gzip": ("gzip", gzip.compress(text)),
        "zstd": ("zstd", zstd(text)),
        "deflate": ("deflate", zlib.compress(text)),
        "gzip members": ("gzip", gzip.compress(zeros) * 8),
        "zstd frames": ("zstd", zstd(zeros) * 8),
    }


@pytest.mark.parametrize("name,bomb", bombs().items(), ids=lambda value: value if isinstance(value, str) else "")
def test_bombs(start, name, bomb):
    small = start("--max-body-bytes", str(16 * MIB), "--log-level", "error")
    alive(small)
    before, _ = small.resident_bytes()
    encoding, body = bomb
    answer = requests.post(
        small.url + "/v1/quantize",
        data=body,
        headers={"content-type": JSON, "content-encoding": encoding},
        timeout=30,
    )
    assert answer.status_code in (400, 413), (name, answer.text)
    check_discretion(answer.text)
    _, peak = small.resident_bytes()
    assert peak < before + 48 * MIB, (name, peak - before)


def test_broken_streams(client):
    text = b'{"data":[1,2,3]}'
    good = {
        "gzip": gzip.compress(text),
        "deflate": zlib.compress(text),
        "zstd": zstandard.ZstdCompressor().compress(text),
    }
    for encoding, body in good.items():
        for broken in (body[:-3], body[: len(body) // 2], body + b"garbage", b"", b"\0" * 20, text):
            answer = client.post("/v1/quantize", broken, kind=JSON, headers={"content-encoding": encoding})
            check_problem(answer, "malformed-body", 400)
    nested = gzip.compress(gzip.compress(text))
    answer = client.post("/v1/quantize", nested, kind=JSON, headers={"content-encoding": "gzip"})
    check_problem(answer, "malformed-body", 400)
    for name in ("br", "compress", "gzip, gzip", "gzip, zstd", "nonsense", "x" * 5000):
        answer = client.post("/v1/quantize", good["gzip"], kind=JSON, headers={"content-encoding": name})
        assert answer.status_code in (400, 415, 431), name
        if answer.status_code == 415:
            check_problem(answer, "unsupported-media-type", 415, "content-encoding")


# --- T25: safetensors --------------------------------------------------------------------


def document(header, data=b""):
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


FILES = {
    "empty": b"",
    "short": b"\x08\0\0",
    "header beyond the file": struct.pack("<Q", 100) + b"{}",
    "header of 2^63": struct.pack("<Q", 1 << 63) + b"{}",
    "header of 2^64-1": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "header of 100 MB + 1": struct.pack("<Q", 100_000_001) + b"{}",
    "not an object": document(b"[]"),
    "not JSON": document(b"{nonsense"),
    "not UTF-8": document(b'{"\xff":1}'),
    "hole": document({"a": entry(begin=4, end=8)}, b"\0" * 8),
    "overlap": document({"a": entry(), "b": entry()}, b"\0" * 4),
    "gap between": document({"a": entry(), "b": entry(begin=8, end=12)}, b"\0" * 12),
    "bytes behind": document({"a": entry()}, b"\0" * 4 + b"PK\x03\x04 a zip"),
    "beyond the end": document({"a": entry(end=8, shape=(2,))}, b"\0" * 4),
    "end of 2^63": document({"a": entry(end=1 << 63)}, b"\0" * 4),
    "end before begin": document({"a": entry(begin=4, end=0)}, b"\0" * 4),
    "another size": document({"a": entry(shape=(2,))}, b"\0" * 4),
    "overflowing shape": document({"a": entry(shape=(1 << 62, 1 << 62))}, b"\0" * 4),
    "negative shape": document({"a": entry(shape=(-1,))}, b"\0" * 4),
    "metadata of numbers": document({"__metadata__": {"a": 1}, "a": entry()}, b"\0" * 4),
    "metadata of objects": document({"__metadata__": {"a": {}}, "a": entry()}, b"\0" * 4),
    "unknown type": document({"a": entry(dtype="F99")}, b"\0" * 4),
    "half a byte": document({"a": entry(dtype="F4", shape=(3,), end=2)}, b"\0" * 2),
    "bool": document({"a": entry(dtype="BOOL", end=1)}, b"\0"),
    "name twice": document(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), b"\0" * 4),
    "missing field": document({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
    "rank 9": document({"a": entry(shape=(1,) * 9)}, b"\0" * 4),
    "deep header": document(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", FILES)
def test_safetensors(client, path, name):
    answer = client.post(path, FILES[name], kind=SAFETENSORS)
    assert answer.status_code in (400, 413, 422), answer.text[:300]
    assert answer.headers["content-type"] == PROBLEM
    check_discretion(answer.text)


def test_file_of_no_tensors(client):
    for path in POSTS:
        answer = client.post(path, document({}), kind=SAFETENSORS)
        assert answer.status_code in (200, 400, 422)


# --- T26: npy ----------------------------------------------------------------------------


def npy(header, data=b"", version=(1, 0), length=None):
    """An npy file with any header."""
    text = header if isinstance(header, bytes) else header.encode()
    form = "<H" if version[0] == 1 else "<I"
    length = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + struct.pack(form, length) + text + data


def described(descr="'<f4'", order="False", shape="(1,)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


def numpy_file(x, **options):
    out = io.BytesIO()
    np.lib.format.write_array(out, x, **options)
    return out.getvalue()


ARRAYS = {
    "magic only": b"\x93NUMPY",
    "version 9": npy(described(), b"\0" * 4, version=(9, 0)),
    "header of 4 GB": npy(described(), b"\0" * 4, version=(2, 0), length=(1 << 32) - 1),
    "header beyond the file": npy(described(), length=60_000),
    "objects": numpy_file(np.array([1, "a"], object), allow_pickle=True),
    "structure": numpy_file(np.zeros(3, [("a", "f4"), ("b", "i4")])),
    "text": numpy_file(np.array(["a", "b"])),
    "complex": numpy_file(np.zeros(3, "c8")),
    "dates": numpy_file(np.zeros(3, "M8[s]")),
    "long double": npy(described("'<f16'"), b"\0" * 16),
    "unknown": npy(described("'<q9'"), b"\0" * 4),
    "descr of code": npy(described("__import__('os')"), b"\0" * 4),
    "no header": npy(""),
    "not a dict": npy("[1, 2]\n"),
    "missing key": npy("{'descr': '<f4', 'shape': (1,)}\n", b"\0" * 4),
    "extra key": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}\n", b"\0" * 4),
    "key twice": npy("{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': (1,)}\n", b"\0" * 8),
    "negative shape": npy(described(shape="(-1,)"), b"\0" * 4),
    "shape of 2^64": npy(described(shape="(18446744073709551616,)"), b"\0" * 4),
    "overflowing shape": npy(described(shape="(4294967296, 4294967296)"), b"\0" * 4),
    "overflow hidden by a zero": npy(described(shape="(2147483648, 2147483648, 2147483648, 0)")),
    "rank 9": npy(described(shape="(1,1,1,1,1,1,1,1,1)"), b"\0" * 4),
    "shape of floats": npy(described(shape="(1.0,)"), b"\0" * 4),
    "shape of text": npy(described(shape="('1',)"), b"\0" * 4),
    "open shape": npy(described(shape="(1,"), b"\0" * 4),
    "deep shape": npy(described(shape="(" * 30_000), version=(2, 0)),
    "order of words": npy(described(order="Maybe"), b"\0" * 4),
    "too short": npy(described(shape="(2,)"), b"\0" * 4),
    "too long": npy(described(shape="(1,)"), b"\0" * 8),
    "not UTF-8": npy(b"{'descr': '\xff', 'fortran_order': False, 'shape': (1,)}\n", b"\0" * 4, version=(3, 0)),
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", ARRAYS)
def test_npy(client, path, name):
    params = {"scale": 1} if path == "/v1/dequantize" else {}
    answer = client.post(path, ARRAYS[name], kind=NPY, params=params)
    assert answer.status_code in (400, 413, 415, 422), answer.text[:300]
    assert answer.headers["content-type"] == PROBLEM
    check_discretion(answer.text)


# --- dequantize --------------------------------------------------------------------------

GOOD = {"codes": [[1, 2], [3, 4]], "dtype": "I8", "shape": [2, 2], "scale": 0.5, "zero_point": 0, "scheme": {"bits": 8}}


@pytest.mark.parametrize(
    "change",
    [
        {"scale": [1, 2, 3]},
        {"scale": "x"},
        {"scale": None},
        {"zero_point": [1, 2, 3]},
        {"zero_point": 1.5},
        {"codes": [[1, 2], [3]]},
        {"codes": [[1, 2], [3, 400]]},
        {"codes": [[1, 2], [3, 0.5]]},
        {"codes": "x"},
        {"dtype": "F32"},
        {"dtype": "nonsense"},
        {"shape": [3, 2]},
        {"shape": [-1]},
        {"scheme": {"bits": 4, "packed": True}},
        {"scheme": {"granularity": "channel", "axis": 5}},
        {"scheme": {"granularity": "group"}},
        {"scheme": "nonsense"},
        {"scheme": 3},
        {"output_dtype": "I8"},
        {"nonsense": 1},
    ],
    ids=json.dumps,
)
def test_changed_answers(client, change):
    assert client.post("/v1/dequantize", GOOD).status_code == 200
    answer = client.post("/v1/dequantize", GOOD | change)
    assert answer.status_code in (400, 422), answer.text
    check_discretion(answer.text)
    for missing in ("codes", "scale"):
        rest = {key: value for key, value in GOOD.items() if key != missing}
        check_problem(client.post("/v1/dequantize", rest), "invalid-option", 400, f"/{missing}")


# --- T29, T30, T33, T35, T36: the service ------------------------------------------------


@pytest.mark.parametrize("path", POSTS + GETS)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"])
def test_methods(client, path, method):
    right = {"GET", "HEAD"} if path in GETS else {"POST"}
    answer = client.request(method, path)
    if method in right and path in GETS:
        assert answer.status_code == 200
        assert method != "HEAD" or not answer.content
        return
    if method in right:
        assert answer.status_code in (400, 415)
        return
    assert answer.status_code == 405, (method, path)
    allowed = {word.strip() for word in answer.headers["allow"].split(",")}
    assert right <= allowed | {"HEAD"} and method not in allowed
    if method != "HEAD":
        check_problem(answer, "method-not-allowed", 405)


@pytest.mark.parametrize(
    "path",
    ["/nope", "/v1", "/v1/", "/v1/quantize/", "/v3/health", "/v1/../info", "/%2e%2e/etc/passwd", "//", "/docs/../../x"],
)
def test_unknown_routes(server, path):
    data = raw(server, head(path, "connection: close", method="GET"))
    assert statuses(data) == [404], data[:300]
    assert b"urn:quantd:error:not-found" in data
    assert path.strip("/").encode() not in data or len(path) < 4


def test_request_ids(client):
    given = client.request("GET", "/livez", headers={"x-request-id": "abc-123_X.y"})
    assert given.headers["x-request-id"] == "abc-123_X.y"
    made = client.request("GET", "/nope")
    assert made.json()["instance"] == made.headers["x-request-id"]
    for bad in ("x" * 200, "a b", "a\tb", "<script>", ""):
        answer = client.request("GET", "/livez", headers={"x-request-id": bad})
        assert answer.headers["x-request-id"] not in ("", bad)


def test_keys(start):
    server = start("--log-level", "info", env={"QUANTD_API_KEY": "correct-horse-battery"})
    post = lambda **headers: requests.post(
        server.url + "/v1/quantize", json={"data": [1]}, headers=headers, timeout=10
    )
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic correct-horse-battery"}):
        answer = post(**headers)
        check_problem(answer, "unauthorized", 401)
        assert "bearer" in answer.headers["www-authenticate"].lower()
    assert post(authorization="Bearer correct-horse-battery").status_code == 200
    assert post(**{"api-key": "correct-horse-battery"}).status_code == 200
    in_query = requests.post(
        server.url + "/v1/quantize?api_key=correct-horse-battery", json={"data": [1]}, timeout=10
    )
    assert in_query.status_code == 401
    for path in ("/livez", "/readyz"):
        assert requests.get(server.url + path, timeout=10).status_code == 200
    assert requests.get(server.url + "/info", timeout=10).status_code == 401
    assert server.stop() == 0
    assert "correct-horse-battery" not in "".join(server.log)


def test_foreign_origins(client, start):
    asked = {"origin": "http://evil.test", "access-control-request-method": "POST"}
    for method in ("OPTIONS", "POST"):
        answer = client.request(method, "/v1/quantize", headers=asked)
        assert not [name for name in answer.headers if name.lower().startswith("access-control-allow")]
    server = start("--cors-origin", "http://good.test", "--log-level", "error")
    for origin, allowed in (("http://good.test", True), ("http://evil.test", False)):
        answer = requests.options(
            server.url + "/v1/quantize",
            headers={"origin": origin, "access-control-request-method": "POST"},
            timeout=10,
        )
        assert (answer.headers.get("access-control-allow-origin") == origin) == allowed
        methods = answer.headers.get("access-control-allow-methods", "").split(",")
        assert {"GET", "POST", "PUT", "DELETE"} <= set(methods) or not allowed, methods
    assert "*" not in str(answer.headers)
    # Pages may read all that an answer says in headers.
    answer = requests.post(
        server.url + "/v1/quantize",
        json={"data": [1]},
        headers={"origin": "http://good.test", "accept": NPY},
        timeout=10,
    )
    exposed = answer.headers["access-control-expose-headers"].split(",")
    facts = {name.lower() for name in answer.headers if name.lower().startswith("quantd-")}
    assert "quantd-scale" in facts and facts <= set(exposed)


def test_a_full_server_says_so_and_recovers(start):
    """T18: memory for two bodies at a time; the rest waits a little or is told to come back."""
    server = start(
        "--max-inflight-bytes", str(48 * MIB), "--max-queue", "4", "--max-queue-wait-ms", "200", "--log-level", "error"
    )
    x = np.random.default_rng(0).standard_normal(MIB).astype(np.float32).tobytes()
    url = server.url + f"/v1/quantize?dtype=F32&shape={MIB}&range=mse"

    def call(_):
        try:
            return requests.post(url, data=x, headers={"content-type": RAW}, timeout=60)
        except requests.ConnectionError:
            return None  # refused before the body was read, and closed

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(call, range(80)))
    codes = [answer.status_code for answer in answers if answer is not None]
    assert set(codes) <= {200, 503} and codes.count(200) >= 1, codes
    refused = [answer for answer in answers if answer is not None and answer.status_code == 503]
    assert refused, "nothing was refused"
    for answer in refused:
        check_problem(answer, "overloaded", 503)
        assert int(answer.headers["retry-after"]) >= 1
    _, peak = server.resident_bytes()
    assert peak < 48 * MIB * 1.15 + 64 * MIB, peak
    check_inflight_is_zero(server)
    assert call(0).status_code == 200


def test_memory_is_used_again_and_then_given_back(start):
    """What a large request leaves is for the next one, and for the system once there is none."""
    server = start("--log-level", "error")
    x = np.random.default_rng(0).standard_normal(16 * MIB).astype(np.float32).tobytes()
    url = server.url + f"/v1/quantize?dtype=F32&shape={16 * MIB}"

    def call():
        assert requests.post(url, data=x, headers={"content-type": RAW, "accept": RAW}, timeout=60).status_code == 200
        return server.resident_bytes()

    alive(server)
    idle, _ = server.resident_bytes()
    _, first = call()
    for _ in range(4):
        _, peak = call()
    assert peak < first + 8 * MIB, (first, peak)
    deadline = time.monotonic() + 60
    while server.resident_bytes()[0] > idle + 16 * MIB:
        assert time.monotonic() < deadline, (idle, server.resident_bytes())
        time.sleep(0.1)


def test_stopping_lets_requests_finish(start):
    server = start("--log-level", "error")
    x = np.random.default_rng(0).standard_normal(2 * MIB).astype(np.float32).tobytes()
    url = server.url + f"/v1/quantize?dtype=F32&shape={2 * MIB}&range=mse"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        work = pool.submit(requests.post, url, data=x, headers={"content-type": RAW}, timeout=60)
        time.sleep(0.15)
        assert server.stop() == 0
        assert work.result().status_code == 200
    with pytest.raises(OSError):
        server.connect(1)


def test_metrics(client):
    client.quantize(np.ones(3, np.float32), "int8")
    client.request("GET", "/random")
    before = len(client.request("GET", "/metrics").text.splitlines())
    for number in range(200):
        client.request("GET", f"/random-{number}")
    answer = client.request("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert any(line.startswith("# TYPE quantd_") for line in lines)
    assert any("/v1/quantize" in line and 'status_code="200"' in line for line in lines), answer.text[:2000]
    # A series for each path would be more lines than paths.
    assert "random-" not in answer.text and len(lines) < before + 200
    for line in lines:
        if line and not line.startswith("#"):
            float(line.rsplit(" ", 1)[1])
