"""Ranges learnt over batches, against NumPy, ONNX Runtime and the formulas of PyTorch."""

import concurrent.futures
import itertools
import json

import ml_dtypes
import numpy as np
import pytest
from onnxruntime.quantization.calibrate import HistogramCollector, MinMaxCalibrater, TensorData, TensorsData

from client import JSON, NPY, RAW, SAFETENSORS, check_problem, encode, nested, query, tensor_json
from reference import Codes, decode, parameters
from reference import encode as codes_of

BINS = 2048
NAMES = (f"c{i}" for i in itertools.count())
INT8 = Codes(8, True, True, True)
UINT8 = Codes(8, False, False, False)


@pytest.fixture
def make(client):
    """Makes calibrators that are gone after the test."""
    made = []

    def make(name=None, **options):
        name = name or next(NAMES)
        response = client.post("/v1/calibrators", {"name": name} | options)
        assert response.status_code == 201, response.text
        assert response.headers["location"] == f"/v1/calibrators/{name}"
        made.append(name)
        return name

    yield make
    for name in made:
        client.request("DELETE", f"/v1/calibrators/{name}")


def feed(client, name, x, kind=JSON, **options):
    path = f"/v1/calibrators/{name}/batches"
    if kind == JSON:
        response = client.post(path, tensor_json(x) | options)
    else:
        params = options | ({"dtype": "F32", "shape": list(x.shape)} if kind == RAW else {})
        response = client.post(path, encode(x, kind), kind=kind, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def describe(client, name, **params):
    params = {key: query(value) for key, value in params.items()}
    response = client.request("GET", f"/v1/calibrators/{name}", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def export(client, name):
    response = client.request("GET", f"/v1/calibrators/{name}/export")
    assert response.status_code == 200, response.text
    return response.json()


def batches(seed=0, count=5, shape=(64, 16)):
    rng = np.random.default_rng(seed)
    # Wider as they go, so that histograms widen.
    return [(rng.standard_t(4, shape) * 1.7**i).astype(np.float32) for i in range(count)]


def bin_width(x):
    """The width of the bins that docs/NUMERICS.md gives for these numbers."""
    amax = np.abs(x[np.isfinite(x)]).max()
    width = 2.0**-149
    while amax >= BINS * width:
        width *= 2
    return width


@pytest.mark.parametrize("kind", [JSON, NPY, RAW, SAFETENSORS])
def test_min_max_over_batches_is_that_of_all_elements(client, make, kind):
    name = make(range="min_max", scheme="uint8")
    for i, x in enumerate(batches()):
        answer = feed(client, name, x, kind)
        seen = np.concatenate(batches()[: i + 1])
        assert (answer["batches"], answer["elements"]) == (i + 1, seen.size)
        assert (answer["min"], answer["max"]) == (seen.min(), seen.max())
    found = describe(client, name)
    whole = client.quantize(seen, "uint8")
    assert np.float32(found["scale"]) == whole.scale
    assert found["zero_point"] == whole.zero_point
    assert (found["observed_min"], found["observed_max"]) == (seen.min(), seen.max())


def test_channels(client, make):
    name = make(range="min_max", granularity="channel", axis=-1)
    for x in batches():
        feed(client, name, x)
    seen = np.concatenate(batches())
    for preset in ("int8_per_channel", "uint8", "int4"):
        found = describe(client, name, preset=preset)
        assert found["slices"] == 16
        assert np.array_equal(np.float32(found["min"]), np.minimum(seen.min(0), 0))
        codes = Codes(**{k: found["scheme"][k] for k in ("bits", "signed", "symmetric", "restricted")})
        expected = [parameters(c.min(), c.max(), codes, "onnx", np.float32) for c in seen.T]
        assert found["zero_point"] == [z for _, z in expected]
        assert np.array_equal(np.float32(found["scale"]), [s for s, _ in expected])


def test_parameters_go_straight_into_a_scheme(client, make):
    name = make(percentile=99.5, scheme={"bits": 8, "signed": False})
    x = batches()[0]
    found = feed(client, name, x)
    scheme = found["scheme"] | {"scale": found["scale"], "zero_point": found["zero_point"]}
    answer = client.quantize(x, scheme)
    scale, zero_point = np.float32(found["scale"]), np.int64(found["zero_point"])
    expected = codes_of(x, np.full(x.shape, scale), np.full(x.shape, zero_point), UINT8, "onnx")
    assert np.array_equal(answer.codes, expected)
    assert np.abs(decode(expected, scale, zero_point) - x).max() > scale  # It clips.


@pytest.mark.parametrize("decay", [0.99, 0.5, 0])
def test_a_moving_average_is_torchs_and_onnxruntimes(client, make, decay):
    """torch/ao/quantization/observer.py, MovingAverageMinMaxObserver.forward:
    min += averaging_constant * (min_of_batch - min), beginning with the first batch; the same
    in MinMaxCalibrater.merge_range of ONNX Runtime, which is run here."""
    name = make(range="moving_average", decay=decay)
    calibrater = MinMaxCalibrater.__new__(MinMaxCalibrater)
    calibrater.moving_average, calibrater.averaging_constant = True, 1 - decay
    calibrater.per_channel = False
    low = high = ranges = None
    for x in batches():
        answer = feed(client, name, x)
        least, most = float(x.min()), float(x.max())
        low = least if low is None else low + (1 - decay) * (least - low)
        high = most if high is None else high + (1 - decay) * (most - high)
        new = TensorsData(calibrater_method(), {"x": TensorData(lowest=np.float32(least), highest=np.float32(most))})
        ranges = calibrater.merge_range(ranges, new) if ranges else new
        assert answer["min"] == pytest.approx(low, rel=1e-6)
        assert answer["max"] == pytest.approx(high, rel=1e-6)
    theirs = ranges["x"].range_value
    assert [answer["min"], answer["max"]] == pytest.approx([float(end) for end in theirs], rel=1e-6)


def calibrater_method():
    from onnxruntime.quantization.calibrate import CalibrationMethod

    return CalibrationMethod.MinMax


@pytest.mark.parametrize("p", [50, 99, 99.9, 99.99, 100])
@pytest.mark.parametrize("symmetric", [True, False])
def test_percentiles_are_within_one_bin_of_numpys(client, make, p, symmetric):
    for seed, outlier in ((1, None), (2, 1000.0)):
        name = make(percentile=p, scheme={"symmetric": symmetric})
        parts = batches(seed)
        if outlier:
            parts[2][3, 3] = outlier
        for x in parts:
            feed(client, name, x)
        seen = np.concatenate(parts)
        found = describe(client, name)
        width = bin_width(seen)
        assert width <= np.abs(seen).max() / 1024
        if symmetric:
            expected = np.percentile(np.abs(seen), p)
            assert abs(found["max"] - expected) < width
            assert found["min"] == -found["max"]
        else:
            assert abs(found["min"] - min(np.percentile(seen, 100 - p), 0)) < width
            assert abs(found["max"] - np.percentile(seen, p)) < width
        if p == 100:
            assert max(-found["min"], found["max"]) == np.abs(seen).max()


def grid(x, bins=BINS):
    """Counts of positive and negative numbers on the grid, by numpy.histogram."""
    x = x[np.isfinite(x)].astype(np.float64)
    edges = np.arange(bins + 1) * bin_width(x)
    return [np.histogram(side, edges)[0] for side in (x[x > 0], -x[x < 0])], edges


def test_the_histogram_is_numpys_whatever_came_first(client, make):
    parts = batches(3) + [np.float32([[0, 0, -0.0, 1e-30]])]
    for order in (parts, parts[::-1]):
        name = make(range="mse")
        for x in order:
            feed(client, name, x)
        document = export(client, name)
        seen = np.concatenate([x.ravel() for x in parts])
        (positive, negative), _ = grid(seen)
        used = max(np.flatnonzero(positive).max(), np.flatnonzero(negative).max()) + 1
        assert document["positive"] == [positive[:used].tolist()]
        assert document["negative"] == [negative[:used].tolist()]
        assert document["finite"] == [seen.size]
        assert sum(document["positive"][0]) + sum(document["negative"][0]) == np.count_nonzero(seen)


def test_entropy_is_onnxruntimes_over_the_same_histogram(client, make):
    name = make(range="entropy_ort", scheme="uint8")
    # 1.1 of a power of two: few bins, since ONNX Runtime's loops are Python's.
    parts = [x / np.float32(np.abs(np.concatenate(batches(4, 2))).max() / 1.1) for x in batches(4, 2)]
    for x in parts:
        answer = feed(client, name, x)
    seen = np.concatenate(parts)
    (positive, negative), edges = grid(seen)
    positive[0] += np.count_nonzero(seen == 0)
    used = max(np.flatnonzero(positive).max(), np.flatnonzero(negative).max()) + 1
    counts = np.concatenate([negative[:used][::-1], positive[:used]])
    ends = np.concatenate([-edges[1 : used + 1][::-1], edges[: used + 1]]).astype(np.float32)
    collector = HistogramCollector(
        method="entropy", symmetric=False, num_bins=BINS, num_quantized_bins=128, percentile=99.99, scenario="same"
    )
    low, high = collector.get_entropy_threshold(
        (counts, ends, np.float32(seen.min()), np.float32(seen.max()), None), 128
    )[:2]
    assert (answer["min"], answer["max"]) == (low, high)


def tensorrt_amax(counts, edges, bits, signed):
    """The search of modelopt/torch/quantization/calib/histogram.py (0.47), as docs/NUMERICS.md states it."""
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    levels = 1 << (bits - int(signed))
    scores = []
    for kept in range(128, counts.size + 1):
        space = np.linspace(0, kept, levels + 1)
        level = np.digitize(np.arange(kept), space) - 1
        occupied = counts[:kept] > 0
        totals = np.bincount(level[occupied], counts[:kept][occupied], levels)
        sizes = np.bincount(level[occupied], minlength=levels)
        q = np.where(occupied, totals[level] / np.maximum(sizes[level], 1), 0)
        p = counts[:kept].copy()
        p[-1] += counts[kept:].sum()
        p, q = p / p.sum(), q / q.sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            scores.append(np.sum(np.where(p > 0, p * np.log(p / q), 0)))
    scores = np.array(scores)
    last = scores.size - 1 - np.argmin(scores[::-1])
    return edges[128 + last]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("method", ["entropy_tensorrt", "entropy_modelopt"])
def test_entropy_of_tensorrt(client, make, method, signed):
    name = make(range=method, scheme={"signed": signed, "symmetric": True})
    for x in batches(5, 3):
        answer = feed(client, name, x)
    seen = np.concatenate(batches(5, 3))
    (positive, negative), edges = grid(seen)
    counts = positive + negative
    counts[0] += np.count_nonzero(seen == 0)
    used = np.flatnonzero(counts).max() + 1
    expected = min(tensorrt_amax(counts[:used], edges, 8, signed), np.abs(seen).max())
    assert answer["max"] == np.float32(expected)


@pytest.mark.parametrize("method", ["entropy_ort", "entropy_tensorrt", "entropy_modelopt"])
@pytest.mark.parametrize(
    "values",
    [[0, 1], [5] * 50 + [1], [0.1, 0.2, 0.7, -0.3], [k / 255 for k in range(256)], [-1, 0, 0, 0, 1]],
    ids=["mask", "fives", "tenths", "bytes", "signs"],
)
def test_entropy_of_few_values_is_that_of_all_at_once(client, make, method, values):
    rng = np.random.default_rng(8)
    parts = [rng.choice(np.float32(values), (30, 20)) for _ in range(3)]
    name = make(range=method, scheme="uint8")
    for x in parts:
        learnt = feed(client, name, x)
    result = client.quantize(np.concatenate(parts), {"preset": "uint8", "range": method})
    assert (np.float32(learnt["scale"]), learnt["zero_point"]) == (result.scale, result.zero_point)


@pytest.mark.parametrize("scheme", ["int8", "int4", "uint8", {"bits": 4, "signed": False}])
def test_mse_against_the_search_over_all_elements(client, make, scheme):
    rng = np.random.default_rng(6)
    for draw in (rng.standard_normal, lambda shape: np.maximum(rng.standard_normal(shape), 0), rng.standard_cauchy):
        parts = [draw((100, 50)).astype(np.float32) for _ in range(4)]
        name = make(range="mse", scheme=scheme)
        for x in parts:
            found = feed(client, name, x)
        seen = np.concatenate(parts)
        codes = {k: found["scheme"][k] for k in ("bits", "signed", "symmetric", "restricted")}
        exact = client.quantize(seen, codes | {"range": "mse"}).report["mse"]
        learnt = client.quantize(seen, codes | {"min": found["min"], "max": found["max"]}).report["mse"]
        assert exact <= learnt * (1 + 1e-9)
        # The bound, and how near it comes on data of no malice.
        assert np.sqrt(learnt) <= np.sqrt(exact) + 2 / np.sqrt(3) * bin_width(seen)
        assert learnt <= exact * 1.02, scheme


def line_hashes(lines):
    """The hash of docs/NUMERICS.md over the bits of each line in f64."""
    words = np.ascontiguousarray(lines, np.float64).view(np.uint64)
    state = np.zeros(len(words), np.uint64)
    for column in words.T:
        state = (state ^ column) * np.uint64(0x9E3779B97F4A7C15)
        state ^= state >> np.uint64(32)
    return state


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_cross_entropy_by_brute_force_over_the_sample(client, make):
    """More lines than are kept: those of the smallest hashes count, each as often as it came."""
    rng = np.random.default_rng(7)
    parts = [(rng.standard_normal((250, 700)) * 2).astype(np.float32) for _ in range(3)]
    parts.append(np.concatenate([parts[0], parts[0][:50]]))
    lines = np.concatenate(parts)
    unique, counts = np.unique(lines, axis=0, return_counts=True)
    kept = np.argsort(line_hashes(unique))[: 2**18 // 700]
    assert kept.size == 374 < len(unique)
    unique, counts = unique[kept], counts[kept]
    for order in (parts, parts[::-1]):
        name = make(range="cross_entropy", axis=1, scheme={"bits": 4})
        for x in order:
            answer = feed(client, name, x, SAFETENSORS)
        document = export(client, name)
        assert document["line_counts"] == counts.tolist()
        assert np.array_equal(np.float32(document["lines"]), unique)
    amax, target = np.abs(lines).max(), softmax(unique.astype(np.float64))
    codes = Codes(4, True, True, True)
    losses = []
    for k in range(50, 0, -1):
        end = amax * (np.float32(k) / np.float32(50))
        scale, zero = parameters(-end, end, codes, "onnx", np.float32)
        q = codes_of(unique, scale, np.int64(zero), codes, "onnx")
        logits = np.log(softmax(decode(q, scale, zero).astype(np.float64)))
        losses.append((-(target * logits).sum(-1) @ counts, end))
    assert answer["max"] == min(losses, key=lambda pair: pair[0])[1]


def test_replicas_are_joined(client, make):
    """Calibrated apart and merged, by name or as documents, is calibrated in one place."""
    parts = batches(8, 6)
    for options in ({"percentile": 99.9}, {"range": "min_max", "axis": 1}, {"range": "mse"},
                    {"range": "cross_entropy"}, {"range": "entropy_tensorrt", "axis": 1}):
        one, left, right = make(**options), make(**options), make(**options)
        for i, x in enumerate(parts):
            feed(client, one, x)
            feed(client, left if i % 2 else right, x)
        document = export(client, right)
        merged = client.post(f"/v1/calibrators/{left}/merge", {"document": document})
        assert merged.status_code == 200, merged.text
        assert merged.json()["batches"] == 6
        assert export(client, left) == export(client, one), options
        merged = client.post(f"/v1/calibrators/{right}/merge", {"from": left})
        assert merged.json()["batches"] == 9
        named = describe(client, left)
        assert named | {"name": one} == describe(client, one)


def test_a_moving_average_merges_to_the_weighted_mean(client, make):
    left, right = make(decay=0.5), make(decay=0.5)
    for x in ([-1, 2], [-3, 2]):
        feed(client, left, np.float32(x))
    feed(client, right, np.float32([-8, 5]))
    answer = client.post(f"/v1/calibrators/{left}/merge", {"from": right}).json()
    assert (answer["min"], answer["max"]) == (pytest.approx(-2 + (-8 + 2) / 3, rel=1e-6), 3.0)


def test_a_document_makes_the_same_calibrator(client, make):
    for options in ({"percentile": 99.9, "bins": 8192, "axis": 1}, {"decay": 0.9}, {"range": "cross_entropy"}, {}):
        name = make(**options, nan="ignore", scheme={"bits": 4, "profile": "torch"})
        empty = export(client, name)
        for x in batches(9, 3):
            x[0, 0] = np.nan
            feed(client, name, x)
        document = export(client, name)
        for document in (document, empty):
            again = make(document=document)
            assert export(client, again) == document
        x = batches(9, 3)[1]
        assert feed(client, make(document=export(client, name)), x) != describe(client, name)
    other = client.post("/v1/calibrators", {"name": name, "document": document, "replace": True})
    assert other.status_code == 201
    assert describe(client, name)["batches"] == 0


@pytest.mark.parametrize("dtype", ["f8", "f2", "bfloat16", "i1", "u1", "i4", "u2", "i8"])
def test_every_dtype(client, make, dtype):
    rng = np.random.default_rng(10)
    x = (rng.standard_normal((40, 30)) * 40).clip(0, 120).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    name = make(range="percentile", percentile=99)
    found = feed(client, name, x, SAFETENSORS)
    assert found["elements"] == x.size
    x = x.astype(np.float64)
    assert abs(found["max"] - np.percentile(np.abs(x), 99)) < bin_width(x)
    wide = describe(client, name, scale_dtype="F64")
    assert wide["scale_dtype"] == "F64"
    assert wide["max"] == pytest.approx(found["max"], rel=1e-6)


def test_f64_that_f32_does_not_hold(client, make):
    name = make()
    answer = feed(client, name, np.array([1e300, -1]))
    assert (answer["scale_dtype"], answer["max"]) == ("F64", 1e300)
    assert describe(client, name)["scale"] == pytest.approx(1e300 / 127)
    response = client.request("GET", f"/v1/calibrators/{name}", params={"scale_dtype": "F32"})
    check_problem(response, "invalid-option", 400, "scale_dtype")


def test_list_and_delete(client, make):
    names = [make(f"list-{i}", percentile=99) for i in (2, 1)]
    feed(client, names[0], batches()[0])
    listed = client.request("GET", "/v1/calibrators").json()["calibrators"]
    listed = {item["name"]: item for item in listed if item["name"] in names}
    assert list(listed) == ["list-1", "list-2"]
    assert (listed["list-2"]["batches"], listed["list-2"]["slices"]) == (1, 1)
    assert listed["list-2"]["bytes"] > 2 * BINS * 8 > listed["list-1"]["bytes"]
    answer = client.request("DELETE", "/v1/calibrators/list-1")
    assert (answer.status_code, answer.json()) == (200, {"deleted": "list-1"})
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/export"), ("POST", "/batches"), ("POST", "/merge")):
        answer = client.request(method, "/v1/calibrators/list-1" + path, headers={"content-type": JSON}, data="{}")
        check_problem(answer, "not-found", 404, "name")
    make("list-1")


def test_without_data(client, make):
    name = make(scheme="uint8")
    found = describe(client, name)
    assert [found[key] for key in ("batches", "min", "scale", "zero_point")] == [0, None, None, None]
    response = client.request("GET", f"/v1/calibrators/{name}", params={"bits": 4})
    problem = check_problem(response, "conflict", 409, "name")
    assert "no batch" in problem["detail"]


def test_searches_of_many_channels_wait_until_they_are_asked_for(client, make):
    name = make(range="entropy_ort", axis=1)
    answer = feed(client, name, batches()[0])
    assert answer["min"] is None and answer["observed_min"] is not None
    assert len(feed(client, name, batches()[0], resolve=True)["min"]) == 16
    assert describe(client, name, resolve=False)["scale"] is None
    assert len(describe(client, name)["scale"]) == 16


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "/name"),
        ({"name": 7}, "/name"),
        ({"name": "../etc/passwd"}, "/name"),
        ({"name": "a/b"}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "x", "range": "median"}, "/range"),
        ({"name": "x", "range": "explicit", "min": 0, "max": 1}, "/range"),
        ({"name": "x", "range": "percentile"}, "/percentile"),
        ({"name": "x", "percentile": 49}, "/percentile"),
        ({"name": "x", "range": "mse", "percentile": 99}, "/percentile"),
        ({"name": "x", "range": "min_max", "decay": 0.9}, "/decay"),
        ({"name": "x", "decay": 1.5}, "/decay"),
        ({"name": "x", "decay": "NaN"}, "/decay"),
        ({"name": "x", "granularity": "token"}, "/granularity"),
        ({"name": "x", "granularity": "group"}, "/granularity"),
        ({"name": "x", "granularity": "block", "block_shape": [2, 2]}, "/granularity"),
        ({"name": "x", "granularity": "tensor", "axis": 0}, "/axis"),
        ({"name": "x", "range": "cross_entropy", "granularity": "channel"}, "/granularity"),
        ({"name": "x", "range": "mse", "bins": 1000}, "/bins"),
        ({"name": "x", "range": "mse", "bins": 1 << 17}, "/bins"),
        ({"name": "x", "range": "entropy_ort", "bins": 4096}, "/bins"),
        ({"name": "x", "nan": "zero"}, "/nan"),
        ({"name": "x", "scheme": "int9"}, "/scheme"),
        ({"name": "x", "scheme": {"bits": 9}}, "/scheme/bits"),
        ({"name": "x", "scheme": {"range": "mse"}}, "/scheme/range"),
        ({"name": "x", "scheme": {"axis": 0}}, "/scheme/axis"),
        ({"name": "x", "unknown": 1}, "/unknown"),
        ({"name": "x", "document": 5}, "/document"),
        ({"name": "x", "document": {}}, "/document/format"),
    ],
)
def test_what_no_calibrator_is(client, body, place):
    check_problem(client.post("/v1/calibrators", body), *problem_of(body), place)
    assert client.request("GET", "/v1/calibrators/x").status_code == 404


