"""NumPy as a peer, with the formulas of a teaching notebook: one expression for codes, one back. It uses
one thread, whatever is asked for."""

import numpy as np

from serve import Unsupported, arguments, serve

COLUMNS = 4096
options = arguments()
random = np.random.default_rng(1)


def case(op, shape):
    if len(shape) != 1:
        raise Unsupported
    x = random.standard_normal(shape[0], dtype=np.float32)
    scale, zero = np.float32(0.04), np.float32(128)
    quantize = lambda: np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    if op == "quantize-tensor-u8":
        return quantize
    if op == "dequantize-tensor-u8":
        codes = quantize()
        return lambda: (codes.astype(np.float32) - zero) * scale
    if op in ("extent-tensor-u8", "min_max"):
        return lambda: (x.min(), x.max())
    if op == "percentile-symmetric":
        return lambda: np.percentile(np.abs(x), 99.99)
    if op == "percentile-asymmetric":
        return lambda: np.percentile(x, [0.01, 99.99])
    raise Unsupported


serve("numpy", np.__version__, case, options.seconds)
