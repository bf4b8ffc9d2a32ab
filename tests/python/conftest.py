"""One server for most tests, and servers with other flags where a test asks."""

import pytest

from client import Client
from server import Server


@pytest.fixture(scope="session")
def server():
    """The server that all tests share."""
    running = Server("--log-level", "warn")
    yield running
    assert running.stop() == 0, "".join(running.log[-20:])
    panics = [line for line in running.log if "panicked" in line]
    assert not panics, panics


@pytest.fixture(scope="session")
def client(server):
    """Calls to the shared server, every answer checked against its OpenAPI document."""
    return Client(server.url)


@pytest.fixture
def start():
    """Starts servers with flags of a test's own; they stop after it."""
    running = []

    def start(*flags, **options):
        running.append(Server(*flags, **options))
        return running[-1]

    yield start
    codes = [server.stop() for server in running if server.process.poll() is None]
    assert codes == [0] * len(codes)
