"""The process among others: who reads what it says, what Kubernetes tells it, how it starts and grows."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest
import requests

from server import START_SECONDS, Server, binary, clean_environment


def listening_port(pid):
    """The port that a process listens on, None before it does."""
    sockets = set()
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            sockets.add(os.readlink(entry))
    for line in pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            return int(fields[1].split(":")[1], 16)
    return None


@contextlib.contextmanager
def serving(*flags, before=(), **streams):
    """A server whatever becomes of its standard streams; gives its process and address."""
    command = [*before, str(binary()), "serve", "--port", "0", *flags]
    process = subprocess.Popen(command, env=clean_environment(), **streams)
    try:
        deadline = time.monotonic() + START_SECONDS
        while (port := listening_port(process.pid)) is None:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not listen"
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def full_pipe():
    """Both ends of a pipe that takes nothing more."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    fcntl.fcntl(writer, fcntl.F_SETFL, 0)
    return reader, writer


def works_and_stops(process, url, requests_sent=300):
    """Requests are answered, on old connections and new ones, and SIGTERM ends it well."""
    with requests.Session() as session:
        for _ in range(requests_sent):
            answer = session.post(url + "/v1/quantize", json={"data": [1, 2, 3]}, timeout=30)
            assert answer.status_code == 200
    assert requests.post(url + "/v1/quantize", json={"data": "x"}, timeout=30).status_code == 400
    metrics = requests.get(url + "/metrics", timeout=30).text
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    return int(re.search(r"^quantd_log_lines_lost_total (\d+)$", metrics, re.M)[1])


def test_a_reader_of_the_log_that_goes_away():
    """`quantd serve 2>&1 | head -1`"""
    reader, writer = os.pipe()
    with serving(stdout=writer, stderr=writer) as (process, url):
        os.close(writer)
        with os.fdopen(reader) as lines:
            assert lines.readline()
        assert works_and_stops(process, url) > 200


@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_a_reader_that_never_reads(stream):
    reader, writer = full_pipe()
    streams = {name: writer for name in ("stdout", "stderr") if stream in (name, "both")}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | streams
    with serving(**streams) as (process, url):
        # Far less than may wait to be written.
        assert works_and_stops(process, url) == 0
    os.close(reader)
    os.close(writer)


def test_a_reader_that_stops_reading_for_good():
    reader, writer = os.pipe()
    with serving("--log-level", "trace", stdout=subprocess.DEVNULL, stderr=writer) as (process, url):
        # A line is more than 150 bytes: they fill the pipe and all that may wait.
        assert works_and_stops(process, url, requests_sent=10_000) > 1000
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("stream", ["stdout", "stderr", "both"])
def test_a_full_disk_under_the_log(stream):
    with open("/dev/full", "w") as full:
        streams = {name: full for name in ("stdout", "stderr") if stream in (name, "both")}
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | streams
        with serving(**streams) as (process, url):
            lost = works_and_stops(process, url)
            assert lost == 0 if stream == "stdout" else lost > 200


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed):
    with serving(before=["sh", "-c", f'exec "$@" {closed}', "sh"]) as (process, url):
        works_and_stops(process, url)


def test_an_error_that_nobody_reads_keeps_its_exit_code():
    reader, writer = full_pipe()
    with open("/dev/full", "w") as full:
        for stream in (full, writer):
            failed = subprocess.run([str(binary()), "--nonsense"], stderr=stream, env=clean_environment(), timeout=60)
            assert failed.returncode == 2
    os.close(reader)
    failed = subprocess.run([str(binary()), "--nonsense"], stderr=writer, env=clean_environment(), timeout=60)
    assert failed.returncode == 2
    os.close(writer)


def test_the_log_is_whole_when_the_server_ends():
    with serving("--log-format", "json", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as (process, url):
        for _ in range(100):
            requests.post(url + "/v1/quantize", json={"data": [1]}, timeout=30)
        process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in process.communicate(timeout=60)[1].splitlines()]
    assert sum(line["message"] == "answered" for line in lines) == 100
    assert lines[-1]["message"].startswith("stopping")


def log_of(*flags, paths=("/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready", "/metrics", "/info")):
    server = Server("--log-format", "json", *flags)
    for path in paths:
        requests.get(server.url + path, timeout=30)
    requests.post(server.url + "/livez", timeout=30)
    requests.post(server.url + "/v1/quantize", json={"data": [1, 2]}, timeout=30)
    assert server.stop() == 0
    return [json.loads(line) for line in server.log]


