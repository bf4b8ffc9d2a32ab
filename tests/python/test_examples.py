"""Every command of README and docs marked with `<!-- run -->` does what the page says, in an empty folder, as printed."""

import os
import re
import subprocess
import sys

import pytest

from server import ROOT, Server, binary, clean_environment

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# The second word says that the commands need `quantd` on the path beside a server.
MARKED = r"<!-- run( with quantd)? -->\s*```(bash|python)\n(.*?)```"
BLOCKS = [(page, *found) for page in PAGES for found in re.findall(MARKED, page.read_text(), re.S)]


def test_there_are_examples():
    assert sum("curl" in block for _, _, _, block in BLOCKS) >= 10
    assert any(language == "python" for _, _, language, _ in BLOCKS)
    assert any(command_line for _, command_line, _, _ in BLOCKS)
    for page in PAGES:
        unmarked = re.sub(MARKED, "", page.read_text(), flags=re.S)
        assert "curl -s" not in unmarked, f"{page.name} has a command that no test runs"


def test_what_is_written_to_a_file_is_an_answer():
    """Without -f, curl saves a problem document under the name of the answer."""
    for _, _, _, block in BLOCKS:
        for command in re.findall(r"curl (?:[^\n]|\\\n)*", block):
            assert " -o " not in command or " -sSf " in command, command


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """An empty folder for each page, and a server as README starts it, but for its port."""
    folders = {page: tmp_path_factory.mktemp(page.stem) for page in PAGES}
    path = tmp_path_factory.mktemp("path")
    (path / "quantd").symlink_to(binary())
    server = Server()
    environment = clean_environment(PATH=f"{path}{os.pathsep}{os.environ['PATH']}")
    yield folders, server, environment
    assert server.stop() == 0


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples(newcomer, number):
    """In the order of each page: later ones read what earlier ones wrote."""
    folders, server, environment = newcomer
    page, _, language, block = BLOCKS[number]
    block = block.replace("localhost:8080", f"{server.host}:{server.port}")
    # Where it prints a problem, a person would see that; here it must fail.
    fail = 'curl() { case " $* " in *" -sSf "*) command curl "$@";; *) command curl --fail-with-body "$@";; esac; }'
    command = ["bash", "-c", f"set -euo pipefail\n{fail}\n{block}"] if language == "bash" else [sys.executable, "-c", block]
    done = subprocess.run(
        command, cwd=folders[page], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_tables_of_options_are_those_of_the_document():
    subprocess.run([ROOT / "scripts/options-page", "--check"], check=True)
