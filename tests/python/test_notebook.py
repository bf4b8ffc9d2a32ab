"""The figures of the teaching notebook, to 1e-12, through every way in."""

import json

import numpy as np
import pytest

from client import JSON, NPY, RAW, SAFETENSORS
from server import ROOT

GOLDEN = json.loads((ROOT / "tests/golden/seed_notebook.json").read_text())
X = np.array(GOLDEN["x"], dtype=np.float64)
CASES = {
    "asymmetric_uint8": {"bits": 8, "signed": False, "symmetric": False},
    "symmetric_int8_restricted": {"bits": 8, "signed": True, "symmetric": True},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", [JSON, NPY, RAW, SAFETENSORS])
@pytest.mark.parametrize("accept", [JSON, SAFETENSORS])
def test_figures(client, name, kind, accept):
    golden = GOLDEN[name]
    result = client.quantize(X, CASES[name], kind=kind, accept=accept)
    assert result.codes.tolist() == golden["codes"]
    assert result.zero_point == golden.get("zero_point", 0)
    assert result.scale.dtype == np.float64
    assert result.scale == pytest.approx(golden["scale"], rel=1e-12, abs=0)
    assert result.report["mse"] == pytest.approx(golden["mse"], rel=1e-12, abs=0)
    assert result.scheme["restricted"] == (name == "symmetric_int8_restricted")


@pytest.mark.parametrize("name", CASES)
def test_restored_values(client, name):
    response = client.post("/v1/quantize", {"data": X.tolist(), "dtype": "F64", "scheme": CASES[name]})
    restored = client.dequantize(response)
    assert restored.dtype == np.float64
    np.testing.assert_allclose(restored, GOLDEN[name]["dequantized"], atol=5e-9, rtol=0)
    body = response.json()
    exact = (np.array(body["codes"]) - body["zero_point"]) * body["scale"]
    assert np.array_equal(restored, exact)


def test_the_outlier_lesson(client):
    """Min-max ruins every value for the outlier's sake; the percentile gives the outlier up."""
    golden = GOLDEN["outlier_demonstration"]
    x = np.round(np.random.default_rng(7).uniform(-50, 150, 10_000), 2)
    x[-1] = 1000
    base = {"bits": 8, "signed": False}
    all_of_it = client.quantize(x, base).report
    cut = client.quantize(x, base | {"range": "percentile", "percentile": 99.99}).report
    assert all_of_it["mse"] == pytest.approx(golden["minmax_mse_without_outlier"], rel=0.1)
    assert all_of_it["mse_clipped"] == 0
    # Nearly all of the second error is the outlier's, and the report says so.
    assert cut["mse"] == pytest.approx(golden["percentile_mse_with_outlier"], rel=0.1)
    assert cut["mse_rounded"] == pytest.approx(golden["percentile_mse_without_outlier"], rel=0.2)
    assert cut["clipped"] >= 1
    assert cut["mse_clipped"] + cut["mse_rounded"] == pytest.approx(cut["mse"], rel=1e-12)
