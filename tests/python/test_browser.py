"""Swagger UI as a person uses it; see tests/browser/swagger.mjs."""

import os
import shutil
import subprocess

import pytest

from server import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MODULES = ROOT / "tests/browser/node_modules"
NEEDED = os.environ.get("TEST_BROWSER") == "required"


def test_swagger_ui(server, tmp_path):
    node = shutil.which("node")
    if not NEEDED and not (CHROMIUM and node and MODULES.exists()):
        pytest.skip("needs chromium, node, and npm ci in tests/browser")
    done = subprocess.run(
        [node, "swagger.mjs", server.url, CHROMIUM, str(tmp_path)],
        cwd=ROOT / "tests/browser",
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "tried.png").stat().st_size > 10_000
