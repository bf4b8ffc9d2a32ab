"""A server whose threads are all busy with long work: small requests, clients that leave, the stop."""

import select
import signal
import socket
import struct
import time

import numpy as np
import pytest
import requests

from client import RAW, check_problem
from test_hostile import check_inflight_is_zero, head

MIB = 1 << 20
# Each element is quantized for each of 256 candidates, and its exponential taken.
LONG = "range=cross_entropy&signed=false&symmetric=false"


def send_long(server, elements=16 * MIB):
    """Sends a request that computes for much longer than any test, and gives its connection."""
    x = np.random.default_rng(0).standard_normal(elements).astype(np.float32)
    path = f"/v1/quantize?dtype=F32&shape={elements}&{LONG}"
    link = server.connect(60)
    link.sendall(head(path, f"content-type: {RAW}", f"content-length: {x.nbytes}") + x.tobytes())
    return link


def begun(server):
    """Requests that came to a compute thread."""
    text = requests.get(server.url + "/metrics", timeout=60).text
    found = [line for line in text.splitlines() if line.startswith("quantd_queue_wait_seconds_count")]
    return sum(float(line.split()[-1]) for line in found)


def wait_until_begun(server, count):
    """Until so many requests came to a compute thread."""
    while begun(server) < count:
        assert server.process.poll() is None
        time.sleep(0.05)


@pytest.fixture
def busy(start):
    """A server whose only thread for long work has some, and the connection of that."""
    server = start("--threads", "1", "--max-compute-ms", "0", "--drain-seconds", "1", "--log-level", "error")
    link = send_long(server)
    wait_until_begun(server, 1)
    yield server, link
    link.close()


def is_working(link):
    """Whether no answer has come."""
    return not select.select([link], [], [], 0)[0]


def test_health_while_computing(busy):
    """T30: long work holds up neither the small questions nor small tensors."""
    server, link = busy
    own = requests.Session()
    for _ in range(50):
        for path in ("/livez", "/readyz", "/metrics"):
            assert own.get(server.url + path, timeout=60).status_code == 200
        answer = own.post(server.url + "/v1/quantize", json={"data": [1, 2, 3]}, timeout=60)
        assert answer.status_code == 200 and answer.json()["codes"] == [42, 85, 127]
    assert is_working(link)


def test_work_ends_when_its_client_leaves(busy):
    server, link = busy
    # A reset: who only ends its sending side may still wait for the answer.
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()
    # Its memory is held by the work itself, and the thread is free for the next one.
    check_inflight_is_zero(server)
    x = np.ones(MIB, np.float32).tobytes()
    url = server.url + f"/v1/quantize?dtype=F32&shape={MIB}"
    assert requests.post(url, data=x, headers={"content-type": RAW}, timeout=60).status_code == 200


def test_other_long_work_is_told_to_come_back(busy):
    server, link = busy
    x = np.ones(MIB, np.float32).tobytes()
    url = server.url + f"/v1/quantize?dtype=F32&shape={MIB}"
    answer = requests.post(url, data=x, headers={"content-type": RAW}, timeout=60)
    check_problem(answer, "overloaded", 503)
    assert is_working(link)


def test_the_stop_does_not_wait_for_work_that_cannot_end(busy):
    server, link = busy
    assert is_working(link)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=60) == 0
    link.settimeout(60)
    try:
        assert link.recv(1) == b""
    except ConnectionError:
        pass


def test_long_work_is_stopped_at_its_deadline(start):
    server = start("--threads", "1", "--max-compute-ms", "2000", "--log-level", "error")
    x = np.random.default_rng(0).standard_normal(16 * MIB).astype(np.float32).tobytes()
    url = server.url + f"/v1/quantize?dtype=F32&shape={16 * MIB}&{LONG}"
    answer = requests.post(url, data=x, headers={"content-type": RAW}, timeout=120)
    # By the estimate, or by the clock.
    assert answer.status_code in (422, 504), answer.text
    check_problem(answer, {422: "too-much-work", 504: "out-of-time"}[answer.status_code], answer.status_code)
    check_inflight_is_zero(server)
    assert requests.post(server.url + "/v1/quantize", json={"data": [1]}, timeout=60).status_code == 200
