"""Products against ONNX Runtime, the reference of ONNX, and the integer formulas of gemmlowp."""

import base64
import math
import subprocess
import zlib

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from client import JSON, RAW, SAFETENSORS, check_problem, dtype_name, read_tensor
from server import binary, clean_environment

SHAPES = [(1, 1, 1), (1, 7, 3), (5, 16, 17), (13, 33, 65), (32, 128, 48), (3, 257, 130)]
MIXES = [("u1", "i1"), ("i1", "i1"), ("u1", "u1"), ("i1", "u1")]
KINDS = {np.dtype("u1"): TensorProto.UINT8, np.dtype("i1"): TensorProto.INT8}


def seeded(*case):
    """Random numbers of a case's own, the same in every run."""
    return np.random.default_rng(zlib.crc32(repr(case).encode()))


def codes(rng, shape, kind):
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max + 1, shape).astype(kind)


def operand(array, **fields):
    return {"codes": array.ravel().tolist(), "shape": array.shape, "dtype": dtype_name(array)} | fields


def model(op, inputs, output, domain=""):
    """A model of one node whose inputs are all given at run time."""
    names = list(inputs)
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    node = helper.make_node(op, names, ["c"], domain=domain)
    out = helper.make_tensor_value_info("c", output, None)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "g", infos, [out])
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run_ort(op, inputs, output, domain=""):
    text = model(op, inputs, output, domain).SerializeToString()
    return onnxruntime.InferenceSession(text, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def post(client, body, **options):
    response = client.post("/v1/matmul", body, **options)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("mix", MIXES, ids="x".join)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matmul_integer(client, shape, mix):
    """MatMulInteger of the ONNX reference, zero points for each row and column."""
    m, k, n = shape
    rng = seeded(shape, mix)
    a, b = codes(rng, (m, k), mix[0]), codes(rng, (k, n), mix[1])
    a_zero, b_zero = codes(rng, (m, 1), mix[0]), codes(rng, n, mix[1])
    inputs = {"a": a, "b": b, "az": a_zero, "bz": b_zero}
    expect = ReferenceEvaluator(model("MatMulInteger", inputs, TensorProto.INT32)).run(None, inputs)[0]
    body = {
        "a": operand(a, zero_point=a_zero.ravel().tolist(), scheme={"granularity": "token"}),
        "b": operand(b, zero_point=b_zero.tolist(), scheme={"granularity": "channel", "axis": 1}),
    }
    np.testing.assert_array_equal(read_tensor(post(client, body)), expect)
    # And without zero points, by ONNX Runtime.
    expect = run_ort("MatMulInteger", {"a": a, "b": b}, TensorProto.INT32)
    body = {"a": operand(a), "b": operand(b)}
    np.testing.assert_array_equal(read_tensor(post(client, body)), expect)


@pytest.mark.parametrize("mode", ["float_ort", "float_onnx"])
@pytest.mark.parametrize("mix", [("u1", "i1"), ("u1", "u1"), ("i1", "i1")], ids="x".join)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_qlinear_matmul(client, shape, mix, mode):
    """QLinearMatMul: ONNX Runtime rounds before the zero point, the reference of ONNX after it."""
    m, k, n = shape
    rng = seeded(shape, mix, mode)
    a, b = codes(rng, (m, k), mix[0]), codes(rng, (k, n), mix[1])
    zero = {kind: np.array(7, kind) for kind in ("u1", "i1")}
    b_scale = rng.uniform(0.01, 0.03, n).astype("f4")
    c_scale = np.float32(0.9 * math.sqrt(k))
    inputs = {
        "a": a, "as": np.array(0.02, "f4"), "az": zero[mix[0]],
        "b": b, "bs": b_scale, "bz": np.full(n, 3, mix[1]),
        "cs": np.array(c_scale), "cz": zero[mix[0]],
    }  # fmt: skip
    if mode == "float_ort":
        expect = run_ort("QLinearMatMul", inputs, KINDS[np.dtype(mix[0])])
    else:
        onnx_model = model("QLinearMatMul", inputs, KINDS[np.dtype(mix[0])])
        expect = ReferenceEvaluator(onnx_model).run(None, inputs)[0]
    body = {
        "a": operand(a, scale=float(inputs["as"]), zero_point=7),
        "b": operand(b, scale=b_scale.astype("f8").tolist(), zero_point=3, scheme={"axis": 1}),
        "output_dtype": dtype_name(expect),
        "output_scale": float(c_scale),
        "output_zero_point": 7,
        "requantize": mode,
    }
    np.testing.assert_array_equal(read_tensor(post(client, body)), expect)


def gemmlowp(sums, real, single):
    """numerics of gemmlowp and TFLite in Python's integers."""
    fraction, exponent = math.frexp(real)
    mantissa = math.floor(fraction * 2**31 + 0.5)
    if mantissa == 2**31:
        mantissa, exponent = mantissa // 2, exponent + 1

    def one(x):
        if single:
            shift = 31 - exponent
            return (x * mantissa + (1 << (shift - 1))) >> shift
        product = (x << max(exponent, 0)) * mantissa
        nudge = 2**30 if product >= 0 else 1 - 2**30
        high = abs(product + nudge) // 2**31 * (1 if product + nudge >= 0 else -1)
        right = max(-exponent, 0)
        mask = (1 << right) - 1
        threshold = (mask >> 1) + (1 if high < 0 else 0)
        return (high >> right) + (1 if (high & mask) > threshold else 0)

    return np.array([one(int(x)) for x in sums.ravel()]).reshape(sums.shape)


@pytest.mark.parametrize("mode", ["gemmlowp", "single_round"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("c_scale", [0.0004, 1.0, 3.7, 900.0])
def test_fixed_point(client, mode, relu, c_scale):
    rng = np.random.default_rng(7)
    a, b = codes(rng, (9, 40), "i1"), codes(rng, (40, 21), "i1")
    bias = rng.integers(-5000, 5000, 21)
    sums = (a.astype(int) + 5) @ b.astype(int) + bias
    a_scale, b_scale = np.float32(0.05), np.float32(0.11)
    real = float(a_scale) * float(b_scale) / float(np.float32(c_scale))
    expect = gemmlowp(sums, real, mode == "single_round") - 3
    expect = np.clip(expect, -3 if relu else -128, 127)
    body = {
        "a": operand(a, scale=float(a_scale), zero_point=-5),
        "b": operand(b, scale=float(b_scale)),
        "bias": bias.tolist(), "relu": relu, "requantize": mode,
        "output_dtype": "I8", "output_scale": c_scale, "output_zero_point": -3,
    }  # fmt: skip
    np.testing.assert_array_equal(read_tensor(post(client, body)), expect)
    # A bias may be a tensor, of the type that goes with the product unless it says so.
    tensor = {"data_b64": base64.b64encode(bias.astype("<i4").tobytes()).decode(), "shape": [21]}
    for given in tensor, tensor | {"dtype": "I32"}, {"data": bias.tolist()}:
        response = post(client, body | {"bias": given})
        np.testing.assert_array_equal(read_tensor(response), expect)
    for wrong, place in [
        ({"data": [1] * 21, "dtype": "F32"}, "/bias"),
        ({"data": [1] * 21, "scheme": "int8"}, "/bias/scheme"),
        ({"shape": [21]}, "/bias/data"),
    ]:
        check_problem(client.post("/v1/matmul", body | {"bias": wrong}), "invalid-option", 400, place)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dynamic_quantize_matmul(client, shape):
    """DynamicQuantizeMatMul of ONNX Runtime, whose last step may be a fused multiplication."""
    m, k, n = shape
    rng = np.random.default_rng(k)
    x = rng.standard_normal((m, k)).astype("f4")
    b = codes(rng, (k, n), "i1")
    b_scale = rng.uniform(0.01, 0.02, n).astype("f4")
    bias = rng.standard_normal(n).astype("f4")
    inputs = {"a": x, "b": b, "s": b_scale}
    graph_model = model("DynamicQuantizeMatMul", inputs, TensorProto.FLOAT, "com.microsoft")
    # Optional inputs: no zero point, then the bias.
    graph_model.graph.node[0].input.extend(["", "bias"])
    graph_model.graph.initializer.append(numpy_helper.from_array(bias, "bias"))
    session = onnxruntime.InferenceSession(
        graph_model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expect = session.run(None, inputs)[0]
    body = {
        "a": {"data": x.astype("f8").tolist(), "scheme": "uint8"},
        "b": operand(b, scale=b_scale.astype("f8").tolist(), scheme={"axis": 1}),
        "bias": bias.astype("f8").tolist(),
    }
    found = read_tensor(post(client, body))
    np.testing.assert_allclose(found, expect, rtol=2e-6, atol=1e-6 * np.abs(expect).max())
    # The documented formula exactly, from the documented parameters.
    answer = post(client, body).json()
    scale, zero = np.float32(answer["a"]["scale"]), answer["a"]["zero_point"]
    q = np.clip(np.rint(x / scale) + zero, 0, 255).astype(int) - zero
    exact = (q @ b.astype(int)).astype("f4") * (scale * b_scale) + bias
    np.testing.assert_array_equal(found, exact)


@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("asymmetric", [False, True])
def test_matmul_nbits(client, block, asymmetric):
    """Against MatMulNBits on exact activations, and exactly against the formula."""
    rng = np.random.default_rng(block)
    m, k, n = 3, 256, 40
    groups = k // block
    a = rng.integers(-127, 128, (m, k)).astype("i1")
    q = rng.integers(0, 16, (n, k)).astype("u1")
    scale = rng.uniform(0.01, 0.02, (n, groups)).astype("f4")
    zero = rng.integers(0, 16, (n, groups)).astype("u1") if asymmetric else np.full((n, groups), 8, "u1")
    body = {
        "a": operand(a, scale=0.25),
        "b": operand(
            q,
            scale=scale.astype("f8").tolist(),
            zero_point=zero.tolist(),
            scheme={"bits": 4, "signed": False, "granularity": "group", "axis": 1, "group_size": block},
        ),
        "transpose_b": True,
    }
    found = read_tensor(post(client, body))
    total = np.zeros((m, n), "f4")
    for g in range(groups):
        part = slice(g * block, (g + 1) * block)
        sums = a[:, part].astype(int) @ (q[:, part].astype(int) - zero[:, g, None]).T
        total += sums.astype("f4") * (np.float32(0.25) * scale[:, g])
    np.testing.assert_array_equal(found, total)
    pairs = q.reshape(n, groups, block // 2, 2)
    packed = pairs[..., 0] | pairs[..., 1] << 4
    if groups % 2:
        zero = np.concatenate([zero, np.zeros((n, 1), "u1")], 1)
    zeros = zero[:, 0::2] | zero[:, 1::2] << 4
    x = a.astype("f4") * np.float32(0.25)
    node = helper.make_node(
        "MatMulNBits", ["x", "b", "s", "z"], ["c"],
        domain="com.microsoft", K=k, N=n, bits=4, block_size=block, accuracy_level=1,
    )  # fmt: skip
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [info("x", TensorProto.FLOAT, [m, k])], [info("c", TensorProto.FLOAT, [m, n])],
        [numpy_helper.from_array(packed, "b"), numpy_helper.from_array(scale.ravel(), "s"),
         numpy_helper.from_array(zeros.ravel(), "z")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    expect = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(found, expect, rtol=1e-4, atol=1e-4 * np.abs(expect).max())


def test_every_instruction_set_and_thread_count_answers_alike(client, start):
    """Quantized and multiplied on each set that the machine has: the same bytes."""
    rng = np.random.default_rng(3)
    tensors = {
        "a": rng.standard_normal((37, 515)).astype("f4"),
        "b": rng.standard_normal((515, 131)).astype("f4"),
        "bias": rng.standard_normal(131).astype("f4"),
    }
    product = safetensors.numpy.save(tensors)
    weights = safetensors.numpy.save({"w": tensors["b"]})
    requests = [
        ("/v1/matmul", product, {"a_scheme": "int8_per_token"}),
        ("/v1/matmul", product, {"output_dtype": "U8", "output_scale": 0.3, "output_zero_point": 99}),
        ("/v1/quantize", weights, {"preset": "int8_per_channel", "axis": 1}),
        ("/v1/quantize", weights, {"preset": "int4_g32", "range": "mse"}),
        ("/v1/quantize", weights, {"preset": "uint8", "profile": "torch"}),
    ]
    requests[1] = (requests[1][0], safetensors.numpy.save({n: tensors[n] for n in "ab"}), requests[1][2])

    def answers(client):
        made = []
        for path, body, params in requests:
            response = client.post(path, body, kind=SAFETENSORS, accept=SAFETENSORS, params=params)
            assert response.status_code == 200, response.text
            made.append(response.content)
        return made

    info = client.request("GET", "/info").json()
    expect = answers(client)
    for isa in info["isa_available"]:
        for threads in ("1", "3"):
            other = type(client)(start("--isa", isa, "--threads", threads).url)
            assert other.request("GET", "/info").json()["isa"] == isa
            assert answers(other) == expect, (isa, threads)


def test_an_unknown_instruction_set_ends_the_start():
    command = [str(binary()), "serve", "--port", "0", "--isa", "mmx"]
    ended = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert "auto" in ended.stderr and "scalar" in ended.stderr, ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr


def test_raw_answer_of_json_operands(client):
    body = {"a": {"codes": [[1, 2]]}, "b": {"codes": [[3], [-4]]}}
    response = post(client, body, accept=RAW)
    assert np.frombuffer(response.content, "<i4").tolist() == [-5]
    assert response.headers["quantd-shape"] == "1,1"
    response = client.post("/v1/matmul", body, kind=JSON, params={"relu": True})
    assert response.status_code == 400
