"""ONNX Runtime as a peer: products, element-wise operators, and the calibrators of its quantization tool.

Weights are initializers, so that they are packed beforehand, and outputs lie in memory that is there."""

import contextlib
import io
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from serve import Unsupported, arguments, serve

COLUMNS = 4096
options = arguments()
random = np.random.default_rng(1)
constant = lambda value, name: numpy_helper.from_array(np.asarray(value), name)
described = h.make_tensor_value_info


def model_of(nodes, constants, inputs, output):
    graph = h.make_graph(nodes, "g", [described(*i) for i in inputs], [described(*output)], constants)
    opsets = [h.make_opsetid("", 21), h.make_opsetid("com.microsoft", 1)]
    return h.make_model(graph, opset_imports=opsets, ir_version=10)


def call(node, constants, inputs, output, feeds):
    """A session of one node, as a call without arguments."""
    return session(model_of([node], constants, inputs, output), output, feeds)


def session(model, output, feeds):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    made = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    binding = made.io_binding()
    for name, value in feeds.items():
        binding.bind_cpu_input(name, value)
    name, kind, dims = output
    target = onnxruntime.OrtValue.ortvalue_from_shape_and_type(dims, h.tensor_dtype_to_np_dtype(kind), "cpu")
    binding.bind_ortvalue_output(name, target)
    run = lambda: made.run_with_iobinding(binding)
    run.keep, run.target = (feeds, target), target
    run.afresh = lambda: made.run(None, feeds)
    return run