def problem_of(body):
    return ("malformed-body", 400) if body.get("document") == 5 else ("invalid-option", 400)


def test_names(client, make):
    name = make("layer_1.v2-x")
    check_problem(client.post("/v1/calibrators", {"name": name}), "conflict", 409, "/name")
    for path in ("a%2Fb", "..%2F..%2Fetc", "%2e%2e", "-a", "a%20b", "%FF", "n" * 129):
        response = client.session.get(client.url + "/v1/calibrators/" + path)
        assert response.status_code in (400, 404), path
        assert response.headers["content-type"] == "application/problem+json"


def test_batches_that_do_not_fit(client, make):
    name = make(percentile=99, axis=1)
    feed(client, name, batches()[0])
    before = export(client, name)

    def refuse(body, slug, status, place, kind=None, params=None):
        response = client.post(f"/v1/calibrators/{name}/batches", body, kind=kind, params=params)
        check_problem(response, slug, status, place)
        assert export(client, name) == before

    refuse({"data": [[1, 2, 3]]}, "invalid-option", 400, "/shape")
    refuse({"data": [1, 2, 3]}, "invalid-option", 400, "/shape")
    refuse({"data": 1}, "invalid-option", 400, "/shape")
    refuse({"data": [], "shape": [0, 16]}, "invalid-option", 400, "/data")
    refuse({"data": nested(np.full((1, 16), np.nan))}, "non-finite", 422, "/data")
    refuse({"data": [["a"]]}, "malformed-body", 400, None)
    refuse({"data": [[1]], "dtype": "C64"}, "invalid-option", 400, "/dtype")
    refuse({"data": [[1]], "scheme": "int8"}, "invalid-option", 400, "/scheme")
    refuse({"scheme": "int8"}, "invalid-option", 400, "/data")
    refuse(b"\0" * 64, "invalid-option", 400, "shape", RAW, {"dtype": "F32", "shape": "16"})
    refuse(b"\0" * 63, "malformed-body", 400, "shape", RAW, {"dtype": "F32", "shape": "1,16"})
    refuse(b"\0" * 64, "invalid-option", 400, "dtype", RAW, {"dtype": "F33", "shape": "1,16"})
    refuse(encode(np.ones((2, 8), np.float32), NPY), "invalid-option", 400, "shape", NPY)
    refuse(b"<html>", "unsupported-media-type", 415, "content-type", "text/html")
    refuse(encode(np.ones((2, 16), np.float32), NPY), "invalid-option", 400, "bits", NPY, {"bits": 4})