def routes(log):
    return {line["span"]["route"] for line in log if line["message"] == "answered"}


def test_probes_are_logged_at_debug():
    log = log_of()
    assert routes(log) == {"/info", "/v1/quantize"}
    refused = [line for line in log if line["message"] == "refused"]
    assert len(refused) == 1 and refused[0]["level"] == "INFO" and refused[0]["status"] == 405
    log = log_of("--log-level", "debug")
    assert {"/livez", "/readyz", "/health", "/v2/health/live", "/v2/health/ready", "/metrics", "/info"} <= routes(log)


def test_a_line_of_the_log_says_a_thing_once():
    answered = [line for line in log_of() if line["message"] == "answered"]
    for line in answered:
        assert "spans" not in line
        assert set(line["span"]) == {"name", "id", "method", "route"}
        assert line["ms"] == round(line["ms"], 3) and len(str(line["ms"])) < 12, line


def run(*arguments, env=None):
    return subprocess.run(
        [str(binary()), *arguments], capture_output=True, text=True, timeout=60, env=clean_environment(**(env or {}))
    )


def service(name):
    """The variables that Kubernetes makes of a service with two ports."""
    name = name.upper().replace("-", "_")
    ports = {
        f"{name}_PORT_{port}_{protocol}{end}": value
        for port, protocol in ((80, "TCP"), (53, "UDP"))
        for end, value in (
            ("", f"{protocol.lower()}://10.0.0.1:{port}"),
            ("_PROTO", protocol.lower()),
            ("_PORT", str(port)),
            ("_ADDR", "10.0.0.1"),
        )
    }
    return ports | {
        f"{name}_SERVICE_HOST": "10.0.0.1",
        f"{name}_SERVICE_PORT": "80",
        f"{name}_SERVICE_PORT_HTTP": "80",
        f"{name}_SERVICE_PORT_DNS_UDP": "53",
        f"{name}_PORT": "tcp://10.0.0.1:80",
    }


@pytest.mark.parametrize("name", ["quantd", "quantd-web", "quantd-max-queue", "quantd-port", "quantd-api-key-80"])
def test_services_of_kubernetes_set_nothing(name, start):
    server = start("--log-level", "warn", env=service(name))
    assert server.stop() == 0
    warnings = [line for line in server.log if "QUANTD" in line]
    assert len(warnings) == (name == "quantd"), server.log
    assert all("QUANTD_PORT" in line for line in warnings)


def test_a_misspelt_variable_is_found_beside_services(start):
    for variable in ("QUANTD_MAX_BODY_BYTE", "QUANTD_HTTP_PORT", "QUANTD_WEB"):
        failed = run("--port", "0", env=service("quantd-web") | {variable: "8080"})
        assert failed.returncode == 2 and variable in failed.stderr, failed


def test_other_verbs_do_not_mind_variables_of_serve(server):
    port = str(server.port)
    for env in (service("quantd"), {"QUANTD_MAX_QUEUE": "many"}, {"QUANTD_PORT": "nonsense"}, {"QUANTD_API_KEY": " "}):
        assert run("openapi", env=env).returncode == 0
        assert run("healthcheck", "--port", port, env=env).returncode == 0
    assert run("healthcheck", env={"QUANTD_PORT": port}).returncode == 0
    # Of a link healthcheck takes nothing, so that it asks the usual port, whoever listens there.
    assert run("healthcheck", env=service("quantd")).returncode in (0, 1)
    assert run("healthcheck", env={"QUANTD_PORT": "nonsense"}).returncode == 2
    assert "[env: QUANTD_PORT=" in run("--help").stdout


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-inflight-bytes", "1"],
        ["--max-inflight-bytes", "1048575"],
        ["--max-body-bytes", "0"],
        ["--max-tensors", "0"],
        ["--max-elements", "0"],
        ["--max-connections", "0"],
        ["--max-connections", "18446744073709551615"],
        ["--max-queue-wait-ms", "18446744073709551615"],
        ["--drain-seconds", "18446744073709551615"],
        ["--max-layer-bytes", "1"],
        ["--max-calibrator-bytes", "0"],
        ["--threads", "100000"],
        ["--header-timeout-ms", "0"],
        ["--body-timeout-ms", "0"],
        ["--write-timeout-ms", "0"],
        ["--api-key", " "],
        ["--api-key", "key\n"],
        ["--api-key", " key"],
        ["--api-key", "k\x01y"],
    ],
    ids=lambda flags: f"{flags[0]} {flags[1]!r}",
)
def test_a_server_that_would_answer_nothing_does_not_start(flags):
    variable = flags[0][2:].upper().replace("-", "_")
    for failed in (run("--port", "0", *flags), run("--port", "0", env={f"QUANTD_{variable}": flags[1]})):
        assert failed.returncode == 2
        assert len(failed.stderr.splitlines()) == 1 and flags[0] in failed.stderr
        if "key" in flags[0]:
            assert "key\n" not in failed.stderr[:-1] and "k\x01" not in failed.stderr


