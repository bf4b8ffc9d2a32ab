"""The worked example: a model of real data, hosted with each scheme, is as good as it was."""

import importlib.util

import pytest

from server import ROOT

PATH = ROOT / "examples/digits/digits.py"


@pytest.fixture(scope="module")
def result(server, tmp_path_factory):
    """What the example finds, with the example."""
    spec = importlib.util.spec_from_file_location("digits", PATH)
    digits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(digits)
    accuracy, rows = digits.run(server.url, tmp_path_factory.mktemp("digits"))
    return digits, accuracy, {(row.weights, row.activations): row for row in rows}


def test_the_table(result, capsys):
    digits, accuracy, rows = result
    assert accuracy > 95
    assert len(rows) == len(digits.WEIGHTS) * len(digits.ACTIVATIONS) == 15
    with capsys.disabled():
        print("\n" + digits.table(accuracy, rows.values()))


@pytest.mark.parametrize(
    ("weights", "points"), [("int8 per channel", 0.3), ("int8 per tensor", 0.5), ("int4 g32", 1.5)]
)
@pytest.mark.parametrize("activations", ["calibrated", "dynamic"])
def test_accuracy_is_kept(result, weights, activations, points):
    _, accuracy, rows = result
    row = rows[weights, activations]
    assert abs(row.difference) <= points
    assert row.accuracy == pytest.approx(accuracy + row.difference)


def test_calibrated_beats_guessed(result):
    digits, _, rows = result
    for weights in digits.WEIGHTS:
        calibrated, guessed = rows[weights, "calibrated"], rows[weights, "guessed"]
        assert calibrated.accuracy >= guessed.accuracy + 2, weights
        assert calibrated.sqnr_db >= guessed.sqnr_db + 5, weights


def test_finer_scales_lose_less(result):
    _, _, rows = result
    for activations in ("calibrated", "dynamic"):
        for bits in ("int8", "int4"):
            fine, coarse = rows[f"{bits} per channel", activations], rows[f"{bits} per tensor", activations]
            assert fine.sqnr_db > coarse.sqnr_db, (bits, activations)
        assert rows["int4 g32", activations].sqnr_db > rows["int4 per channel", activations].sqnr_db
        assert rows["int8 per tensor", activations].sqnr_db > rows["int4 g32", activations].sqnr_db


def test_the_server_is_left_as_it_was(result, client):
    for kind in ("layers", "calibrators"):
        listed = client.request("GET", f"/v1/{kind}").json()[kind]
        assert not [item["name"] for item in listed if item["name"].startswith("digits")]
