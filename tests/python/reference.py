"""Quantization by the formulas of docs/NUMERICS.md, in NumPy: slow, plain, independent."""

import dataclasses

import numpy as np


def slices(shape, granularity="tensor", axis=None, group_size=None, block_shape=None):
    """Number of each element's slice, and the shape of the scales."""
    shape = tuple(shape)
    index = np.indices(shape, dtype=np.int64)
    if granularity == "tensor":
        return np.zeros(shape, np.int64), ()
    if granularity == "channel":
        axis = (axis or 0) % len(shape)
        return index[axis].reshape(shape), (shape[axis],)
    if granularity == "token":
        size, divide = shape[:-1] + (1,), {len(shape) - 1: max(shape[-1], 1)}
    elif granularity == "group":
        axis = (-1 if axis is None else axis) % len(shape)
        divide = {axis: group_size}
        size = tuple(-(-n // divide.get(i, 1)) for i, n in enumerate(shape))
    else:
        divide = {len(shape) - 2: block_shape[0], len(shape) - 1: block_shape[1]}
        size = tuple(-(-n // divide.get(i, 1)) for i, n in enumerate(shape))
    parts = [index[i] // divide.get(i, 1) for i in range(len(shape))]
    if 0 in shape:
        return np.zeros(shape, np.int64), size
    return np.ravel_multi_index(parts, size), size


@dataclasses.dataclass
class Codes:
    """The codes of a scheme."""

    bits: int
    signed: bool
    symmetric: bool
    restricted: bool

    @property
    def low(self):
        """Smallest code."""
        return -(2 ** (self.bits - 1)) + int(self.restricted) if self.signed else 0

    @property
    def high(self):
        """Largest code."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def middle(self):
        """Zero point of symmetric codes."""
        return 0 if self.signed else 2 ** (self.bits - 1)


def around_zero(low, high, codes):
    """The smallest range with both ends and 0, widened when symmetric."""
    low, high = min(low, low * 0), max(high, high * 0)
    if codes.symmetric:
        most = max(-low, high)
        return -most, most
    return low, high


def parameters(low, high, codes, profile, dtype):
    """Scale (of that type) and zero point of one slice's range."""
    low, high = around_zero(dtype(low), dtype(high), codes)
    steps = codes.high - codes.low
    with np.errstate(all="ignore"):
        if profile == "onnx" and codes == Codes(8, False, False, False) and dtype is np.float32:
            # onnx/reference/ops/op_dynamic_quantize_linear.py: no number but of F32. A scale that is none is the tool's.
            scale = (high - low) / np.float32(255)
            if 0 < scale < np.inf:
                return scale, int(np.rint(max(np.float32(0), min(np.float32(255), np.float32(0) - low / scale))))
        if profile == "onnx":
            scale = (np.float64(high) - np.float64(low)) / steps
            if scale < np.finfo(dtype).tiny:
                return without_extent(codes, dtype)
            zero = codes.middle
            if not codes.symmetric:
                zero = int(np.clip(np.rint(codes.low - np.float64(low) / scale), codes.low, codes.high))
            return dtype(scale), zero
        if profile == "tflite":
            return litert(low, high, codes, dtype)
        if codes.symmetric:
            scale = dtype(high / (dtype(steps) * dtype(0.5)))
        else:
            scale = dtype((high - low) / dtype(steps))
        if profile == "torch":
            scale = max(scale, dtype(np.finfo(np.float32).eps))
            zero = codes.low - np.rint(np.float64(low / scale))
        else:
            scale = scale if scale > 0 else dtype(np.finfo(dtype).eps)
            zero = np.rint(np.float64(dtype(codes.low) - low / scale))
        if codes.symmetric:
            return scale, codes.middle
        return scale, int(np.clip(zero, codes.low, codes.high))


def without_extent(codes, dtype):
    """Where the step is below the smallest normal number."""
    return dtype(1), codes.middle if codes.symmetric else min(max(0, codes.low), codes.high)


def litert(low, high, codes, dtype):
    """ChooseQuantizationParams of tflite/kernels/internal/quantization_util.h, whose every number is a double; the
    scale is stored in the type of the tensor at the end."""
    rmin, rmax, qmin, qmax = float(low), float(high), float(codes.low), float(codes.high)
    scale = (rmax - rmin) / (qmax - qmin)
    if scale < np.finfo(dtype).tiny:
        return without_extent(codes, dtype)
    if codes.symmetric:
        return dtype(scale), codes.middle
    from_min, from_max = qmin - rmin / scale, qmax - rmax / scale
    min_error = abs(qmin) + abs(rmin / scale)
    max_error = abs(qmax) + abs(rmax / scale)
    exact = from_min if min_error < max_error else from_max
    return dtype(scale), int(min(max(half_away(exact), qmin), qmax))


def half_away(x):
    """Rounds halves away from zero."""
    x = np.asarray(x)
    whole = np.trunc(x)
    return whole + np.sign(x) * (np.abs(x - whole) >= 0.5)


def encode(x, scale, zero_point, codes, profile):
    """Codes of real numbers; scale and zero point have the shape of x."""
    with np.errstate(all="ignore"):
        if profile == "torch":
            grid = np.rint(x * (x.dtype.type(1) / scale)).astype(np.float64) + zero_point
        elif profile == "compressed-tensors":
            grid = np.rint(np.clip(x / scale + zero_point.astype(x.dtype), codes.low, codes.high))
        elif profile == "tflite":
            grid = half_away(x / scale).astype(np.float64) + zero_point
        else:
            grid = np.rint(x / scale).astype(np.float64) + zero_point
    return np.clip(grid, codes.low, codes.high).astype(np.int64)


def decode(q, scale, zero_point):
    """(q - z) s in the type of the scale."""
    return (q - zero_point).astype(scale.dtype) * scale


def report(x, restored, clipped):
    """The error metrics over finite elements, in f64."""
    fine = np.isfinite(x)
    a, b = x[fine].astype(np.float64), restored[fine].astype(np.float64)
    error = (a - b) ** 2
    clipped = clipped[fine]
    n = max(a.size, 1)
    signal, noise = float(np.sum(a * a)), float(np.sum(error))
    return {
        "mse": noise / n,
        "mse_clipped": float(error[clipped].sum()) / n,
        "mse_rounded": float(error[~clipped].sum()) / n,
        "max_abs_error": float(np.abs(a - b).max(initial=0)),
        "sqnr_db": 10 * np.log10(signal / noise) if signal and noise else None,
        "clipped": int(clipped.sum()),
        "zeroed": int(np.sum((a != 0) & (b == 0))),
        "nan": int(np.isnan(x).sum()),
        "inf": int(np.isinf(x).sum()),
    }


def pack(codes, bits):
    """Codes as a bit stream, low bits first."""
    codes = np.asarray(codes).ravel().astype(np.int64) & (2**bits - 1)
    stream = (codes[:, None] >> np.arange(bits)) & 1
    return np.packbits(stream.astype(np.uint8).ravel(), bitorder="little")
