"""Every command of README.md marked with `<!-- run -->` does what the page says."""

import re
import subprocess

import numpy as np
import pytest

from server import ROOT

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"<!-- run -->\s*```(?:bash|sh)\n(.*?)```", TEXT, re.S)


def test_there_are_examples():
    assert len(BLOCKS) >= 5
    assert all("curl" in block for block in BLOCKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run: later ones read what earlier ones wrote."""
    folder = tmp_path_factory.mktemp("examples")
    x = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32)
    np.save(folder / "w.npy", x)
    x.tofile(folder / "w.f32")
    return folder


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_examples(server, folder, number):
    block = BLOCKS[number].replace("localhost:8080", f"{server.host}:{server.port}")
    # An HTTP error makes curl fail, as `curl -f` would at a prompt.
    block = "set -euo pipefail\ncurl() { command curl --fail-with-body -sS \"$@\"; }\n" + block
    done = subprocess.run(
        ["bash", "-c", block], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{BLOCKS[number]}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
