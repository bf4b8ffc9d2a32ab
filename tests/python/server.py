"""A quantd process of the tests' own, on a free port."""

import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import threading
import time

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_SECONDS = 30


def binary():
    """The server under test: TEST_BINARY, or what cargo built last."""
    named = os.environ.get("TEST_BINARY")
    if named:
        return pathlib.Path(named).resolve()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [target / profile / "quantd" for profile in ("release", "debug")]
    built = [path for path in built if path.exists()]
    assert built, "no binary: run `cargo build --release`, or set TEST_BINARY"
    return max(built, key=lambda path: path.stat().st_mtime)


def clean_environment(**extra):
    """The environment without any QUANTD_* of the caller."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUANTD_")}
    return kept | extra


class Server:
    """Runs `quantd serve --port 0 FLAGS` until `stop`."""

    def __init__(self, *flags, env=None):
        command = [str(binary()), "serve", "--port", "0", *flags]
        self.process = subprocess.Popen(
            command,
            env=clean_environment(**(env or {})),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = []
        self._lines = queue.Queue()
        threading.Thread(target=self._read_log, daemon=True).start()
        threading.Thread(target=self._read_output, daemon=True).start()
        try:
            line = self._lines.get(timeout=START_SECONDS)
            found = re.fullmatch(r"quantd listening on (http://([^:/]+):(\d+))", line.strip())
            assert found, f"unexpected first line: {line!r}"
            self.url, self.host, self.port = found[1], found[2], int(found[3])
            self._wait_until_ready()
        except BaseException:
            self.process.kill()
            raise

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def _read_output(self):
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _wait_until_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if requests.get(self.url + "/readyz", timeout=5).status_code == 200:
                    return
            except requests.ConnectionError:
                pass
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.05)

    def connect(self, timeout=30):
        """A bare socket to the server."""
        return socket.create_connection((self.host, self.port), timeout=timeout)

    def resident_bytes(self):
        """Memory in use, and the most that ever was."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))

    def stop(self, timeout=60):
        """Asks the process to stop and gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
