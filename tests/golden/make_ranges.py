"""Makes tests/golden/ranges: clipping ranges as NumPy, ONNX Runtime and Model-Optimizer find them.

Run with an interpreter that has numpy, scipy, onnx and onnxruntime, and pip to
fetch the wheel of nvidia-modelopt (one function of it is run, without PyTorch):

    python tests/golden/make_ranges.py

The searches that no package has (mse, cross_entropy) are plain NumPy over the
grids that docs/NUMERICS.md names: exhaustive, in f64 sums of f32 elements.
"""

import ast
import collections
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import types
import zipfile

import numpy as np
import onnxruntime
import scipy
from onnxruntime.quantization.calibrate import HistogramCollector
from scipy.stats import entropy

OUT = pathlib.Path(__file__).parent / "ranges"
MODELOPT = "0.47.0"
BINS = 2048


def samples():
    draw = np.random.default_rng(20260101)
    outlier = draw.uniform(-1, 1, 2000)
    outlier[1000] = 40
    odd = draw.normal(0, 1, 500)
    odd[[3, 77, 200]] = [np.nan, np.inf, -np.inf]
    return {
        "gauss": draw.normal(0, 1, 4000),
        "student": draw.standard_t(3, 4000),
        "outlier": outlier,
        "one_sided": np.maximum(draw.normal(0, 2, 3000), 0),
        "shifted": draw.normal(3, 0.25, 1000),
        "small": np.array([0.1, -2.0, 3.3, 0.0, -0.4, 0.9, 1e-3]),
        "constant": np.full(50, -2.5),
        "odd": odd,
    }


def modelopt_entropy():
    """`_compute_amax_entropy`, taken out of the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, f"nvidia-modelopt=={MODELOPT}"],
            check=True,
        )
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        text = zipfile.ZipFile(wheel).read("modelopt/torch/quantization/calib/histogram.py").decode()
    nodes = [n for n in ast.parse(text).body if getattr(n, "name", "") == "_compute_amax_entropy"]
    scope = {
        "np": np,
        "Counter": collections.Counter,
        "entropy": entropy,
        "torch": types.SimpleNamespace(tensor=lambda value: value),
    }
    exec(compile(ast.Module(nodes, []), "histogram.py", "exec"), scope)
    return scope["_compute_amax_entropy"]


def number(x):
    return float(x)


def percentiles(x):
    rows = []
    for p in (50, 75, 90, 99, 99.9, 99.99, 99.999, 100):
        # One by one: an array of percentiles makes NumPy interpolate in f64.
        low, high = np.percentile(x, 100 - p), np.percentile(x, p)
        rows.append({"p": p, "low": number(low), "high": number(high), "abs": number(np.percentile(np.abs(x), p))})
    return rows


def entropy_ort(x):
    collector = HistogramCollector(
        method="entropy", symmetric=False, num_bins=BINS, num_quantized_bins=128, percentile=99.99, scenario="same"
    )
    collector.collect({"x": [x]})
    low, high = collector.compute_collection_result()["x"][:2]
    return [number(low), number(high)]


def entropy_tensorrt(x, bits, unsigned, search):
    magnitudes = np.abs(x)
    counts, edges = np.histogram(magnitudes, bins=BINS, range=(np.float32(0), magnitudes.max()))
    return number(search(counts, edges, bits, unsigned))


def restore(x, low, high, bits, symmetric):
    """The onnx profile: codes, and back."""
    if symmetric:
        qmax = 2 ** (bits - 1) - 1
        qmin, amax = -qmax, max(-low, high)
        scale, zero = np.float32(2 * np.float64(amax) / (2 * qmax)), 0
    else:
        qmin, qmax = 0, 2**bits - 1
        # 8 bits are DynamicQuantizeLinear, in F32; the others the quantization tool.
        wide = np.float32 if bits == 8 else np.float64
        exact = (wide(high) - wide(low)) / wide(qmax)
        scale, zero = np.float32(exact), int(np.rint(qmin - wide(low) / exact))
    codes = np.clip(np.rint(x / scale).astype(np.float64) + zero, qmin, qmax)
    return (codes - zero).astype(np.float32) * scale


def grid(x, symmetric, both, each):
    low, high = np.float32(min(x.min(), 0)), np.float32(max(x.max(), 0))
    part = lambda end, k, steps: end * (np.float32(k) / np.float32(steps))
    if symmetric:
        amax = max(-low, high)
        return [(-part(amax, k, both), part(amax, k, both)) for k in range(1, both + 1)]
    lows = [low] if low == 0 else [part(low, k, each) for k in range(1, each + 1)]
    highs = [high] if high == 0 else [part(high, k, each) for k in range(1, each + 1)]
    return [(a, b) for a in lows for b in highs]


def squared_error(x, restored):
    return np.square(x.astype(np.float64) - restored.astype(np.float64)).sum()


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.astype(np.float64).max())
    return e / e.sum()


def cross_entropy(x, restored):
    restored = restored.astype(np.float64)
    log_sum = np.log(np.exp(restored - restored.max()).sum()) + restored.max()
    return -(softmax(x) * (restored - log_sum)).sum()


def least(x, loss, candidates, bits, symmetric):
    return number(min(loss(x, restore(x, low, high, bits, symmetric)) for low, high in candidates))


def searches(x):
    rows = []
    for bits, symmetric in ((8, True), (4, True), (3, False), (8, False)):
        rows.append({
            "bits": bits,
            "symmetric": symmetric,
            "mse": least(x, squared_error, grid(x, symmetric, 100, 32), bits, symmetric),
            "cross_entropy": least(x, cross_entropy, grid(x, symmetric, 50, 16), bits, symmetric),
        })
    return rows


def main():
    OUT.mkdir(exist_ok=True)
    search = modelopt_entropy()
    cases = []
    for name, values in samples().items():
        x = values.astype(np.float32)
        np.save(OUT / f"{name}.npy", x)
        x = x[np.isfinite(x)]
        wide = x.astype(np.float64)
        counts, edges = np.histogram(wide, bins=37)
        case = {
            "name": name,
            "percentiles": percentiles(x),
            "percentiles_f64": percentiles(wide),
            "histogram": {"edges": [number(edge) for edge in edges], "counts": counts.tolist()},
            "searches": searches(x),
        }
        if name != "constant":
            case["entropy_ort"] = entropy_ort(x)
            case["entropy_tensorrt"] = [
                {"bits": bits, "signed": signed, "amax": entropy_tensorrt(x, bits, not signed, search)}
                for bits, signed in ((8, True), (8, False), (4, True))
            ]
        cases.append(case)
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "onnxruntime": onnxruntime.__version__,
        "nvidia-modelopt": MODELOPT,
    }
    text = json.dumps({"versions": versions, "cases": cases}, indent=1)
    (OUT / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