def test_a_server_with_the_least_of_everything_answers(start):
    server = start(
        *["--max-inflight-bytes", "1048576", "--max-body-bytes", "1024", "--max-tensors", "2", "--max-elements", "64"],
        *["--max-connections", "1", "--max-queue", "1", "--threads", "1"],
        *["--max-layer-bytes", "65536", "--max-calibrator-bytes", "65536", "--batch-rows", "0", "--drain-seconds", "0"],
    )
    # Its only connection was that of whoever asked for readiness.
    with requests.Session() as session:

        def post(path, body):
            answer = session.post(server.url + path, json=body, timeout=30)
            assert answer.status_code in (200, 201), (path, answer.text)

        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(requests.ConnectionError):
                session.get(server.url + "/livez", timeout=30)
                break
            assert time.monotonic() < deadline
        tensor = {"data": [[1, 2], [3, 4]]}
        post("/v1/quantize", tensor)
        post("/v1/compare", tensor)
        post("/v1/inspect", tensor)
        post("/v1/dequantize", {"codes": [1, 2], "scale": 0.5, "dtype": "I8"})
        post("/v1/matmul", {"a": tensor, "b": tensor})
        post("/v1/layers", {"name": "fc", "weight": tensor})
        post("/v1/layers/fc/forward", tensor)
        post("/v1/calibrators", {"name": "c", "range": "min_max"})
        post("/v1/calibrators/c/batches", tensor)


def test_the_budget_follows_the_limit_of_the_process():
    """Control groups are tried in the tests beside the code: making one takes rights that few have."""
    limited = ["sh", "-c", 'ulimit -v 4194304 && exec "$@"', "sh"]
    with serving(before=limited, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as (_, url):
        bytes_ = requests.get(url + "/info", timeout=30).json()["limits"]["max_inflight_bytes"]
        assert 0 < bytes_ <= (4 << 30) * 0.6


def burst(server, requests_sent):
    """Many small requests on one connection; gives the memory that the process holds for itself afterwards."""
    body = b'{"data": [1, 2, 3]}'
    request = b"POST /v1/quantize HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with server.connect() as connection, connection.makefile("rb") as answers:
        for _ in range(requests_sent // 100):
            connection.sendall(request * 100)
            for _ in range(100):
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                head = {}
                while (line := answers.readline()) != b"\r\n":
                    name, value = line.split(b": ", 1)
                    head[name] = int(value) if name == b"content-length" else value
                answers.read(head[b"content-length"])
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


def test_memory_does_not_grow_when_nobody_scrapes(start):
    """What is measured is put into buckets on a timer: kept one by one, it would be 57 bytes a request."""
    server = start("--log-level", "off")
    before = burst(server, 30_000)
    assert burst(server, 100_000) - before < 30 * 100_000


@pytest.mark.parametrize("kind", ["a file", "below a file", "another server's"])
def test_a_layer_directory_that_cannot_be_used_is_named(kind, tmp_path, start):
    path = tmp_path / "layers"
    if kind == "another server's":
        start("--layer-dir", str(path), "--log-level", "error")
    else:
        path.write_text("")
        path = path / "below" if kind == "below a file" else path
    failed = run("--port", "0", "--layer-dir", str(path))
    assert failed.returncode == 2 and len(failed.stderr.splitlines()) == 1
    assert str(path) in failed.stderr and "--layer-dir" in failed.stderr and "listen" not in failed.stderr


def test_the_start_says_what_was_started():
    with serving("--threads", "1", "--max-inflight-bytes", str(64 << 20), stdout=subprocess.PIPE, text=True) as (process, url):
        info = requests.get(url + "/info", timeout=30).json()
        process.send_signal(signal.SIGTERM)
        lines = process.communicate(timeout=60)[0].splitlines()
    assert lines[0] == f"quantd listening on {url}"
    rest = "\n".join(lines[1:])
    for word in (f"{url}/docs", info["version"], info["isa"], "1 compute thread\n", "64.00 MiB", "256.00 MiB", "2048"):
        assert word in rest, (word, rest)