def test_what_does_not_merge(client, make):
    name = make(percentile=99)
    feed(client, name, batches()[0])
    before = export(client, name)
    others = {"range": make(range="mse"), "percentile": make(percentile=98), "bins": make(percentile=99, bins=4096),
              "granularity": make(percentile=99, axis=0)}
    for field, other in others.items():
        feed(client, other, batches()[0])
        response = client.post(f"/v1/calibrators/{name}/merge", {"from": other})
        problem = check_problem(response, "invalid-option", 400, "/from")
        assert problem["detail"].startswith(field)
        response = client.post(f"/v1/calibrators/{name}/merge", {"document": export(client, other)})
        check_problem(response, "invalid-option", 400, f"/document/{field}")
    for body, slug, status, place in (
        ({}, "invalid-option", 400, "/from"),
        ({"from": "nobody"}, "not-found", 404, "/from"),
        ({"from": "../x"}, "invalid-option", 400, "/from"),
        ({"from": name, "document": before}, "invalid-option", 400, "/document"),
        ({"from": name, "weight": 2}, "invalid-option", 400, "/weight"),
    ):
        check_problem(client.post(f"/v1/calibrators/{name}/merge", body), slug, status, place)
    assert export(client, name) == before
    # With itself: everything twice.
    assert client.post(f"/v1/calibrators/{name}/merge", {"from": name}).json()["batches"] == 2


