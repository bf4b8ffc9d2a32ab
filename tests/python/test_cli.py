"""The command line: the same core offline, the document, the health check, the flags."""

import json
import os
import re
import subprocess

import numpy as np
import pytest

from client import NPY, SAFETENSORS, npy_bytes, read_safetensors, write_safetensors
from server import ROOT, Server, binary, clean_environment


def run(*arguments, env=None, timeout=60):
    return subprocess.run(
        [str(binary()), *map(str, arguments)],
        capture_output=True,
        env=clean_environment(**(env or {})),
        timeout=timeout,
        check=False,
    )


def test_the_document_is_the_one_checked_in(client):
    """On a difference: `cargo run -- openapi > openapi/quantd.json`, and look at the diff."""
    printed = run("openapi")
    assert printed.returncode == 0
    assert printed.stdout == (ROOT / "openapi/quantd.json").read_bytes(), (
        "regenerate it: cargo run -- openapi > openapi/quantd.json"
    )
    assert json.loads(printed.stdout) == client.request("GET", "/openapi.json").json()


def test_the_document_describes_everything(client):
    document = client.request("GET", "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    ids = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            ids.append(operation["operationId"])
            assert operation["tags"], path
            if path.startswith("/v1") and method == "post":
                assert {"400", "413", "415", "422", "503"} <= set(operation["responses"])
                assert {"200", "201"} & set(operation["responses"])
                kinds = {"application/json"}
                if path not in ("/v1/calibrators", "/v1/calibrators/{name}/merge"):  # They take no tensor.
                    kinds |= {SAFETENSORS}
                    if path != "/v1/matmul":  # It takes two tensors: the other types hold one.
                        kinds |= {NPY, "application/octet-stream"}
                for kind in kinds:
                    assert kind in operation["requestBody"]["content"], (path, kind)
    assert len(ids) == len(set(ids))
    assert {"quantize", "dequantize", "compare", "inspect", "matmul"} <= set(ids)


def test_every_reference_of_the_document_leads_somewhere(client):
    document = client.request("GET", "/openapi.json").json()
    found = set(re.findall(r'"\$ref": "#/components/(\w+)/([^"]+)"', json.dumps(document)))
    missing = [name for kind, name in found if name not in document["components"].get(kind, {})]
    assert not missing, f"schemas that are named but not there: {missing}"


def test_examples_of_the_document_run(client):
    document = client.request("GET", "/openapi.json").json()
    count = 0
    client.request("DELETE", "/v1/layers/fc1")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            examples = [item["value"] for item in content.get("examples", {}).values()]
            examples += [content["example"]] if "example" in content else []
            for example in examples:
                # What the example before has made.
                name = "fc1" if path.startswith("/v1/layers") else "activations"
                path_of_it = path.replace("{name}", name)
                for parameter in operation.get("parameters", []):
                    path_of_it = path_of_it.replace("{%s}" % parameter["name"], str(parameter.get("example")))
                example = {key: value for key, value in example.items() if method == "post" or key != "name"}
                answer = client.request(method, path_of_it, json=example)
                assert answer.status_code in (200, 201), (path, answer.text)
                count += 1
    assert count >= 4
    client.request("DELETE", "/v1/calibrators/activations")


def test_health_checks(start):
    server = start("--log-level", "error")
    assert run("healthcheck", "--port", server.port).returncode == 0
    assert run("healthcheck", env={"QUANTD_PORT": str(server.port)}).returncode == 0
    assert server.stop() == 0
    failed = run("healthcheck", "--port", server.port)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize("packed", [False, True])
def test_offline_equals_online(client, tmp_path, packed):
    x = np.random.default_rng(8).standard_normal((33, 65)).astype(np.float32)
    fields = {"bits": 4, "granularity": "group", "group_size": 32, "packed": str(packed).lower()}
    settings = [part for name, value in fields.items() for part in ("-s", f"{name}={value}")]
    for name, body, kind in (
        ("in.npy", npy_bytes(x), NPY),
        ("in.safetensors", write_safetensors({"w": x, "b": x[0]}), SAFETENSORS),
    ):
        source, out = tmp_path / name, tmp_path / "out.safetensors"
        source.write_bytes(body)
        done = run("quantize", source, "-o", out, *settings)
        assert done.returncode == 0, done.stderr
        online = client.post("/v1/quantize", body, kind=kind, params=fields)
        assert out.read_bytes() == online.content
        done = run("quantize", source, "-o", out, "--scheme", "int8")
        assert done.returncode == 0, done.stderr
        online = client.post("/v1/quantize", body, kind=kind, params={"preset": "int8"})
        assert read_safetensors(out.read_bytes())[1] == read_safetensors(online.content)[1]
        assert out.read_bytes() == online.content


def test_outputs_are_of_the_format_that_their_names_say(client, tmp_path):
    x = np.random.default_rng(9).standard_normal((8, 16)).astype(np.float32)
    source = tmp_path / "in.npy"
    source.write_bytes(npy_bytes(x))
    for name, kind in (
        ("out.npy", NPY),
        ("out.safetensors", SAFETENSORS),
        ("out.json", "application/json"),
        ("out.bin", "application/octet-stream"),
    ):
        out = tmp_path / name
        for verb, body in (("quantize", source.read_bytes()), ("dequantize", None)):
            given = source
            if body is None:
                given = tmp_path / "codes.safetensors"
                assert run("quantize", source, "-o", given, "-q", "-s", "bits=6").returncode == 0
                body = given.read_bytes()
            settings = ["-s", "bits=6"] if verb == "quantize" else []
            done = run(verb, given, "-o", out, *settings)
            assert done.returncode == 0, done.stderr
            online = client.post(
                f"/v1/{verb}",
                body,
                kind=NPY if verb == "quantize" else SAFETENSORS,
                params={"bits": 6} if verb == "quantize" else {},
                headers={"accept": kind},
            )
            assert out.read_bytes() == online.content, (verb, name)
            # What a bare tensor cannot carry is told.
            if verb == "quantize" and name in ("out.npy", "out.bin"):
                assert f"scale: {online.headers['quantd-scale']}" in done.stdout.decode()
    failed = run("quantize", source, "-o", tmp_path / "out.txt")
    assert failed.returncode == 2 and not (tmp_path / "out.txt").exists()
    check_one_line(failed)
    assert run("quantize", source, "-o", tmp_path / "out.txt", "--format", "raw").returncode == 0
    assert len((tmp_path / "out.txt").read_bytes()) == x.size


def test_success_is_reported_and_quiet_is_not(tmp_path):
    source, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    source.write_bytes(write_safetensors({"fc.weight": np.eye(3, dtype=np.float32), "b": np.ones(3, np.float32)}))
    done = run("quantize", source, "-o", out)
    lines = done.stdout.decode().splitlines()
    assert lines[0].split()[0] == "tensor" and "SQNR" in lines[0]
    assert lines[1].split()[0] == "fc.weight"
    assert lines[2:] == ["1 tensor passed as it is", f"wrote {out} ({len(out.read_bytes())} bytes)"]
    done = run("quantize", source, "-o", out, "-s", "include=b,fc*")
    lines = done.stdout.decode().splitlines()
    assert {line.split()[0] for line in lines[1:3]} == {"fc.weight", "b"}
    assert lines[3] == f"wrote {out} ({len(out.read_bytes())} bytes)"
    done = run("quantize", source, "-o", out, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_checkpoint_is_taken_as_a_whole(tmp_path):
    source, out, back = (tmp_path / f"{name}.safetensors" for name in ("in", "out", "back"))
    x = np.random.default_rng(13).standard_normal((8, 16)).astype(np.float32)
    tensors = {"ids": np.arange(8)[None], "fc.weight": x, "fc.bias": x[0], "norm.weight": x[1], "head.weight": x}
    source.write_bytes(write_safetensors(tensors))
    for verb, given, made, options in (
        ("quantize", source, out, ["-s", "exclude=head.*"]),
        ("dequantize", out, back, []),
    ):
        done = run(verb, given, "-o", made, *options)
        assert done.returncode == 0, done.stderr
        assert "4 tensors passed as they are" in done.stdout.decode().splitlines()
    restored, _ = read_safetensors(back.read_bytes())
    assert set(restored) == set(tensors)
    for name, expect in tensors.items():
        if name != "fc.weight":
            assert restored[name].tobytes() == expect.tobytes() and restored[name].dtype == expect.dtype
    done = run("compare", source, "-s", "exclude=head.*", "-s", "schemes=int8")
    assert done.returncode == 0 and done.stdout.decode().splitlines()[-1] == "4 tensors passed as they are"
    done = run("compare", source)
    assert done.returncode == 2 and b"include" in done.stderr
    done = run("inspect", source, "-s", "include=ids")
    assert done.returncode == 0 and done.stdout.startswith(b"I64 [1,8]")
    done = run("quantize", source, "-o", out, "-s", "include=fc.wieght")
    assert done.returncode == 2 and b"did you mean fc.weight?" in done.stderr


def test_standard_streams_are_files_called_dash(tmp_path):
    source, out = tmp_path / "in.npy", tmp_path / "out.safetensors"
    source.write_bytes(npy_bytes(np.linspace(-1, 1, 64, dtype=np.float32)))
    assert run("quantize", source, "-o", out).returncode == 0
    with source.open("rb") as stream:
        piped = subprocess.run(
            [str(binary()), "quantize", "-", "-o", "-"], stdin=stream, capture_output=True, env=clean_environment()
        )
    assert piped.returncode == 0 and piped.stdout == out.read_bytes()
    # The report must not come between the bytes.
    assert b"SQNR" in piped.stderr


def test_looking_offline_equals_looking_online(client, tmp_path):
    x = np.random.default_rng(10).standard_normal((4, 32)).astype(np.float32)
    source = tmp_path / "in.npy"
    source.write_bytes(npy_bytes(x))
    for verb, fields in (("compare", {"schemes": "int8,int4_g32", "sort": "bits"}), ("inspect", {"bins": 4, "axis": 0})):
        settings = [part for name, value in fields.items() for part in ("-s", f"{name}={value}")]
        online = client.post(f"/v1/{verb}", source.read_bytes(), kind=NPY, params=fields)
        printed = run(verb, source, "--json", *settings)
        assert printed.returncode == 0 and json.loads(printed.stdout) == online.json()
        table = run(verb, source, *settings)
        assert table.returncode == 0, table.stderr
        lines = table.stdout.decode().splitlines()
        if verb == "compare":
            assert [line.split()[0] for line in lines[1:]] == [row["name"] for row in online.json()["results"]]
        else:
            rows = [line.split() for line in lines if line.split()[:1] in (["all"], ["0"], ["3"])]
            assert [row[1] for row in rows] == ["128", "32", "32"]


def test_samples_are_the_same_everywhere(client, tmp_path):
    for name in ("weights", "outliers", "kernel", "activations"):
        for extension, kind in (("npy", NPY), ("safetensors", SAFETENSORS), ("json", "application/json")):
            out = tmp_path / f"{name}.{extension}"
            assert run("sample", name, "-o", out).returncode == 0
            online = client.request("GET", f"/v1/samples/{name}", headers={"accept": kind})
            assert online.status_code == 200 and out.read_bytes() == online.content
        x = np.load(tmp_path / f"{name}.npy")
        answer = client.post("/v1/quantize", (tmp_path / f"{name}.json").read_bytes(), kind="application/json")
        assert answer.json()["shape"] == list(x.shape)
    # A file, for those who ask for nothing.
    plain = client.request("GET", "/v1/samples/weights", headers={"accept": "*/*"})
    assert plain.headers["content-type"] == NPY
    missing = client.request("GET", "/v1/samples/weight")
    assert missing.status_code == 404 and "weights, outliers" in missing.json()["cure"]
    failed = run("sample", "weight", "-o", tmp_path / "w.npy")
    assert failed.returncode == 2 and b"weights" in failed.stderr


def test_a_reader_that_has_seen_enough_is_no_failure():
    command = f"{binary()} openapi | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=clean_environment(), timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"{\n", b"")


def test_help_names_presets_and_instruction_sets():
    text = run("quantize", "--help").stdout.decode()
    for word in ("int8_per_channel", "uint4_g128", "scalar", "auto"):
        assert word in text, word


def test_links_and_pipes_are_written_through(tmp_path):
    source, out = tmp_path / "in.npy", tmp_path / "out.safetensors"
    link, pipe = tmp_path / "link.safetensors", tmp_path / "pipe"
    source.write_bytes(npy_bytes(np.arange(12, dtype=np.float32)))
    out.write_bytes(b"old")
    link.symlink_to(out)
    assert run("quantize", source, "-o", link).returncode == 0
    assert link.is_symlink() and read_safetensors(out.read_bytes())[0]["codes"].shape == (12,)
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert run("quantize", source, "-o", pipe).returncode == 0
        assert reader.stdout.read() == out.read_bytes()
    assert pipe.is_fifo()


def test_offline_failures_are_one_line(tmp_path):
    source, out = tmp_path / "in.npy", tmp_path / "out.safetensors"
    source.write_bytes(npy_bytes(np.ones(4, np.float32)))
    for arguments, code in (
        (["-s", "bits=99"], 2),
        (["-s", "bitz=8"], 2),
        (["-s", "nonsense"], 2),
        (["--scheme", "int9"], 2),
    ):
        failed = run("quantize", source, "-o", out, *arguments)
        assert failed.returncode == code, failed.stderr
        assert len(failed.stderr.splitlines()) == 1, failed.stderr
        assert not out.exists() and list(tmp_path.iterdir()) == [source]
    before = source.read_bytes()
    failed = run("quantize", source, "-o", tmp_path / "." / "in.npy")
    assert failed.returncode == 2 and source.read_bytes() == before
    assert b"output is the input" in failed.stderr and len(failed.stderr.splitlines()) == 1
    failed = run("quantize", tmp_path / "missing.npy", "-o", out)
    assert failed.returncode == 1
    assert failed.stderr.decode() == f"quantd: cannot read {tmp_path}/missing.npy: No such file or directory\n"
    source.write_bytes(b"\x93NUMPY nonsense")
    failed = run("quantize", source, "-o", out)
    assert failed.returncode in (1, 2) and len(failed.stderr.splitlines()) == 1
    assert not out.exists()


def flags():
    """Every flag of serve with its environment variable and default."""
    text = run("serve", "--help").stdout.decode()
    # A flag's paragraph reaches to the next one; long help wraps.
    parts = re.split(r"\n(?= +(?:-\w, )?--)", text)
    found = {}
    for part in parts[1:]:
        name = re.search(r"--([a-z-]+)", part)[1]
        env = re.search(r"\[env: (\w+)", part)
        default = re.search(r"\[default: ([^\]]*)\]", part)
        found[name] = (env and env[1], default and default[1])
    return {name: value for name, value in found.items() if name not in ("help", "version")}


def test_every_flag_has_a_variable():
    assert len(flags()) >= 18
    for name, (env, _) in flags().items():
        assert env == "QUANTD_" + name.upper().replace("-", "_"), name
    bare = run("--help").stdout.decode()
    for verb in ("serve", "openapi", "healthcheck", "quantize", "dequantize", "compare", "inspect", "sample"):
        assert re.search(rf"^\s+{verb}\b", bare, re.M), verb


def test_the_documents_list_every_flag():
    text = (ROOT / "docs/CONFIGURATION.md").read_text()
    for name, (env, default) in flags().items():
        row = re.search(rf"^\| `--{name}` \| `{env}` \| (.*?) \|", text, re.M)
        assert row, f"docs/CONFIGURATION.md has no row for --{name} and {env}"
        assert default is None or f"`{default}`" in row[1], (name, default, row[1])


def test_environment_and_flags_say_the_same():
    server = Server("--log-level", "error", env={"QUANTD_MAX_TENSORS": "7", "QUANTD_THREADS": "1"})
    try:
        import requests

        info = requests.get(server.url + "/info", timeout=10).json()
        assert info["limits"]["max_tensors"] == 7 and info["threads"] == 1
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "99999"],
        ["--port", "x"],
        ["--host", "nonsense"],
        ["--max-body-bytes", "-1"],
        ["--max-body-bytes", "1"],
        ["--log-format", "xml"],
        ["--log-level", "loud"],
        ["--cors-origin", "https://a.example/path"],
        ["--cors-origin", "a.example"],
        ["--api-key", ""],
        ["--no-such-flag"],
        ["no-such-verb"],
    ],
    ids=" ".join,
)
def test_wrong_flags_exit_with_2(arguments):
    failed = run(*arguments, timeout=5)
    assert failed.returncode == 2
    check_one_line(failed)


def check_one_line(failed):
    text = failed.stderr.decode()
    assert len(text.splitlines()) == 1 and text.startswith("quantd: "), text


@pytest.mark.parametrize(
    "name, value",
    [
        ("QUANTD_PORT", "many"),
        ("QUANTD_API_KEY", ""),
        ("QUANTD_MAX_BODY", "1000000"),
        ("QUANTD_THREADS", "many"),
    ],
)
def test_wrong_variables_exit_with_2(name, value):
    failed = run("--port", "0", env={name: value}, timeout=5) if name != "QUANTD_PORT" else run(env={name: value}, timeout=5)
    assert failed.returncode == 2
    check_one_line(failed)


def test_a_taken_port_is_one_line_and_exit_2(server):
    failed = run("--port", server.port, timeout=10)
    assert failed.returncode == 2
    assert len(failed.stderr.splitlines()) == 1, failed.stderr


def test_logs_are_json_where_asked(start):
    server = start("--log-format", "json", "--log-level", "info")
    import requests

    requests.post(server.url + "/v1/quantize", json={"data": [1, 2]}, timeout=10)
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log]
    assert any("/v1/quantize" in json.dumps(line) for line in lines)
