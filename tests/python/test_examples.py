"""Every command of README.md marked with `<!-- run -->` does what the page says, in an empty folder, as printed."""

import os
import re
import subprocess

import pytest

from server import ROOT, Server, binary, clean_environment

TEXT = (ROOT / "README.md").read_text()
# The second word says that the commands need `quantd` on the path beside a server.
BLOCKS = re.findall(r"<!-- run( with quantd)? -->\s*```(?:bash|sh)\n(.*?)```", TEXT, re.S)


def test_there_are_examples():
    assert sum("curl" in block for _, block in BLOCKS) >= 10
    assert any(command_line for command_line, _ in BLOCKS)
    unmarked = re.sub(r"<!-- run( with quantd)? -->\s*```.*?```", "", TEXT, flags=re.S)
    assert "curl -s" not in unmarked.replace("curl -sS", "curl -s"), "a command that no test runs"


def test_what_is_written_to_a_file_is_an_answer():
    """Without -f, curl saves a problem document under the name of the answer."""
    for _, block in BLOCKS:
        for command in re.findall(r"curl (?:[^\n]|\\\n)*", block):
            assert " -o " not in command or " -sSf " in command, command


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """An empty folder, and a server as the README starts it, but for its port."""
    folder = tmp_path_factory.mktemp("empty")
    path = tmp_path_factory.mktemp("path")
    (path / "quantd").symlink_to(binary())
    server = Server()
    environment = clean_environment(PATH=f"{path}{os.pathsep}{os.environ['PATH']}")
    yield folder, server, environment
    assert server.stop() == 0


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples(newcomer, number):
    """In the order of the page: later ones read what earlier ones wrote."""
    folder, server, environment = newcomer
    _, block = BLOCKS[number]
    block = block.replace("localhost:8080", f"{server.host}:{server.port}")
    # Where it prints a problem, a person would see that; here it must fail.
    fail = 'curl() { case " $* " in *" -sSf "*) command curl "$@";; *) command curl --fail-with-body "$@";; esac; }'
    block = f"set -euo pipefail\n{fail}\n{block}"
    done = subprocess.run(
        ["bash", "-c", block], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