def test_hostile_documents(client, make):
    name = make(percentile=99)
    feed(client, name, np.float32([[1, -0.5, 0, 0.25]]))
    good = export(client, name)

    def refuse(place, slug="invalid-option", status=400, **changes):
        document = {key: value for key, value in (good | changes).items() if value != "absent"}
        text = json.dumps({"name": "hostile", "document": document})
        response = client.post("/v1/calibrators", text.encode(), kind=JSON)
        check_problem(response, slug, status, f"/document/{place}")
        response = client.post(f"/v1/calibrators/{name}/merge", {"document": document})
        assert response.status_code == status
        assert client.request("GET", "/v1/calibrators/hostile").status_code == 404

    refuse("format", format="gguf")
    refuse("format", format="absent")
    refuse("version", version=2)
    refuse("version", version="absent")
    refuse("range", range="explicit")
    refuse("bins", bins=3)
    refuse("bins", bins=1 << 40)
    refuse("percentile", percentile="absent")
    refuse("batches", batches=-1)
    refuse("batches", batches=1.5)
    refuse("batches", batches="absent")
    refuse("batches", batches=0)
    refuse("elements", elements=2**63)
    refuse("elements", elements=7)
    refuse("finite/0", "malformed-body", finite=[2**64])
    refuse("finite", finite=7)
    refuse("finite", elements=8, finite=[4, 4])
    refuse("elements", finite=[2**63])
    refuse("min", min=["NaN"])
    refuse("max", max=["Infinity"])
    refuse("min", min=[2.0])
    refuse("min", min=[])
    refuse("max/0", "malformed-body", max=["x"])
    refuse("positive/0/0", "malformed-body", positive=[[-1]])
    refuse("positive/0/0", "malformed-body", positive=[[0.5]])
    refuse("positive", positive=[0, 1])
    refuse("positive", positive=[[2**63, 2**63, 2**63]], negative=[[0, 0, 0]])
    refuse("positive", positive=[[0] * 4096], negative=[[0] * 4096])
    refuse("negative", positive="absent")
    refuse("negative", negative="absent")
    refuse("positive", max=[3.0])
    refuse("average_min", average_min=[0.0])
    refuse("lines", lines=[[1.0]], line_counts=[1])
    refuse("surprise", surprise=1)
    # What a thousand slices would take is not taken before it is there.
    many = 10**6
    refuse_size = good | {
        "granularity": "channel", "axis": 0, "elements": many, "batches": 1, "positive": None, "negative": None,
        "finite": [1] * many, "min": [0] * many, "max": [0] * many,
    }
    refuse_size = {key: value for key, value in refuse_size.items() if value is not None}
    response = client.post("/v1/calibrators", {"name": "hostile", "document": refuse_size})
    check_problem(response, "storage", 507)


