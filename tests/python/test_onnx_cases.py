"""Every (De)QuantizeLinear and DynamicQuantizeLinear case that the onnx package ships."""

import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
import onnxruntime

from client import DTYPES, dtype_name, nested

with warnings.catch_warnings():
    # The generators of other operators overflow on purpose.
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    ALL = [
        case
        for case in collect_testcases(None)
        if case.name.removeprefix("test_").split("_")[0]
        in ("quantizelinear", "dequantizelinear", "dynamicquantizelinear")
    ]

# Float formats are not integers; the expanded cases are the same data for other operators.
SKIPPED = {
    "test_quantizelinear_e4m3fn",
    "test_quantizelinear_e5m2",
    "test_quantizelinear_float4e2m1",
    "test_dequantizelinear_e4m3fn",
    "test_dequantizelinear_e4m3fn_float16",
    "test_dequantizelinear_e4m3fn_zero_point",
    "test_dequantizelinear_e5m2",
    "test_dequantizelinear_float4e2m1",
    "test_dynamicquantizelinear_expanded",
    "test_dynamicquantizelinear_max_adjusted_expanded",
    "test_dynamicquantizelinear_min_adjusted_expanded",
}
INTEGERS = {
    TensorProto.UINT2: (2, False),
    TensorProto.INT2: (2, True),
    TensorProto.UINT4: (4, False),
    TensorProto.INT4: (4, True),
    TensorProto.UINT8: (8, False),
    TensorProto.INT8: (8, True),
    TensorProto.UINT16: (16, False),
    TensorProto.INT16: (16, True),
}


def name_of(case):
    return case.name


def data(value):
    """A case's value as an array of plain integers or floats, and its bits."""
    if isinstance(value, TensorProto):
        kind, value = value.data_type, numpy_helper.to_array(value)
    else:
        kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    if kind in INTEGERS:
        bits, signed = INTEGERS[kind]
        container = {8: "i1" if signed else "u1", 16: "i2" if signed else "u2"}[max(bits, 8)]
        return value.astype(container), (bits, signed)
    return value, None


def supported(case):
    if len(case.model.graph.node) != 1:
        return False
    inputs, outputs = case.data_sets[0]
    codes = inputs[0] if case.name.startswith("test_dequantize") else outputs[0]
    return data(codes)[1] is not None


def attributes(case):
    (node,) = case.model.graph.node
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def geometry(case, x, scale):
    """The scheme fields that say what the shape of the scales says in ONNX."""
    given = attributes(case)
    axis = given.get("axis", 1)
    if given.get("block_size"):
        return {"granularity": "group", "axis": axis, "group_size": given["block_size"]}
    if np.size(scale) > 1:
        return {"granularity": "channel", "axis": axis}
    return {"granularity": "tensor"}


RUN = [case for case in ALL if case.name not in SKIPPED]


def test_nothing_is_left_out_silently():
    assert {case.name for case in ALL if not supported(case)} == SKIPPED
    assert len(RUN) >= 22
    assert all(len(case.data_sets) == 1 for case in ALL)


def cases(operator):
    chosen = [case for case in RUN if case.name.split("_")[1] == operator]
    return pytest.mark.parametrize("case", chosen, ids=name_of)


@cases("quantizelinear")
def test_quantize_linear(client, case):
    (x, scale, *zero_point), (expected,) = case.data_sets[0]
    expected, (bits, signed) = data(expected)
    scheme = {"bits": bits, "signed": signed, "scale": nested(scale), **geometry(case, x, scale)}
    if zero_point:
        scheme["zero_point"] = data(zero_point[0])[0].tolist()
    result = client.quantize(x, scheme)
    np.testing.assert_array_equal(result.codes, expected)
    np.testing.assert_array_equal(result.scale.ravel(), np.ravel(scale))
    if bits < 8:
        packed = client.quantize(x, scheme | {"packed": True})
        assert packed.codes.tobytes() == onnx_packed(expected, bits)


