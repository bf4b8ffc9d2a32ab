"""What is compared with what, and what of it the summary shows."""

from dataclasses import dataclass, field

READ = ["limit-read", "limit-read-ahead"]
QUANTIZE = ["limit-quantize", "limit-quantize-ahead", "limit-quantize-past"]
DEQUANTIZE = ["limit-dequantize", "limit-dequantize-past"]
# Sections whose shapes are MxKxN.
PRODUCTS = ("gemm", "layers")


@dataclass(frozen=True)
class Work:
    """One operation, as quantd names it, and the peers that do the same.

    `peers` maps a participant to the names of its operations; several are several competitors. `limits` are lists of
    limits of the machine, of each of which the best counts: the work takes at least as long as the longest of them,
    or, with `one_after_another`, as all of them together.
    """

    section: str
    op: str
    shapes: tuple
    peers: dict = field(default_factory=dict)
    limits: tuple = ()
    one_after_another: bool = False

    def units(self, shape):
        """The work of one call and its unit a second: operations, bytes of F32, or elements."""
        numbers = [int(part) for part in shape.split("x")]
        if self.section in PRODUCTS:
            return 2e-9 * numbers[0] * numbers[1] * numbers[2], "GOPS"
        if self.section in ("elementwise", "formats"):
            return 4e-9 * numbers[0], "GB/s"
        return 1e-6 * numbers[0], "million/s"


TRANSFORMER = ("1x768x768", "1x4096x4096", "1x4096x11008", "4x768x3072", "8x768x3072", "16x768x3072", "32x1024x1024",
               "128x768x3072", "128x4096x4096", "512x1024x1024", "1024x1024x1024", "2048x2048x2048")
ODD = ("1x1023x1000", "16x1021x1000", "33x770x1000", "197x768x2304", "384x1537x1000")
# K is a multiple of the largest block.
BLOCKS = ("1x768x768", "1x4096x4096", "1x4096x11008", "4x4096x4096", "16x768x3072", "128x768x3072")
LAYERS = ("1x768x3072", "128x768x3072")
SIZES = ("65536", "1048576", "16777216", "67108864")
GRANULARITIES = ("tensor", "row", "column", "group32", "group64", "group128", "block128")


def products():
    own = (["limit-peak"], READ)
    onednn = lambda op: {"onednn-2": [op], "onednn-3": [op]}
    peers = {
        "u8s8": {"mkl": ["u8s8"], **onednn("u8s8"), "onnxruntime": ["u8s8"], "torch": ["u8s8-onednn"]},
        "s8s8": {**onednn("s8s8"), "onnxruntime": ["s8s8"], "torch": ["s8s8-int_mm"]},
        "u8u8": {},
        "s8u8": {},
        "dynamic": {"onnxruntime": ["dynamic"], "torch": ["dynamic-x86", "dynamic-fbgemm"]},
        "dynamic-rows": {},
        "qlinear": {"onnxruntime": ["qlinear"], "torch": ["qlinear-x86", "qlinear-fbgemm"]},
    }
    for op, of in peers.items():
        yield Work("gemm", op, TRANSFORMER + ODD, of, own)
    for block in (32, 128):
        op = f"nbits4-{block}"
        yield Work("gemm", op, BLOCKS, {"onnxruntime": [op]}, (["limit-peak"], [f"{read}-half" for read in READ]))


def layers():
    """Hosted layers, from real rows to real results with a bias. ONNX Runtime has no parameters of each row; `layer` is
    what its `quantize_dynamic` makes of the layer, run from Python with a new array for the result, `layer-bound` the
    same into memory that is there, `layer-fused` its one operator for it, into such memory."""
    own = (["limit-peak"], READ)
    peers = {"onnxruntime": ["layer", "layer-bound", "layer-fused"]}
    for op in ("layer-dynamic", "layer-per-token"):
        yield Work("layers", op, LAYERS, peers, own)
    yield Work("layers", "layer-gelu", LAYERS, {"onnxruntime": ["layer-gelu", "layer-gelu-bound"]}, own)