def test_limits(start):
    from client import Client

    server = start("--max-calibrators", "2", "--max-calibrator-bytes", "400000")
    client = Client(server.url)
    for name in ("a", "b"):
        assert client.post("/v1/calibrators", {"name": name, "percentile": 99, "axis": 0}).status_code == 201
    check_problem(client.post("/v1/calibrators", {"name": "c"}), "storage", 507)
    x = np.ones((8, 4), np.float32)
    assert feed(client, "a", x)["slices"] == 8
    feed(client, "a", x)
    response = client.post("/v1/calibrators/b/batches", tensor_json(x))
    check_problem(response, "storage", 507)
    assert describe(client, "b")["batches"] == 0
    # A thousand channels would never fit.
    response = client.post("/v1/calibrators/b/batches", tensor_json(np.ones((1000, 1), np.float32)))
    check_problem(response, "storage", 507)
    assert feed(client, "b", x[:3])["slices"] == 3
    # What is deleted makes room.
    client.request("DELETE", "/v1/calibrators/b")
    assert client.post("/v1/calibrators", {"name": "c", "percentile": 99}).status_code == 201
    feed(client, "c", x)


def test_memory_does_not_grow_with_what_is_fed(start):
    from client import Client

    server = start()
    client = Client(server.url)
    rng = np.random.default_rng(11)
    for name, options in (("h", {"percentile": 99}), ("s", {"range": "cross_entropy"})):
        client.post("/v1/calibrators", {"name": name} | options)
    for i in range(40):
        for name in "hs":
            x = rng.standard_normal((1000, 256)).astype(np.float32)
            feed(client, name, x, SAFETENSORS, resolve=False)
        if i == 9:
            before, _ = server.resident_bytes()
    after, _ = server.resident_bytes()
    assert after - before < 24 << 20
    assert describe(client, "h")["elements"] == 40 * 256_000
    assert len(json.dumps(export(client, "h"))) < 64 << 10


def test_fed_from_everywhere_at_once(client, make):
    """No batch is lost, and the result is that of any order."""
    parts = batches(12, 24)
    one, all_at_once = make(percentile=99.9), make(percentile=99.9)
    for x in parts:
        feed(client, one, x)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        from client import Client

        clients = [Client(client.url) for _ in range(8)]
        jobs = [pool.submit(feed, clients[i % 8], all_at_once, x, NPY) for i, x in enumerate(parts)]
        seen = sorted(job.result()["batches"] for job in jobs)
    assert seen == list(range(1, 25))
    assert export(client, all_at_once) == export(client, one)