def product(op, m, k, n):
    weights = random.integers(-127, 128, (k, n)).astype(np.int8)
    reals = lambda: random.standard_normal((m, k), dtype=np.float32)
    if op in ("u8s8", "s8s8"):
        a = random.integers(0, 256, (m, k)).astype(np.uint8) if op == "u8s8" else random.integers(-128, 128, (m, k)).astype(np.int8)
        kind = T.UINT8 if op == "u8s8" else T.INT8
        node = h.make_node("MatMulInteger", ["a", "b"], ["c"])
        run = call(node, [constant(weights, "b")], [("a", kind, [m, k])], ("c", T.INT32, [m, n]), {"a": a})
        run()
        row, column = m // 2, n // 3
        expect = int(a[row].astype(np.int64) @ weights[:, column].astype(np.int64))
        assert run.target.numpy()[row, column] == expect, "wrong result"
        return run
    if op == "dynamic":
        node = h.make_node("DynamicQuantizeMatMul", ["a", "b", "s"], ["c"], domain="com.microsoft")
        constants = [constant(weights, "b"), constant(np.full(n, 0.01, np.float32), "s")]
        return call(node, constants, [("a", T.FLOAT, [m, k])], ("c", T.FLOAT, [m, n]), {"a": reals()})
    if op == "qlinear":
        node = h.make_node("QLinearMatMul", ["a", "as", "az", "b", "bs", "bz", "cs", "cz"], ["c"])
        scales = [constant(np.float32(v), s) for v, s in ((0.02, "as"), (0.01, "bs"), (0.5, "cs"))]
        zeros = [constant(v, z) for v, z in ((np.uint8(128), "az"), (np.int8(0), "bz"), (np.uint8(128), "cz"))]
        a = random.integers(0, 256, (m, k)).astype(np.uint8)
        return call(node, [constant(weights, "b"), *scales, *zeros], [("a", T.UINT8, [m, k])], ("c", T.UINT8, [m, n]), {"a": a})
    if op.startswith("nbits4-"):
        block = int(op.removeprefix("nbits4-"))
        if k % block:
            raise Unsupported("K is no multiple of the block")
        node = h.make_node("MatMulNBits", ["a", "b", "s"], ["c"], domain="com.microsoft", K=k, N=n, bits=4, block_size=block, accuracy_level=4)
        codes = random.integers(0, 256, (n, k // block, block // 2)).astype(np.uint8)
        constants = [constant(codes, "b"), constant(np.full(n * k // block, 0.01, np.float32), "s")]
        return call(node, constants, [("a", T.FLOAT, [m, k])], ("c", T.FLOAT, [m, n]), {"a": reals()})
    raise Unsupported


def layer(op, m, k, n):
    """A linear layer with a bias, its weights in int8 with a scale an output, its input quantized as it comes."""
    weights, bias = (random.standard_normal(dims, dtype=np.float32) for dims in ((k, n), n))
    feeds = {"a": random.standard_normal((m, k), dtype=np.float32)}
    inputs, output = [("a", T.FLOAT, [m, k])], ("y", T.FLOAT, [m, n])
    if op == "layer-fused":
        scales = np.abs(weights).max(axis=0) / np.float32(127)
        constants = [constant(np.rint(weights / scales).astype(np.int8), "b"), constant(scales, "s"), constant(bias, "c")]
        node = h.make_node("DynamicQuantizeMatMul", ["a", "b", "s", "", "c"], ["y"], domain="com.microsoft")
        run = call(node, constants, inputs, output, feeds)
    elif op in ("layer", "layer-bound", "layer-gelu", "layer-gelu-bound"):
        gelu = "gelu" in op
        nodes = [h.make_node("MatMul", ["a", "b"], ["p"]), h.make_node("Add", ["p", "c"], ["q" if gelu else "y"])]
        if gelu:
            nodes.append(h.make_node("Gelu", ["q"], ["y"]))
        constants = [constant(weights, "b"), constant(bias, "c")]
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            quantize_dynamic(model_of(nodes, constants, inputs, output), file.name, per_channel=True, weight_type=QuantType.QInt8)
            run = session(onnx.load(file.name), output, feeds)
    else:
        raise Unsupported
    run()
    row, column = m // 2, n // 3
    expect = feeds["a"][row] @ weights[:, column] + bias[column]
    assert abs(run.target.numpy()[row, column] - max(expect, 0 if "gelu" in op else expect)) < 0.05 * k**0.5, "wrong result"
    # As a Python program runs it, with a new array for each result; or into memory that is there.
    return run.afresh if op in ("layer", "layer-gelu") else run


def elementwise(op, count):
    rows, shape = count // COLUMNS, [count // COLUMNS, COLUMNS]
    what, granularity, codes = op.split("-")
    x = random.standard_normal(shape, dtype=np.float32)
    if op == "dynamic-tensor-u8":
        # Three outputs, of which binding takes one; the others are small.
        node = h.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
        return call(node, [], [("x", T.FLOAT, shape)], ("y", T.UINT8, shape), {"x": x})
    forms = {"tensor": ([], {}), "row": ([rows], {"axis": 0}), "column": ([COLUMNS], {"axis": 1})}
    for size in (32, 64, 128):
        forms[f"group{size}"] = ([rows, COLUMNS // size], {"axis": 1, "block_size": size})
    if what == "extent":
        node = h.make_node("ReduceMax", ["x"], ["y"], keepdims=0)
        return call(node, [], [("x", T.FLOAT, shape)], ("y", T.FLOAT, []), {"x": x})
    if granularity not in forms or codes not in ("u8", "i8"):
        raise Unsupported
    kind, dtype, zero = {"u8": (T.UINT8, np.uint8, 128), "i8": (T.INT8, np.int8, 0)}[codes]
    dims, attributes = forms[granularity]
    constants = [constant(np.full(dims, 0.04, np.float32), "s"), constant(np.full(dims, zero, dtype), "z")]
    if what == "quantize":
        node = h.make_node("QuantizeLinear", ["x", "s", "z"], ["y"], **attributes)
        return call(node, constants, [("x", T.FLOAT, shape)], ("y", kind, shape), {"x": x})
    if what == "dequantize":
        node = h.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], **attributes)
        codes = np.clip(np.rint(x / 0.04) + zero, *np.iinfo(dtype).min + np.array([0, 255])).astype(dtype)
        return call(node, constants, [("x", kind, shape)], ("y", T.FLOAT, shape), {"x": codes})
    raise Unsupported


def calibration(op, count):
    from onnxruntime.quantization.calibrate import HistogramCollector

    if op not in ("entropy_ort", "percentile-asymmetric"):
        raise Unsupported
    x = random.standard_normal(count, dtype=np.float32)
    settings = {"method": "entropy"} if op == "entropy_ort" else {"method": "percentile", "percentile": 99.99}

    def run():
        full = {"percentile": None, **settings}
        collector = HistogramCollector(symmetric=False, num_bins=2048, num_quantized_bins=128, scenario="same", **full)
        with contextlib.redirect_stdout(io.StringIO()):
            collector.collect({"x": [x]})
            collector.compute_collection_result()

    return run


def case(op, shape):
    if op.startswith("layer"):
        return layer(op, *shape)
    if len(shape) == 3:
        return product(op, *shape)
    if op.split("-")[0] in ("quantize", "dequantize", "extent", "dynamic"):
        return elementwise(op, *shape)
    return calibration(op, *shape)


serve("onnxruntime", onnxruntime.__version__, case, options.seconds)