def passes():
    ort, torch, numpy = "onnxruntime", "torch", "numpy"
    yield Work("elementwise", "extent-tensor-u8", SIZES, {ort: ["extent-tensor-u8"], torch: ["extent-tensor-u8"], numpy: ["extent-tensor-u8"]}, (["limit-extent"],))
    for codes in ("u8", "i8"):
        for what, limit in (("quantize", QUANTIZE), ("dequantize", DEQUANTIZE)):
            for granularity in GRANULARITIES:
                op = f"{what}-{granularity}-{codes}"
                peers = {ort: [op]} if granularity != "block128" else {}
                if granularity in ("tensor", "row", "column"):
                    peers[torch] = [op]
                if granularity == "tensor" and codes == "u8":
                    peers[numpy] = [op]
                yield Work("elementwise", op, SIZES, peers, (limit,))
    yield Work("elementwise", "min_max-tensor-u8", SIZES, {ort: ["dynamic-tensor-u8"]}, (["limit-extent"], QUANTIZE), True)
    for op in [f"min_max-{granularity}-i8" for granularity in GRANULARITIES]:
        yield Work("elementwise", op, SIZES, {}, (["limit-extent"], QUANTIZE), True)
    yield Work("elementwise", "explicit-row-i8", SIZES, {}, (QUANTIZE,))
    yield Work("elementwise", "restore-row-i8", SIZES, {}, (DEQUANTIZE,))
    # No limit is measured for these: their bytes are other ones.
    for op in ("min_max-row-i8-f16", "min_max-row-i8-bf16", "min_max-group32-i4", "min_max-group128-i4"):
        yield Work("elementwise", op, SIZES)


def formats():
    """Whole tensors with their report, and back; the peer makes none. Scales are known after a pass of their own."""
    peers = {"fp8_e4m3", "fp8_e4m3-row", "fp8_e5m2", "mxfp8_e4m3", "mxfp4", "nvfp4", "bf16"}
    for scheme in ("fp8_e4m3", "fp8_e4m3-row", "fp8_e5m2", "mxfp8_e4m3", "mxfp6_e2m3", "mxfp4", "mxint8", "nvfp4", "bf16"):
        for what, limits in (("quantize", (["limit-extent"], QUANTIZE)), ("dequantize", (DEQUANTIZE,))):
            op = f"{what}-{scheme}"
            peer = {"torch": [op]} if scheme in peers else {}
            yield Work("formats", op, SIZES[:3], peer, limits, what == "quantize")


def calibration():
    for op, peers in {
        "min_max": ["torch", "numpy"],
        "percentile-symmetric": ["numpy"],
        "percentile-asymmetric": ["numpy", "onnxruntime"],
        "mse-symmetric": ["torch"],
        "mse-asymmetric": ["torch"],
        "entropy_ort": ["onnxruntime"],
        "entropy_tensorrt": [],
    }.items():
        yield Work("calibration", op, ("16777216",), {peer: [op] for peer in peers}, (["limit-extent"],))


PLAN = [*products(), *layers(), *passes(), *formats(), *calibration()]
SECTIONS = ("gemm", "layers", "elementwise", "formats", "calibration")
# Benches that measure by themselves, those of the service beside a bare server: each has its part of a page.
ALONE = {
    "http": "Whole requests",
    "codec": "Text",
    "serving": "Many small requests to one layer",
    "liveness": "Health while all are busy",
}

SUMMARY = ("u8s8", "s8s8", "dynamic", "qlinear", "nbits4-32", "nbits4-128",
           "layer-dynamic", "layer-per-token", "layer-gelu",
           "quantize-tensor-u8", "quantize-column-u8", "quantize-group32-u8", "quantize-group128-u8", "min_max-tensor-u8",
           "dequantize-tensor-u8", "dequantize-column-u8", "dequantize-group32-u8",
           "quantize-fp8_e4m3", "quantize-mxfp8_e4m3", "quantize-mxfp4", "quantize-nvfp4", "dequantize-fp8_e4m3",
           "dequantize-mxfp4", "percentile-symmetric", "mse-symmetric", "entropy_ort")


def size_class(section, shape):
    """Under which shapes are summed up; None leaves a shape out of the summary."""
    numbers = [int(part) for part in shape.split("x")]
    if section in PRODUCTS:
        m, k, n = numbers
        if m == 1:
            return "M = 1, weights within 1 MiB" if k * n <= 1 << 20 else "M = 1, larger weights"
        return "M = 2 to 31" if m < 32 else "M >= 32"
    if section in ("elementwise", "formats"):
        large = 1 << (26 if section == "elementwise" else 24)
        return {1 << 16: "64 Ki elements", large: f"{large >> 20} Mi elements"}.get(numbers[0])
    return f"{numbers[0] >> 20} Mi elements" if numbers[0] >> 20 else f"{numbers[0]} elements"
