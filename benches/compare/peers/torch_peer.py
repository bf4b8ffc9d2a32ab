"""PyTorch as a peer. Results are allocated by each call, as its users have them; weights are packed beforehand where
the operator takes packed ones."""

import warnings

import torch

from serve import Unsupported, arguments, serve

warnings.filterwarnings("ignore")
from torch.ao.quantization.observer import HistogramObserver, MinMaxObserver  # noqa: E402  (it warns)

COLUMNS = 4096
options = arguments()
torch.set_num_threads(options.threads)
generator = torch.Generator().manual_seed(1)
codes = lambda low, high, dims, dtype: torch.randint(low, high, dims, dtype=dtype, generator=generator)
reals = lambda *dims: torch.randn(*dims, generator=generator)


def product(op, m, k, n):
    weights = codes(-127, 128, (k, n), torch.int8)
    if op == "s8s8-int_mm":
        a = codes(-128, 128, (m, k), torch.int8)
        row, column = m // 2, n // 3
        expect = (a[row].long() * weights[:, column].long()).sum()
        assert torch._int_mm(a, weights)[row, column] == expect, "wrong result"
        return lambda: torch._int_mm(a, weights)
    if op == "u8s8-onednn":
        a, scales, zeros = codes(0, 256, (m, k), torch.uint8), torch.full((n,), 0.01), torch.zeros(n, dtype=torch.int64)
        packed = torch.ops.onednn.qlinear_prepack(weights.t().contiguous(), [m, k])
        return lambda: torch.ops.onednn.qlinear_pointwise(
            a, 0.02, 128, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "")
    what, _, engine = op.partition("-")
    if what not in ("qlinear", "dynamic") or engine not in ("fbgemm", "x86"):
        raise Unsupported
    torch.backends.quantized.engine = engine
    of_weights = torch.full((n,), 0.01, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    transposed = torch.quantize_per_channel(weights.t().float() * 0.01, *of_weights, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(transposed, None)
    if what == "dynamic":
        x = reals(m, k)
        return lambda: torch.ops.quantized.linear_dynamic(x, packed, True)
    a = torch.quantize_per_tensor(codes(0, 256, (m, k), torch.uint8).float() * 0.02 - 2.56, 0.02, 128, torch.quint8)
    return lambda: torch.ops.quantized.linear(a, packed, 0.5, 128)


def elementwise(op, count):
    x = reals(count // COLUMNS, COLUMNS)
    what, granularity, kind = op.split("-")
    dtype, zero = {"u8": (torch.quint8, 128), "i8": (torch.qint8, 0)}.get(kind, (None, None))
    if what == "extent":
        return lambda: torch.aminmax(x)
    if dtype is None:
        raise Unsupported
    if granularity == "tensor":
        quantize = lambda: torch.quantize_per_tensor(x, 0.04, zero, dtype)
    elif granularity in ("row", "column"):
        axis = ("row", "column").index(granularity)
        scales = torch.full((x.shape[axis],), 0.04, dtype=torch.float64)
        zeros = torch.full((x.shape[axis],), zero, dtype=torch.int64)
        quantize = lambda: torch.quantize_per_channel(x, scales, zeros, axis, dtype)
    else:
        raise Unsupported
    if what == "quantize":
        return quantize
    if what == "dequantize":
        quantized = quantize()
        return lambda: quantized.dequantize()
    raise Unsupported


# The formats of FP8, by the types that PyTorch has, and what torchao does with blocks.
EIGHTHS = {"fp8_e4m3": (torch.float8_e4m3fn, 448), "fp8_e5m2": (torch.float8_e5m2, 57344)}


def number_format(op, count):
    x = reals(count // COLUMNS, COLUMNS)
    what, name, *row = op.split("-")
    if name == "bf16":
        quantize, back = lambda: x.to(torch.bfloat16), lambda made: made.float()
    elif name in EIGHTHS:
        dtype, largest = EIGHTHS[name]

        def quantize():
            abs_max = x.abs().amax(1, keepdim=True) if row else x.abs().max()
            scale = abs_max / largest
            return (x / scale).clamp(-largest, largest).to(dtype), scale

        back = lambda made: made[0].float() * made[1]
    elif name in ("mxfp8_e4m3", "mxfp4"):
        from torchao.prototype.mx_formats import mx_tensor

        dtype = torch.float8_e4m3fn if name == "mxfp8_e4m3" else torch.float4_e2m1fn_x2
        quantize = lambda: mx_tensor.to_mx(x, dtype, 32)
        back = lambda made: mx_tensor.to_dtype(made[1], made[0], dtype, 32, torch.float32)
    elif name == "nvfp4":
        from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

        quantize = lambda: NVFP4Tensor.to_nvfp4(x, per_tensor_scale=per_tensor_amax_to_scale(x.abs().max()))
        back = lambda made: made.dequantize(torch.float32)
    else:
        raise Unsupported
    if what == "quantize":
        return quantize
    made = quantize()
    return lambda: back(made)


def calibration(op, count):
    x = reals(count)
    observers = {
        "mse-symmetric": lambda: HistogramObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric),
        "mse-asymmetric": lambda: HistogramObserver(),
        "min_max": lambda: MinMaxObserver(),
    }
    if op not in observers:
        raise Unsupported

    def run():
        observer = observers[op]()
        observer(x)
        observer.calculate_qparams()

    return run


def case(op, shape):
    with torch.inference_mode():
        if len(shape) == 3:
            call = product(op, *shape)
        elif op.partition("-")[2].split("-")[0] in ("bf16", "mxfp8_e4m3", "mxfp4", "nvfp4", *EIGHTHS):
            call = number_format(op, *shape)
        elif op.split("-")[0] in ("quantize", "dequantize", "extent"):
            call = elementwise(op, *shape)
        else:
            call = calibration(op, *shape)

    def run():
        with torch.inference_mode():
            call()

    return run


serve("torch", torch.__version__.split("+")[0], case, options.seconds)