def onnx_packed(codes, bits):
    """The bytes in which ONNX stores sub-byte integers."""
    kinds = {value: key for key, value in INTEGERS.items()}
    kind = kinds[(bits, codes.dtype.kind == "i")]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    return numpy_helper.from_array(codes.astype(dtype)).raw_data


@cases("dequantizelinear")
def test_dequantize_linear(client, case):
    (codes, scale, *zero_point), (expected,) = case.data_sets[0]
    codes, (bits, signed) = data(codes)
    body = {
        "dtype": dtype_name(codes),
        "shape": list(codes.shape),
        "codes": codes.tolist(),
        "scale": nested(scale),
        "scheme": {"bits": bits, "signed": signed, **geometry(case, codes, scale)},
    }
    if zero_point:
        body["zero_point"] = data(zero_point[0])[0].tolist()
    response = client.post("/v1/dequantize", body)
    assert response.status_code == 200, response.text
    found = np.array(response.json()["data"], DTYPES[response.json()["dtype"]])
    np.testing.assert_array_equal(found, expected)


@cases("dynamicquantizelinear")
def test_dynamic_quantize_linear(client, case):
    (x,), (codes, scale, zero_point) = case.data_sets[0]
    result = client.quantize(x, "uint8")
    np.testing.assert_array_equal(result.codes, codes)
    assert result.scale == scale and result.scale.dtype == np.float32
    assert result.zero_point == zero_point


def operator():
    """A model of DynamicQuantizeLinear alone."""
    kinds = [TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in zip("ysz", kinds)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    graph = helper.make_graph([helper.make_node("DynamicQuantizeLinear", ["x"], list("ysz"))], "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def awkward():
    """Tensors whose widths F32 rounds: of all sizes, one-sided, and with ends that make ties."""
    rng = np.random.default_rng(525)
    yield np.array([-0.1, 0.5], "f4")
    yield np.array([3e38, -3e37], "f4")
    yield np.array([0, -1e-37, 2e-37], "f4")
    yield np.array([0, 4e-39], "f4")
    for i in range(120):
        x = rng.normal(size=int(rng.integers(1, 40))) * 10.0 ** rng.integers(-20, 20)
        x = x + rng.normal() * np.abs(x).max() * (i % 3)
        yield x.astype("f4")
    for i in range(60):
        low, steps = -rng.uniform(), rng.integers(1, 255)
        yield np.array([low, -low * (255 - steps - 0.5) / (steps + 0.5), low / 3], "f4")


def test_uint8_is_dynamic_quantize_linear_for_any_tensor(client):
    model = operator()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    judges = [lambda x: session.run(None, {"x": x}), lambda x: ReferenceEvaluator(model).run(None, {"x": x})]
    for x in awkward():
        result = client.quantize(x, "uint8")
        for judge in judges:
            codes, scale, zero_point = judge(x)
            np.testing.assert_array_equal(result.scale, scale, err_msg=str(x))
            np.testing.assert_array_equal(result.zero_point, zero_point, err_msg=str(x))
            np.testing.assert_array_equal(result.codes, codes, err_msg=str(x))
        # However the range is found, and whatever came to be F32.
        given = client.quantize(x, {"signed": False, "min": float(x.min()), "max": float(x.max())})
        assert (given.scale, given.zero_point) == (result.scale, result.zero_point)


def test_operands_and_calibrators_follow_the_operator(client):
    session = onnxruntime.InferenceSession(operator().SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[-0.1, 0.5]], "f4")
    _, scale, zero_point = session.run(None, {"x": x})
    response = client.post("/v1/matmul", {"a": {"data": nested(x)}, "b": {"data": [[1], [1]]}})
    found = response.json()["a"]
    assert (np.float32(found["scale"]), found["zero_point"]) == (scale, zero_point)
    response = client.post("/v1/calibrators", {"name": "operator", "scheme": "uint8", "replace": True})
    assert response.status_code in (200, 201), response.text
    client.post("/v1/calibrators/operator/batches", {"data": nested(x)})
    found = client.request("GET", "/v1/calibrators/operator").json()
    assert (np.float32(found["scale"]), found["zero_point"]) == (scale, zero_point)
