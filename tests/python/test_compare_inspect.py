"""The two operations that help to choose a scheme."""

import numpy as np
import pytest

from client import JSON, NPY, RAW, SAFETENSORS, encode, nested

X = np.random.default_rng(9).standard_t(4, (32, 64)).astype(np.float32)


def test_a_sweep_is_sorted_and_marks_its_front(client):
    for sort, key, sign in (("sqnr", "sqnr_db", -1), ("bits", "bits_per_element", 1), ("mse", "mse", 1)):
        response = client.post("/v1/compare", {"data": nested(X), "sort": sort})
        assert response.status_code == 200, response.text
        rows = response.json()["results"]
        assert len(rows) >= 12
        figures = [sign * row["report"][key] for row in rows]
        assert figures == sorted(figures)
        points = [(row["report"]["bits_per_element"], row["report"]["mse"]) for row in rows]
        for row, (bits, mse) in zip(rows, points):
            beaten = any(b <= bits and m <= mse and (b, m) != (bits, mse) for b, m in points)
            assert row["pareto"] == (not beaten), row["name"]


def test_a_comparison_reports_what_quantize_reports(client):
    schemes = ["int8", {"bits": 4, "granularity": "channel", "axis": 1, "range": "mse"}, "uint4_g128"]
    rows = client.post("/v1/compare", {"data": nested(X), "schemes": schemes}).json()["results"]
    assert len(rows) == 3
    by_name = {row["name"]: row for row in rows}
    for name in ("int8", "uint4_g128"):
        assert by_name[name]["report"] == client.quantize(X, name).report
    (other,) = (row for row in rows if row["name"] not in schemes)
    assert other["report"] == client.quantize(X, schemes[1]).report
    assert other["scheme"] == client.quantize(X, schemes[1]).scheme


@pytest.mark.parametrize("kind", [NPY, RAW, SAFETENSORS])
def test_binary_bodies(client, kind):
    params = {"dtype": "F32", "shape": "32,64"} if kind == RAW else {}
    body = encode(X, kind)
    answer = client.post(
        "/v1/compare", body, kind=kind, params=params | {"schemes": "int8,int4_g128", "sort": "bits"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == JSON
    assert [row["name"] for row in answer.json()["results"]] == ["int4_g128", "int8"]
    answer = client.post("/v1/inspect", body, kind=kind, params=params | {"bins": 10})
    assert len(answer.json()["statistics"]["histogram"]["counts"]) == 10
    assert answer.json()["shape"] == [32, 64]


def test_statistics_are_numpys(client):
    percentiles = [0, 1, 50, 99.5, 100]
    body = {"data": nested(X), "bins": 37, "percentiles": percentiles, "granularity": "channel", "axis": 0}
    answer = client.post("/v1/inspect", body).json()
    check_statistics(answer["statistics"], X.ravel(), percentiles, 37)
    assert len(answer["slices"]) == 32
    for part, row in zip(answer["slices"], X):
        check_statistics(part, row, percentiles, 37)


def check_statistics(found, x, percentiles, bins):
    x = x.astype(np.float64)
    assert (found["count"], found["nan"], found["inf"]) == (x.size, 0, 0)
    assert (found["min"], found["max"]) == (x.min(), x.max())
    assert found["abs_max"] == np.abs(x).max()
    assert found["mean"] == pytest.approx(x.mean(), rel=1e-9)
    assert found["std"] == pytest.approx(x.std(), rel=1e-9)
    assert [item["p"] for item in found["percentiles"]] == percentiles
    values = [item["value"] for item in found["percentiles"]]
    assert values == pytest.approx(np.percentile(x, percentiles).tolist(), rel=1e-6)
    counts, edges = found["histogram"]["counts"], found["histogram"]["edges"]
    expected, _ = np.histogram(x, bins=bins)
    assert sum(counts) == x.size and len(edges) == bins + 1
    assert edges == pytest.approx(np.linspace(x.min(), x.max(), bins + 1).tolist(), rel=1e-6, abs=1e-9)
    assert np.abs(np.array(counts) - expected).sum() <= 4


def test_statistics_of_odd_tensors(client):
    x = np.array([np.nan, np.inf, -np.inf, 0, 2], np.float32)
    found = client.post("/v1/inspect", {"data": nested(x)}).json()["statistics"]
    assert (found["count"], found["nan"], found["inf"], found["zeros"]) == (5, 1, 2, 1)
    assert (found["min"], found["max"], found["mean"]) == (0, 2, 1)
    for data in ([], [5, 5, 5], ["NaN"], 7):
        answer = client.post("/v1/inspect", {"data": data})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("bins", [0, -1, 4097, 1.5, "8", True, 2**63])
def test_bins_are_bounded(client, bins):
    answer = client.post("/v1/inspect", {"data": [1, 2], "bins": bins})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/bins"
