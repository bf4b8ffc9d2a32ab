"""Connections as clients of other make begin and end them."""

import http.client
import json
import os
import signal
import socket
import time

import numpy as np
import pytest
import requests

from client import RAW

MIB = 1 << 20


def counter(server, name):
    """The value of a metric without labels."""
    text = requests.get(server.url + "/metrics", timeout=10).text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))


def wait_for(condition, patience=30):
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def search(rows):
    """A request that searches a range for each of so many rows, and its body."""
    x = np.random.default_rng(0).standard_normal(1024 * rows).astype(np.float32).tobytes()
    options = "range=entropy_ort&granularity=channel&axis=0"
    lines = [
        f"POST /v1/quantize?dtype=F32&shape={rows},1024&{options} HTTP/1.1",
        "host: localhost",
        f"content-type: {RAW}",
        f"content-length: {len(x)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + x


@pytest.mark.parametrize("rows", [1, 200])
def test_half_closed_clients_are_answered(server, rows):
    for _ in range(5):
        with server.connect(120) as link:
            link.sendall(search(rows).replace(b"host:", b"connection: close\r\nhost:"))
            link.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(link)
            answer.begin()
            assert answer.status == 200
            assert answer.read()


def test_clients_that_leave_stop_their_work(start):
    server = start("--threads", "1", "--log-level", "error")
    for i in range(3):
        with server.connect() as link:
            link.sendall(search(2000))
            wait_for(lambda: counter(server, "quantd_inflight_bytes") > 0)
        wait_for(lambda: counter(server, "quantd_cancelled_total") == i + 1)
        wait_for(lambda: counter(server, "quantd_inflight_bytes") == 0)


@pytest.mark.parametrize("size", [2 * MIB, 40 * MIB])
def test_clients_that_read_late_see_why_they_were_refused(start, size):
    server = start("--max-body-bytes", str(MIB), "--log-level", "error")
    link = http.client.HTTPConnection(server.host, server.port, timeout=30)
    link.request("POST", "/v1/quantize", b"x" * size, {"content-type": RAW})
    answer = link.getresponse()
    assert answer.status == 413 and json.loads(answer.read())["type"].endswith(":too-large")
    answer = requests.post(server.url + "/v1/quantize", data=b"x" * size, timeout=30)
    assert answer.status_code == 413 and "--max-body-bytes" in answer.json()["cure"]


def test_idle_sockets_leave_room_for_probes(start):
    server = start("--max-connections", "16", "--log-level", "error")
    idle = [server.connect() for _ in range(64)]
    for path in ("/livez", "/readyz"):
        assert requests.get(server.url + path, timeout=10).status_code == 200
    for link in idle:
        link.close()


def test_the_delay_before_draining(start):
    server = start("--drain-delay", "3", "--log-level", "error")
    os.kill(server.process.pid, signal.SIGTERM)
    wait_for(lambda: requests.get(server.url + "/readyz", timeout=10).status_code == 503)
    assert requests.get(server.url + "/livez", timeout=10).status_code == 200
    assert requests.post(server.url + "/v1/quantize", json={"data": [1]}, timeout=10).status_code == 200
    assert server.process.wait(60) == 0


def test_no_page_but_our_own_changes_anything(start):
    server = start("--log-level", "error")
    url = server.url + "/v1/layers"
    layer = {"name": "a", "weight": {"data": [[1, 2], [3, 4]]}}
    own = {"origin": server.url, "sec-fetch-site": "same-origin"}
    assert requests.post(url, json=layer, headers=own, timeout=10).status_code == 201
    for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "same-site"}):
        for call in (
            lambda: requests.post(url, data=json.dumps(layer | {"name": "b"}), headers=headers, timeout=10),
            lambda: requests.delete(url + "/a", headers=headers, timeout=10),
            lambda: requests.post(
                server.url + "/v2/repository/models/a/unload", data="{}", headers=headers, timeout=10
            ),
        ):
            assert call().status_code == 403
    assert [layer["name"] for layer in requests.get(url, timeout=10).json()["layers"]] == ["a"]
    for name, status in (("evil.example", 403), (f"localhost:{server.port}", 200), ("quantd", 200)):
        assert requests.get(url, headers={"host": name}, timeout=10).status_code == status
