"""Layers on the disk and in the budget: restarts, kills, damage, eviction, replacement."""

import json
import os
import random
import socket
import threading
import time

import numpy as np
import pytest
import requests

from client import JSON, RAW, SAFETENSORS, Client, check_problem, read_tensor, tensor_json, write_safetensors
from server import Server
from test_layers import forward, make
from test_matmul import seeded


def put(url, name, content, session=requests):
    """Makes a layer; `content` is what `contents` gives."""
    tensors, params, _ = content
    return session.put(
        f"{url}/v1/layers/{name}",
        data=write_safetensors(tensors),
        params=params,
        headers={"content-type": SAFETENSORS},
        timeout=60,
    )


def metrics(client):
    """What /metrics says of layers."""
    lines = client.request("get", "/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if line.startswith("quantd_layer"))}


def ask(url, name, x, session=requests):
    """The bytes of a layer's answer."""
    params = {"dtype": "F32", "shape": ",".join(map(str, x.shape))}
    headers = {"content-type": RAW, "accept": RAW}
    response = session.post(f"{url}/v1/layers/{name}/forward", data=x.tobytes(), params=params, headers=headers, timeout=60)
    return response


def contents():
    """Layers of every kind, small and large, and an input for each."""
    rng = seeded("contents")
    normal = lambda *shape: rng.normal(size=shape).astype("f4")
    static = {"input.scale": 0.02, "input.signed": "false", "input.zero_point": 127}
    codes = {"output.scale": 0.3, "output.signed": "false", "output.zero_point": 9}
    return [
        ({"weight": normal(8, 16), "bias": normal(8)}, {}, normal(3, 16)),
        ({"weight": normal(64, 200)}, {"scheme": "int4_g32", "activation": "gelu"}, normal(2, 200)),
        ({"weight": normal(5, 3, 3, 3)}, {"kind": "conv2d", "padding": "1", "stride": "2"}, normal(2, 3, 7, 7)),
        ({"weight": normal(16, 9), "bias": normal(9)}, {"transpose": "true", **static, **codes, "activation": "relu"}, normal(4, 16)),
        ({"weight": normal(600, 400)}, {"scheme": "uint8", "keep_float": "false"}, normal(1, 400)),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def known(server):
    """Contents with the bytes that a server answers which never stopped."""
    known = []
    for content in contents():
        assert put(server.url, "known", content).status_code in (200, 201)
        answer = ask(server.url, "known", content[2])
        assert answer.status_code == 200, answer.text
        known.append((content, answer.content))
    return known


def test_a_restart_loses_nothing(start, tmp_path, known):
    server = start("--layer-dir", str(tmp_path))
    for i, (content, _) in enumerate(known):
        for version in range(1, i + 2):
            assert put(server.url, f"layer{i}", content).json()["version"] == version
    client = Client(server.url)
    make(client, "chain", chain=["layer0"])
    before = client.request("get", "/v1/layers").json()
    client.request("delete", "/v1/layers/layer2")
    assert server.stop() == 0
    client = Client(start("--layer-dir", str(tmp_path)).url)
    after = client.request("get", "/v1/layers").json()
    assert after["layers"] == [layer for layer in before["layers"] if layer["name"] != "layer2"]
    for i, (content, expect) in enumerate(known):
        answer = ask(client.url, f"layer{i}", content[2])
        assert answer.status_code == (404 if i == 2 else 200)
        assert i == 2 or answer.content == expect
    assert ask(client.url, "chain", known[0][0][2]).content == known[0][1]
    # Versions go on from where they were.
    assert put(client.url, "layer4", known[0][0]).json()["version"] == 6


def test_damaged_files_are_named_and_skipped(start, tmp_path, known):
    server = start("--layer-dir", str(tmp_path))
    names = ["good", "torn", "empty", "flipped", "header", "renamed"]
    for name in names:
        assert put(server.url, name, known[0][0]).status_code == 201
    assert server.stop() == 0
    file = lambda name: tmp_path / f"{name}.safetensors"
    whole = file("torn").read_bytes()
    file("torn").write_bytes(whole[:-7])
    file("empty").write_bytes(b"")
    file("flipped").write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    at = whole.index(b"activation") + 15
    file("header").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    file("renamed").rename(file("another"))
    (tmp_path / "notes.txt").write_text("not a layer")
    (tmp_path / ".unfinished").write_bytes(whole[:100])
    server = start("--layer-dir", str(tmp_path))
    listed = Client(server.url).request("get", "/v1/layers").json()["layers"]
    assert [layer["name"] for layer in listed] == ["good"]
    assert ask(server.url, "good", known[0][0][2]).content == known[0][1]
    log = "".join(server.log)
    for name in ["torn", "empty", "flipped", "header", "another"]:
        assert any(name in line and "skipped" in line for line in log.splitlines()), (name, log)
    # A damaged layer can be made again.
    assert put(server.url, "torn", known[0][0]).json()["version"] == 1
    assert (tmp_path / "notes.txt").exists() and not (tmp_path / ".unfinished").exists()


def test_whatever_lies_there_is_named_and_skipped(start, tmp_path, known):
    """None of it is waited for, read to its end, or kept from being replaced."""
    server = start("--layer-dir", str(tmp_path))
    for name in ["good", "sparse"]:
        assert put(server.url, name, known[0][0]).status_code == 201
    assert server.stop() == 0
    file = lambda name: tmp_path / f"{name}.safetensors"
    with open(file("sparse"), "wb") as sparse:
        sparse.truncate(64 << 30)
    os.mkfifo(file("pipe"))
    file("folder").mkdir()
    file("loop").symlink_to(file("loop"))
    file("zero").symlink_to("/dev/zero")
    file("spaced name").write_bytes(b"")
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".lock").unlink()
    os.mkfifo(tmp_path / ".lock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(file("socket")))
    server = start("--layer-dir", str(tmp_path))
    client = Client(server.url)
    assert [layer["name"] for layer in client.request("get", "/v1/layers").json()["layers"]] == ["good"]
    log = "".join(server.log).splitlines()
    for name in ["sparse", "pipe", "folder", "loop", "zero", "spaced name", ".unfinished", ".lock", "socket"]:
        assert any(name in line and "skipped" in line for line in log), (name, log)
    # All can be made, but for the one whose name a directory has.
    for name in ["sparse", "pipe", "loop", "socket", "zero"]:
        response = put(server.url, name, known[0][0])
        assert response.status_code == 201, (name, response.text)
    check_problem(put(server.url, "folder", known[0][0]), "storage", 507)
    assert ask(server.url, "pipe", known[0][0][2]).content == known[0][1]
    # Its file becomes something else while it is put away: loads fail, and everything else goes on.
    for name, become in [("pipe", os.mkfifo), ("sparse", lambda path: os.truncate(path, 64 << 30))]:
        client.request("post", f"/v2/repository/models/{name}/unload", data="{}", headers={"content-type": JSON})
        if name == "pipe":
            file(name).unlink()
        become(file(name))
        response = client.request("post", f"/v2/repository/models/{name}/load", data="{}", headers={"content-type": JSON})
        assert response.status_code == 507, response.text
        assert put(server.url, "good", known[0][0]).status_code == 200
        assert put(server.url, name, known[0][0]).status_code == 200
    assert server.stop() == 0


def test_one_directory_has_one_server(start, tmp_path):
    start("--layer-dir", str(tmp_path))
    with pytest.raises(AssertionError):
        Server("--layer-dir", str(tmp_path))


def test_the_budget_refuses(start, known):
    server = start("--max-layer-bytes", "300000")
    client = Client(server.url)
    w = np.ones((200, 200), "f4")
    body = tensor_json(w, True)
    make(client, "first", weight=body)
    held = client.request("get", "/v1/layers").json()["memory_bytes"]
    assert 200_000 < held <= 300_000
    expect = {"quantd_layers": 1, "quantd_layer_bytes": held, "quantd_layer_bytes_limit": 300_000}
    assert metrics(client) == expect | {"quantd_layers_evicted_total": 0, "quantd_layers_refused_total": 0}
    response = client.request("put", "/v1/layers/second", data=json.dumps({"weight": body}), headers={"content-type": JSON})
    check_problem(response, "storage", 507)
    large = {"weight": tensor_json(np.ones((600, 600), "f4"), True)}
    response = client.request("put", "/v1/layers/first", data=json.dumps(large), headers={"content-type": JSON})
    check_problem(response, "storage", 507)
    assert client.request("get", "/v1/layers").json()["memory_bytes"] == held
    assert metrics(client) == expect | {"quantd_layers_evicted_total": 0, "quantd_layers_refused_total": 2}
    # Another version takes the place of the one before.
    assert make(client, "first", weight=body)["version"] == 2
    client.request("delete", "/v1/layers/first")
    assert metrics(client)["quantd_layers"] == metrics(client)["quantd_layer_bytes"] == 0
    make(client, "second", weight=body)


@pytest.mark.parametrize("saved", [True, False])
def test_the_one_not_used_for_longest_makes_room(start, tmp_path, saved):
    flags = ["--max-layer-bytes", "500000", "--layer-eviction", "lru"]
    server = start(*flags, *(["--layer-dir", str(tmp_path)] if saved else []))
    client = Client(server.url)
    rng = seeded("lru")
    layers = {name: rng.normal(size=(200, 200)).astype("f4") for name in "abcd"}
    x = rng.normal(size=(2, 200)).astype("f4")
    answers = {}
    for name in "ab":
        make(client, name, weight=tensor_json(layers[name], True))
        answers[name] = forward(client, name, x)
    loaded = lambda: {layer["name"]: layer["loaded"] for layer in client.request("get", "/v1/layers").json()["layers"]}
    assert loaded() == {"a": True, "b": True}
    forward(client, "a", x)
    make(client, "c", weight=tensor_json(layers["c"], True))
    held = client.request("get", "/v1/layers").json()["memory_bytes"]
    expect = {"quantd_layers": 2, "quantd_layer_bytes": held, "quantd_layer_bytes_limit": 500_000}
    assert metrics(client) == expect | {"quantd_layers_evicted_total": 1, "quantd_layers_refused_total": 0}
    if not saved:
        assert loaded() == {"a": True, "c": True}
        assert client.post("/v1/layers/b/forward", tensor_json(x)).status_code == 404
        return
    assert loaded() == {"a": True, "b": False, "c": True}
    np.testing.assert_array_equal(forward(client, "b", x), answers["b"])
    assert loaded() == {"a": False, "b": True, "c": True}
    # All of them at once, more than there is room for.
    make(client, "d", weight=tensor_json(layers["d"], True))
    with_threads(8, lambda i: [np.testing.assert_array_equal(read_tensor(client_of(server, i).post(f"/v1/layers/{'ab'[(i + j) % 2]}/forward", tensor_json(x))), answers["ab"[(i + j) % 2]]) for j in range(6)])
    assert client.request("get", "/v1/layers").json()["memory_bytes"] <= 500000
    # After a restart those that do not fit are brought back when they are used.
    assert server.stop() == 0
    server = start(*flags, "--layer-dir", str(tmp_path))
    client = Client(server.url)
    assert len(loaded()) == 4 and 1 <= sum(loaded().values()) <= 3
    for name, answer in answers.items():
        np.testing.assert_array_equal(forward(client, name, x), answer)


def test_layers_of_chains_do_not_make_room_where_they_would_be_lost(start):
    server = start("--max-layer-bytes", "500000", "--layer-eviction", "lru")
    client = Client(server.url)
    body = tensor_json(seeded("chained").normal(size=(200, 200)).astype("f4"), True)
    names = lambda: [layer["name"] for layer in client.request("get", "/v1/layers").json()["layers"]]
    x = np.ones((1, 200), "f4")
    make(client, "oldest", weight=body)
    make(client, "net", chain=["oldest"])
    expect = forward(client, "net", x)
    for name in "ab":
        make(client, name, weight=body)
    assert names() == ["b", "net", "oldest"]
    np.testing.assert_array_equal(forward(client, "net", x), expect)
    # With all others gone there would be no room either: they stay.
    large = {"weight": tensor_json(np.ones((280, 280), "f4"), True)}
    response = client.request("put", "/v1/layers/large", data=json.dumps(large), headers={"content-type": JSON})
    check_problem(response, "storage", 507)
    assert "chains" in response.json()["detail"]
    assert names() == ["b", "net", "oldest"]
    client.request("delete", "/v1/layers/net")
    make(client, "large", **large)
    assert names() == ["large"]


def test_others_stay_when_a_layer_cannot_be_saved(start, tmp_path, known):
    server = start("--layer-dir", str(tmp_path), "--max-layer-bytes", "300000", "--layer-eviction", "lru")
    client = Client(server.url)
    body = tensor_json(np.ones((200, 200), "f4"), True)
    make(client, "first", weight=body)
    # Where the file of the next one would be written.
    (tmp_path / ".unfinished").mkdir()
    content = {"data": json.dumps({"weight": body}), "headers": {"content-type": JSON}}
    check_problem(client.request("put", "/v1/layers/second", **content), "storage", 507)
    check_problem(client.request("put", "/v1/layers/first", **content), "storage", 507)
    listed = client.request("get", "/v1/layers").json()["layers"]
    assert [(layer["name"], layer["version"], layer["loaded"]) for layer in listed] == [("first", 1, True)]
    assert metrics(client)["quantd_layers_evicted_total"] == metrics(client)["quantd_layers_refused_total"] == 0
    (tmp_path / ".unfinished").rmdir()
    assert client.request("put", "/v1/layers/second", **content).status_code == 201
    assert metrics(client)["quantd_layers_evicted_total"] == 1


def client_of(server, _):
    return Client(server.url)


def with_threads(count, work):
    """Runs `work(i)` on threads and passes on what fails."""
    failed = []

    def run(i):
        try:
            work(i)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if failed:
        raise failed[0]


def test_replacing_is_at_once(server):
    """Whoever runs a layer while it is replaced has the old answer or the new one."""
    client = Client(server.url)
    shape = (96, 64)
    x = np.ones((1, 64), "f4")
    weights = [np.full(shape, value, "f4") for value in (1.0, 2.0)]
    answers = []
    for w in weights:
        make(client, "swap", weight=tensor_json(w, True))
        answers.append(forward(client, "swap", x).tobytes())
    ended = threading.Event()

    def read(_):
        own = requests.Session()
        seen = 0
        while not ended.is_set():
            response = ask(server.url, "swap", x, own)
            assert response.status_code == 200, response.text
            version = int(response.headers["quantd-layer-version"])
            assert version >= seen
            seen = version
            assert response.content == answers[(version + 1) % 2], version

    def write():
        own = requests.Session()
        for i in range(40):
            content = ({"weight": weights[i % 2]}, {}, None)
            assert put(server.url, "swap", content, own).status_code in (200, 201)
        ended.set()

    def work(i):
        try:
            write() if i == 0 else read(i)
        finally:
            if i == 0:
                ended.set()

    with_threads(4, work)


@pytest.mark.parametrize("kind", ["chain", "layer"])
def test_what_was_replaced_runs_no_more(server, kind):
    """From the acknowledgement on, however many requests keep the batches of the old one busy."""
    client = Client(server.url)
    x = np.ones((1, 64), "f4")
    weights = [tensor_json(np.full((96, 64), value, "f4"), True) for value in (1.0, 2.0)]
    layer = f"busy-{kind}-0"
    name = f"busy-{kind}" if kind == "chain" else layer
    answers = []
    for w in weights:
        make(client, layer, weight=w)
        answers.append(forward(client, layer, x).tobytes())
    if kind == "chain":
        make(client, name, chain=[layer])
    ended = threading.Event()

    def load(_):
        own = requests.Session()
        while not ended.is_set():
            assert ask(server.url, name, x, own).status_code in (200, 404)

    def write():
        for i in range(60):
            if kind == "layer":
                # The version begins anew.
                assert client.request("delete", f"/v1/layers/{layer}").status_code == 200
            make(client, layer, weight=weights[i % 2])
            assert ask(server.url, name, x).content == answers[i % 2], i

    def work(i):
        try:
            write() if i == 0 else load(i)
        finally:
            if i == 0:
                ended.set()

    with_threads(9, work)


ROUNDS = 6
CLIENTS = 4


class Writer(threading.Thread):
    """Makes, replaces and removes layers of its own until the server is gone."""

    def __init__(self, url, i, seed, known, state):
        super().__init__()
        self.url, self.i, self.known, self.state = url, i, known, state
        self.random = random.Random(seed)
        self.acknowledged = 0

    def run(self):
        session = requests.Session()
        while True:
            name = f"w{self.i}-{self.random.randrange(5)}"
            before = self.state.get(name, [None])[-1]
            removes = before is not None and self.random.random() < 0.2
            after = None if removes else self.random.randrange(len(self.known))
            # What may be there if no answer comes: either.
            self.state[name] = [before, after]
            try:
                if removes:
                    response = session.delete(f"{self.url}/v1/layers/{name}", timeout=60)
                else:
                    response = put(self.url, name, self.known[after][0], session)
            except requests.RequestException:
                return
            assert response.status_code in (200, 201), response.text
            self.state[name] = [after]
            self.acknowledged += 1


def test_a_kill_loses_nothing_that_was_acknowledged(start, tmp_path, known):
    """SIGKILL at random moments: every acknowledged layer is there, none is half there."""
    moments = random.Random(20)
    state, acknowledged = {}, 0
    for turn in range(ROUNDS):
        server = start("--layer-dir", str(tmp_path))
        writers = [Writer(server.url, i, f"{turn} {i}", known, state) for i in range(CLIENTS)]
        [writer.start() for writer in writers]
        # The moment of the kill is the point of the test, not a wait for something.
        time.sleep(moments.uniform(0.05, 1.0))
        server.process.kill()
        server.process.wait()
        [writer.join() for writer in writers]
        acknowledged += sum(writer.acknowledged for writer in writers)
        server = start("--layer-dir", str(tmp_path))
        log = "".join(server.log)
        assert "skipped" not in log, log
        listed = {layer["name"] for layer in requests.get(f"{server.url}/v1/layers", timeout=60).json()["layers"]}
        assert listed <= set(state)
        for name, allowed in state.items():
            found = [
                content
                for content in allowed
                if (content is None and name not in listed)
                or (
                    content is not None
                    and name in listed
                    and ask(server.url, name, known[content][0][2]).content == known[content][1]
                )
            ]
            assert found, (turn, name, allowed, name in listed)
            state[name] = [found[0]]
        assert server.stop() == 0
    assert acknowledged > 20 * ROUNDS, acknowledged


def test_nobody_waits_while_layers_are_made_and_read(start, tmp_path):
    """Large layers are made, put away and brought back; other routes answer meanwhile."""
    server = start("--layer-dir", str(tmp_path), "--max-layer-bytes", "12000000", "--layer-eviction", "lru")
    w = np.random.default_rng(0).standard_normal((1500, 1500)).astype("f4")
    content = ({"weight": w}, {}, w[:1])
    ended = threading.Event()
    answered = [0, 0, 0]
    rounds = 0

    def work(i):
        nonlocal rounds
        own = requests.Session()
        try:
            if i == 0:
                for _ in range(200):
                    before = answered[1:]
                    for path in ("/livez", "/v1/layers"):
                        assert own.get(server.url + path, timeout=60).status_code == 200
                    rounds += answered[1:] == before
                return
            while not ended.is_set():
                # There is room for one at a time: whoever comes while it is taken tries again.
                assert put(server.url, f"large{i}", content, own).status_code in (200, 201, 503)
                answered[i] += 1
                assert ask(server.url, f"large{i % 2 + 1}", content[2], own).status_code in (200, 404, 503)
        finally:
            if i == 0:
                ended.set()

    with_threads(3, work)
    # A layer takes some hundred times as long to make, and its file to be written: most rounds are
    # over before one is.
    assert rounds > 50, rounds


@pytest.mark.parametrize("scheme", ["int8_per_channel", "int4_per_channel", "int4_g32", "uint4_g128", "whole"])
def test_the_size_of_a_layer_does_not_depend_on_the_machine(start, scheme):
    """The memory that it takes here does: instructions decide how weights are packed."""
    w = seeded("size").normal(size=(33, 160)).astype("f4")
    answers = []
    fields = {"signed": False, "granularity": "tensor"} if scheme == "whole" else scheme
    for isa in Client(start().url).request("get", "/info").json()["isa_available"]:
        client = Client(start("--isa", isa).url)
        doc = make(client, "sized", weight=tensor_json(w) | {"scheme": fields}, bias=[0.5] * 33)
        listed = client.request("get", "/v1/layers").json()
        assert listed["memory_bytes"] == doc["memory"].pop("memory_bytes") > 0
        assert listed["held_bytes"] == doc["memory"]["held_bytes"]
        judged = client.post("/v1/layers/sized/evaluate", tensor_json(w[:2])).json()
        assert judged["memory"].pop("memory_bytes") == listed["memory_bytes"]
        assert judged["memory"] == doc["memory"]
        answers.append((doc, listed["held_bytes"], judged["compression_ratio"]))
    assert all(answer == answers[0] for answer in answers)
    bits = 4 if "4" in scheme.split("_")[0] else 8
    groups = {"int4_g32": 5, "uint4_g128": 2}.get(scheme, 1)
    scales = 1 if scheme == "whole" else 33 * groups
    packed = 33 * 160 * bits // 8 + 4 * scales + scales * (scheme in ("whole", "uint4_g128")) + 4 * 33
    memory = answers[0][0]["memory"]
    assert memory == {"packed_bytes": packed, "float_bytes": 4 * 33 * 161, "held_bytes": packed + 4 * 33 * 160}
    assert answers[0][2] == pytest.approx(memory["float_bytes"] / packed)
