"""Layers against ONNX Runtime, the reference of ONNX, and plain formulas."""

import itertools
import json
import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
import onnxruntime

from client import (
    JSON,
    NPY,
    RAW,
    SAFETENSORS,
    check_problem,
    dtype_name,
    encode,
    read_tensor,
    tensor_json,
    write_safetensors,
)
from reference import Codes, parameters
from reference import encode as quantized
from test_matmul import KINDS, codes, operand, run_ort, seeded

U8 = Codes(8, False, False, False)
SIGNED = {"u1": False, "i1": True}


def make(client, name, **fields):
    response = client.request("put", f"/v1/layers/{name}", data=json.dumps(fields), headers={"content-type": JSON})
    return made(response)


def made(response):
    """The description of a layer; 201 says that the name is new."""
    assert response.status_code in (200, 201), response.text
    doc = response.json()
    assert (response.status_code == 201) == (doc["version"] == 1)
    assert response.headers.get("location") == (f"/v1/layers/{doc['name']}" if doc["version"] == 1 else None)
    return doc


def forward(client, name, x, **fields):
    response = client.post(f"/v1/layers/{name}/forward", tensor_json(x) | fields)
    assert response.status_code == 200, response.text
    return read_tensor(response)


def dynamic(rows, codes=U8):
    """Codes, scales and zero points of rows, each with its own."""
    scale, zero = zip(*(parameters(row.min(), row.max(), codes, "onnx", np.float32) for row in rows))
    scale, zero = np.array(scale, "f4")[:, None], np.array(zero)[:, None]
    return quantized(rows, scale, zero, codes, "onnx"), scale, zero


def graph(nodes, inputs, constants, output):
    """A model of several nodes."""
    kind = helper.np_dtype_to_tensor_dtype
    infos = [helper.make_tensor_value_info(n, kind(v.dtype), v.shape) for n, v in inputs.items()]
    out = [helper.make_tensor_value_info(output[0], output[1], None)]
    made = helper.make_graph(nodes, "g", infos, out, [numpy_helper.from_array(v, n) for n, v in constants.items()])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def ort(model, inputs):
    options = onnxruntime.SessionOptions()
    # As the operators are defined, not as they are fused.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.parametrize("rows", [1, 5])
def test_dynamic_is_dynamic_quantize_linear_and_matmul_integer(client, rows):
    """One scale for all rows, as ONNX Runtime quantizes a model dynamically."""
    n, k = 33, 70
    rng = seeded("dynamic", rows)
    x = rng.normal(size=(rows, k)).astype("f4")
    w, bias = rng.normal(size=(n, k)).astype("f4"), rng.normal(size=n).astype("f4")
    scale = np.abs(w).max(1).astype("f8") / 127
    scale = scale.astype("f4")
    wq = np.clip(np.rint(w / scale[:, None]), -127, 127).astype("i1")
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "ws"], ["m"]),
        helper.make_node("Mul", ["real", "m"], ["y0"]),
        helper.make_node("Add", ["y0", "b"], ["y1"]),
        helper.make_node("Relu", ["y1"], ["y"]),
    ]
    model = graph(nodes, {"x": x}, {"w": wq.T.copy(), "ws": scale, "b": bias}, ("y", TensorProto.FLOAT))
    expect = ort(model, {"x": x})
    whole = {"granularity": "tensor", "signed": False}
    make(client, "dynamic", weight=tensor_json(w), bias=bias.tolist(), activation="relu", input=whole)
    np.testing.assert_array_equal(forward(client, "dynamic", x), expect)
    # The default quantizes row by row: each as if it were alone.
    make(client, "dynamic", weight=tensor_json(w), bias=bias.tolist(), activation="relu")
    model = graph(nodes, {"x": x[:1]}, {"w": wq.T.copy(), "ws": scale, "b": bias}, ("y", TensorProto.FLOAT))
    each = np.concatenate([ort(model, {"x": row[None]}) for row in x])
    np.testing.assert_array_equal(forward(client, "dynamic", x), each)


@pytest.mark.parametrize("mode", ["float_ort", "float_onnx"])
@pytest.mark.parametrize("mix", [("u1", "i1"), ("u1", "u1"), ("i1", "i1")], ids="x".join)
def test_static_codes_are_qlinear_matmul(client, mix, mode):
    """QLinearMatMul: codes in, codes out."""
    m, k, n = 13, 33, 65
    rng = seeded("static", mix, mode)
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
        kind = KINDS[np.dtype(mix[0])]
        node = helper.make_node("QLinearMatMul", list(inputs), ["c"])
        expect = ReferenceEvaluator(graph([node], inputs, {}, ("c", kind))).run(None, inputs)[0]
    weight = operand(b, scale=b_scale.astype("f8").tolist(), zero_point=3, scheme={"axis": 1, "signed": SIGNED[mix[1]]})
    static = {"scale": float(inputs["as"]), "zero_point": 7, "signed": SIGNED[mix[0]]}
    result = {"scale": float(c_scale), "zero_point": 7, "signed": SIGNED[mix[0]], "requantize": mode}
    doc = make(client, "qlinear", weight=weight, transpose=True, input=static, output=result)
    assert (doc["input"]["mode"], doc["output"]["requantize"]) == ("static", mode)
    made = forward(client, "qlinear", a)
    assert made.dtype == expect.dtype
    np.testing.assert_array_equal(made, expect)


CONVS = {
    "plain": ((2, 3, 8, 9), (4, 3, 3, 3), {}),
    "padded": ((1, 4, 7, 7), (6, 4, 3, 3), {"padding": 1}),
    "strided": ((2, 2, 9, 10), (5, 2, 3, 2), {"stride": [2, 3], "padding": [1, 0, 2, 1]}),
    "dilated": ((1, 3, 11, 11), (4, 3, 3, 3), {"dilation": [2, 1], "padding": [2, 1]}),
    "grouped": ((2, 6, 6, 6), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((1, 5, 6, 6), (10, 1, 3, 3), {"groups": 5, "stride": 2, "padding": 1}),
    "pointwise": ((3, 8, 5, 5), (7, 8, 1, 1), {}),
}


def attributes(options):
    """The same geometry in the words of ONNX."""
    pads = np.broadcast_to(options.get("padding", 0), 1) if np.isscalar(options.get("padding", 0)) else options["padding"]
    pads = list(pads) * {1: 4, 2: 2, 4: 1}[len(pads)]
    pair = lambda value: [value, value] if np.isscalar(value) else list(value)
    return {
        "pads": [int(p) for p in pads],
        "strides": pair(options.get("stride", 1)),
        "dilations": pair(options.get("dilation", 1)),
        "group": options.get("groups", 1),
    }


@pytest.mark.parametrize("case", CONVS)
def test_convolution_is_conv_integer_and_qlinear_conv(client, case):
    """ConvInteger with a zero point that padding must not disturb, and QLinearConv with a bias."""
    shape, kernel, options = CONVS[case]
    rng = seeded("conv", case)
    x, w = codes(rng, shape, "u1"), codes(rng, kernel, "i1")
    n = kernel[0]
    w_scale = rng.uniform(0.01, 0.03, n).astype("f4")
    x_scale, x_zero = np.float32(0.017), np.uint8(121)
    node = helper.make_node("ConvInteger", ["x", "w", "z"], ["y"], **attributes(options))
    constants = {"w": w, "z": np.array(x_zero)}
    sums = ReferenceEvaluator(graph([node], {"x": x}, constants, ("y", TensorProto.INT32))).run(None, {"x": x})[0]
    np.testing.assert_array_equal(sums, ort(graph([node], {"x": x}, constants, ("y", TensorProto.INT32)), {"x": x}))
    static = {"scale": float(x_scale), "zero_point": int(x_zero), "signed": False}
    weight = operand(w, scale=w_scale.astype("f8").tolist(), scheme={"axis": 0})
    make(client, "conv", kind="conv2d", weight=weight, input=static, **options)
    made = forward(client, "conv", x)
    scales = (x_scale * w_scale)[:, None, None]
    np.testing.assert_array_equal(made, sums.astype("f4") * scales)

    bias = rng.normal(scale=20, size=n).astype("f4")
    bias_codes = np.rint(bias / (x_scale * w_scale)).astype("i4")
    y_scale, y_zero = np.float32(np.abs(made).max() / 100), np.uint8(100)
    names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
    node = helper.make_node("QLinearConv", names, ["y"], **attributes(options))
    constants = {
        "xs": np.array(x_scale), "xz": np.array(x_zero), "w": w, "ws": w_scale, "wz": np.zeros(n, "i1"),
        "ys": np.array(y_scale), "yz": np.array(y_zero), "b": bias_codes,
    }  # fmt: skip
    expect = ort(graph([node], {"x": x}, constants, ("y", TensorProto.UINT8)), {"x": x})
    result = {"scale": float(y_scale), "zero_point": int(y_zero), "signed": False}
    make(client, "conv", kind="conv2d", weight=weight, bias=bias.astype("f8").tolist(), input=static, output=result, **options)
    np.testing.assert_array_equal(forward(client, "conv", x), expect)


def test_convolution_of_real_images(client):
    """Near the float convolution, image by image with a scale of its own."""
    rng = seeded("images")
    x = rng.normal(size=(3, 4, 9, 9)).astype("f4") * np.array([1, 30, 0.1], "f4")[:, None, None, None]
    w, bias = rng.normal(size=(6, 4, 3, 3)).astype("f4"), rng.normal(size=6).astype("f4")
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1] * 4)
    expect = ort(graph([node], {"x": x}, {"w": w, "b": bias}, ("y", TensorProto.FLOAT)), {"x": x})
    doc = make(client, "images", kind="conv2d", weight=tensor_json(w), bias=bias.tolist(), padding=1)
    assert doc["weight"]["granularity"] == "channel" and doc["row_independent"]
    made = forward(client, "images", x)
    for image, other in zip(made, expect):
        assert np.linalg.norm(image - other) < 0.02 * np.linalg.norm(other)
    alone = np.concatenate([forward(client, "images", image[None]) for image in x])
    np.testing.assert_array_equal(made, alone)


@pytest.mark.parametrize("size", [32, 128])
def test_groups_of_four_bits(client, size):
    """The sums of each group in integers, scaled and added in their order."""
    m, k, n = 4, 256, 128
    rng = seeded("groups", size)
    x, w = rng.normal(size=(m, k)).astype("f4"), rng.normal(size=(n, k)).astype("f4")
    answer = client.quantize(w, {"bits": 4, "group_size": size, "signed": False})
    doc = make(client, "groups", weight=tensor_json(w) | {"scheme": {"bits": 4, "group_size": size, "signed": False}})
    assert (doc["weight"]["bits"], doc["weight"]["group_size"]) == (4, size)
    a, scale, zero = dynamic(x)
    expect = np.zeros((m, n), "f4")
    for g in range(-(-k // size)):
        part = slice(g * size, (g + 1) * size)
        sums = (a[:, part] - zero) @ (answer.codes[:, part].astype(int) - answer.zero_point[:, g : g + 1]).T
        expect = expect + sums.astype("f4") * (scale * answer.scale[:, g][None])
    np.testing.assert_array_equal(forward(client, "groups", x), expect)
    # Half a byte a weight, and a scale and a zero point for each group.
    assert doc["memory"]["packed_bytes"] < 0.7 * n * k + 5 * n * -(-k // size)


@pytest.mark.parametrize("kind,scheme", [(JSON, "int8_per_channel"), (SAFETENSORS, "int4_g32"), (JSON, "uint4_g128"), (SAFETENSORS, "uint8")])
def test_answers_of_quantize_are_weights(client, kind, scheme):
    """A layer of codes is the layer of the weights they were made of."""
    rng = seeded(kind, scheme)
    w, x = rng.normal(size=(17, 160)).astype("f4"), rng.normal(size=(3, 160)).astype("f4")
    whole = {"granularity": "tensor"} if scheme == "uint8" else {}
    make(client, "real", weight=tensor_json(w) | {"scheme": {"preset": scheme} | whole})
    if kind == JSON:
        answer = client.post("/v1/quantize", tensor_json(w) | {"scheme": scheme}).json()
        make(client, "coded", weight=answer)
    else:
        file = write_safetensors({"weight": w})
        answer = client.post("/v1/quantize", file, kind=SAFETENSORS, params={"preset": scheme})
        made(client.request("put", "/v1/layers/coded", data=answer.content, headers={"content-type": SAFETENSORS}))
    np.testing.assert_array_equal(forward(client, "coded", x), forward(client, "real", x))


def test_every_format_gives_the_same(client):
    """JSON, npy, safetensors and bare elements, in and out, of every float type."""
    rng = seeded("formats")
    w, bias = rng.normal(size=(5, 8)).astype("f4"), rng.normal(size=5).astype("f4")
    file = write_safetensors({"weight": w, "bias": bias})
    params = {"activation": "gelu", "scheme.bits": 8, "scheme.axis": 0, "input": "int8_per_token", "keep_float": False}
    response = client.request("put", "/v1/layers/formats", data=file, params={k: str(v).lower() for k, v in params.items()}, headers={"content-type": SAFETENSORS})
    doc = made(response)
    assert doc["memory"]["held_bytes"] == doc["memory"]["packed_bytes"]
    make(client, "same", weight=tensor_json(w) | {"scheme": {"bits": 8, "axis": 0}}, bias=tensor_json(bias, True), activation="gelu", input="int8_per_token")
    for dtype in ("f4", "f2", "f8"):
        x = rng.normal(size=(2, 3, 8)).astype(dtype)
        expect = forward(client, "same", x)
        assert expect.shape == (2, 3, 5)
        for kind, accept in itertools.product((NPY, RAW, SAFETENSORS), (JSON, NPY, RAW, SAFETENSORS)):
            params = {"dtype": dtype_name(x), "shape": list(x.shape)} if kind == RAW else {}
            answer = client.post("/v1/layers/formats/forward", encode(x, kind), kind=kind, accept=accept, params=params)
            assert answer.status_code == 200, answer.text
            np.testing.assert_array_equal(read_tensor(answer), expect, f"{dtype} {kind} {accept}")


def test_a_weight_alone_in_any_format(client):
    """An array, or what quantize answered for one without a name."""
    rng = seeded("alone")
    w, x = rng.normal(size=(12, 64)).astype("f4"), rng.normal(size=(2, 64)).astype("f4")
    make(client, "alone", weight=tensor_json(w) | {"scheme": "int4_g32"}, activation="relu")
    expect = forward(client, "alone", x)
    answer = client.post("/v1/quantize", encode(w, NPY), kind=NPY, params={"preset": "int4_g32", "packed": "true"}).content
    raw = {"dtype": "F32", "shape": "12,64"}
    for kind, body, params in [
        (NPY, encode(w, NPY), {"scheme": "int4_g32"}),
        (RAW, encode(w, RAW), raw | {"scheme.bits": "4", "scheme.group_size": "32"}),
        (RAW, encode(w, RAW), raw | {"scheme": "int4_g128", "scheme.group_size": "32"}),
        (SAFETENSORS, answer, {}),
    ]:  # fmt: skip
        params = params | {"name": "alone", "activation": "relu"}
        client.request("delete", "/v1/layers/alone")
        response = client.post("/v1/layers", body, kind=kind, params=params)
        assert response.status_code == 201, response.text
        np.testing.assert_array_equal(forward(client, "alone", x), expect)


@pytest.mark.parametrize("name,function", [
    ("gelu", lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))),
    ("gelu_tanh", lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
])
def test_smooth_activations(client, name, function):
    """In double precision on the real result; and as codes after it."""
    rng = seeded(name)
    w, x = rng.normal(size=(40, 16)).astype("f4"), rng.normal(size=(9, 16)).astype("f4")
    make(client, "smooth", weight=tensor_json(w))
    before = forward(client, "smooth", x).astype("f8")
    make(client, "smooth", weight=tensor_json(w), activation=name)
    after = forward(client, "smooth", x)
    np.testing.assert_allclose(after, function(before), rtol=1e-6, atol=1e-7)
    make(client, "smooth", weight=tensor_json(w), activation=name, output={"scale": 0.05, "zero_point": 10, "signed": False})
    expect = np.clip(np.rint(after / np.float32(0.05)) + 10, 0, 255).astype("u1")
    np.testing.assert_array_equal(forward(client, "smooth", x), expect)


def test_evaluate(client):
    """Its figures are those of NumPy on what forward answers."""
    rng = seeded("evaluate")
    w, bias = rng.normal(size=(48, 96)).astype("f4"), rng.normal(size=48).astype("f4")
    x = rng.normal(size=(20, 96)).astype("f4")
    for fields in [{"scheme": "int8_per_channel"}, {"scheme": "int4_g32"}]:
        doc = make(client, "judged", weight=tensor_json(w) | fields, bias=bias.tolist(), activation="relu")
        made = forward(client, "judged", x).astype("f8")
        real = np.maximum(x.astype("f8") @ w.T + bias, 0)
        response = client.post("/v1/layers/judged/evaluate", tensor_json(x))
        assert response.status_code == 200, response.text
        answer = response.json()
        error = made - real
        expect = {
            "mse": np.mean(error**2),
            "max_abs_error": np.abs(error).max(),
            "sqnr_db": 10 * np.log10(np.sum(real**2) / np.sum(error**2)),
            "cosine": np.sum(real * made) / np.sqrt(np.sum(real**2) * np.sum(made**2)),
        }
        for key, value in expect.items():
            assert answer["error"][key] == pytest.approx(value, rel=1e-3), key
        assert answer["error"]["sqnr_db"] > (35 if fields["scheme"].startswith("int8") else 15)
        assert answer["memory"] == doc["memory"]
        assert answer["memory"]["float_bytes"] == 4 * (48 * 96 + 48)
        assert answer["compression_ratio"] == pytest.approx(doc["memory"]["float_bytes"] / doc["memory"]["packed_bytes"])
        assert answer["time"]["integer_ms"] > 0 and answer["time"]["float_ms"] > 0
    make(client, "judged", weight=tensor_json(w), keep_float=False)
    response = client.post("/v1/layers/judged/evaluate", tensor_json(x))
    check_problem(response, "conflict", 409, "/keep_float")


def test_a_chain_is_its_layers_one_by_one(client):
    """Codes go on as they are where both sides say so, else by way of F32."""
    rng = seeded("chain")
    codes = {"scale": 0.04, "zero_point": 20, "signed": False}
    kernel = rng.normal(size=(3, 2, 3, 3)).astype("f4")
    first, last = rng.normal(size=(24, 3 * 4 * 4)).astype("f4"), rng.normal(size=(5, 24)).astype("f4")
    make(client, "c1", kind="conv2d", weight=tensor_json(kernel), activation="relu", input={"scale": 0.05}, output=codes)
    make(client, "c2", weight=tensor_json(first / 8), activation="gelu", input=codes, output={"scale": 0.03, "zero_point": 9, "signed": False})
    make(client, "c3", weight=tensor_json(last), bias=[0.5] * 5)
    doc = make(client, "net", chain=["c1", "c2", "c3"])
    assert [link["passes_codes"] for link in doc["chain"]] == [True, False, None]
    assert doc["memory"]["packed_bytes"] == sum(
        client.request("get", f"/v1/layers/{name}").json()["memory"]["packed_bytes"] for name in ("c1", "c2", "c3")
    )
    x = rng.normal(size=(7, 2, 6, 6)).astype("f4")
    a = forward(client, "c1", x)
    assert a.dtype == np.uint8 and a.shape == (7, 3, 4, 4)
    b = forward(client, "c2", a.reshape(7, -1))
    b = (b.astype("f4") - np.float32(9)) * np.float32(0.03)
    np.testing.assert_array_equal(forward(client, "net", x), forward(client, "c3", b))
    answer = client.post("/v1/layers/net/evaluate", tensor_json(x)).json()
    assert answer["error"]["sqnr_db"] > 15 and answer["shape"] == [7, 5]


def test_parameters_of_calibrators(client):
    """Static inputs and outputs are those that calibrators read out at the moment."""
    rng = seeded("calibrators")
    w, x = rng.normal(size=(6, 10)).astype("f4"), rng.normal(size=(50, 10)).astype("f4")
    y = x @ w.T
    for name, seen, scheme in [("in", x, "uint8"), ("out", y, "int8")]:
        body = {"name": name, "scheme": scheme, "replace": True}
        assert client.post("/v1/calibrators", body).status_code in (200, 201)
        body = {"weight": tensor_json(w), "input": {"calibrator": name}}
        response = client.request("put", "/v1/layers/unlearnt", data=json.dumps(body), headers={"content-type": JSON})
        check_problem(response, "conflict", 409, "/input/calibrator")
        assert client.post(f"/v1/calibrators/{name}/batches", tensor_json(seen)).status_code == 200
    read = {
        (name, query): client.request("get", f"/v1/calibrators/{name}{query}").json()
        for name, query in [("in", ""), ("in", "?bits=8&symmetric=true"), ("out", "")]
    }
    doc = make(client, "learnt", weight=tensor_json(w), input={"calibrator": "in"}, output={"calibrator": "out"})
    given = read["in", ""]
    assert doc["input"]["mode"] == "static" and doc["input"]["dtype"] == "U8"
    for side, given in [("input", read["in", ""]), ("output", read["out", ""])]:
        assert np.float32(doc[side]["scale"]) == np.float32(given["scale"])
        assert doc[side]["zero_point"] == given["zero_point"]
    made = (forward(client, "learnt", x).astype("f4") - doc["output"]["zero_point"]) * np.float32(doc["output"]["scale"])
    assert np.abs(made - y).max() < 0.25
    # For other codes than its own.
    doc = make(client, "learnt", weight=tensor_json(w), input={"calibrator": "in", "bits": 8, "symmetric": True})
    assert doc["input"]["dtype"] == "I8" and doc["input"]["zero_point"] == 0
    assert np.float32(doc["input"]["scale"]) == np.float32(read["in", "?bits=8&symmetric=true"]["scale"])
    body = {"name": "channels", "axis": 1, "replace": True}
    assert client.post("/v1/calibrators", body).status_code in (200, 201)
    assert client.post("/v1/calibrators/channels/batches", tensor_json(x)).status_code == 200
    body = {"weight": tensor_json(w), "input": {"calibrator": "channels"}}
    response = client.request("put", "/v1/layers/unlearnt", data=json.dumps(body), headers={"content-type": JSON})
    check_problem(response, "invalid-option", 400, "/input/calibrator")
    check_problem(client.request("get", "/v1/layers/unlearnt"), "not-found", 404)


def test_life_of_a_layer(client):
    """Versions, replacement, removal; a chain keeps what it needs."""
    w = np.eye(3, dtype="f4")
    assert make(client, "life", weight=tensor_json(w))["version"] == 1
    assert make(client, "life", weight=tensor_json(2 * w))["version"] == 2
    np.testing.assert_allclose(forward(client, "life", np.ones(3, "f4")), 2, rtol=0.01)
    listed = client.request("get", "/v1/layers").json()
    assert "life" in [layer["name"] for layer in listed["layers"]]
    assert listed["held_bytes"] >= sum(
        layer["memory"]["held_bytes"] for layer in listed["layers"] if layer["kind"] != "chain"
    )
    make(client, "uses", chain=["life", "life"])
    check_problem(client.request("delete", "/v1/layers/life"), "conflict", 409)
    fields = {"weight": {"data": [[1.0, 2.0]]}}
    response = client.request("put", "/v1/layers/life", data=json.dumps(fields), headers={"content-type": JSON})
    check_problem(response, "conflict", 409)
    assert "uses it" in response.json()["detail"]
    assert make(client, "life", weight=tensor_json(3 * w))["version"] == 3
    np.testing.assert_allclose(forward(client, "uses", np.ones(3, "f4")), 9, rtol=0.02)
    assert client.request("delete", "/v1/layers/uses").status_code == 200
    assert client.request("delete", "/v1/layers/life").json()["version"] == 3
    for method, path in [("get", ""), ("delete", ""), ("post", "/forward"), ("post", "/evaluate")]:
        response = client.request(method, f"/v1/layers/life{path}", json={"data": [1]} if path else None)
        check_problem(response, "not-found", 404, "name")


def test_post_makes_and_put_replaces(client):
    """Whoever posts a name that another one has taken does not take it away."""
    fields = {"name": "taken", "weight": tensor_json(np.eye(2, dtype="f4"))}
    response = client.post("/v1/layers", fields)
    assert response.status_code == 201 and response.headers["location"] == "/v1/layers/taken"
    # Before any work on what it holds.
    unmade = {**fields, "weight": {**fields["weight"], "scheme": {"bits": 12}}}
    for again in (fields, unmade, {"name": "taken", "chain": ["taken"]}):
        check_problem(client.post("/v1/layers", again), "conflict", 409, "/name")
    assert client.request("get", "/v1/layers/taken").json()["version"] == 1
    assert make(client, "taken", weight=fields["weight"])["version"] == 2
    assert client.request("delete", "/v1/layers/taken").status_code == 200
    assert client.post("/v1/layers", fields).json()["version"] == 1


W = {"data": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}
CODED = {"codes": [[1, 2], [3, 4]], "scale": 0.1}
HOSTILE = [
    ({}, "/weight"),
    ({"weight": 1}, "/weight"),
    ({"weight": {"data": [1.0, 2.0]}}, "/weight/shape"),
    ({"weight": {"data": [[[1.0]]]}}, "/weight/shape"),
    ({"weight": {"data": [[]]}}, "/weight/shape"),
    ({"weight": W | {"extra": 1}}, "/weight/extra"),
    ({"weight": W | {"scheme": "int16"}}, "/weight/scheme/bits"),
    ({"weight": W | {"scheme": "int9"}}, "/weight/scheme"),
    ({"weight": W | {"scheme": {"axis": 1}}}, "/weight/scheme/granularity"),
    ({"weight": W | {"scheme": {"group_size": 2}}}, "/weight/scheme/bits"),
    ({"weight": W | {"scheme": {"block_shape": [1, 2]}}}, "/weight/scheme/granularity"),
    ({"weight": CODED | {"scale": 0}}, "/weight/scale"),
    ({"weight": CODED | {"scale": "NaN"}}, "/weight/scale"),
    ({"weight": CODED | {"scale": "Infinity"}}, "/weight/scale"),
    ({"weight": CODED | {"scale": [0.1, 0.2, 0.3], "scheme": {"axis": 0}}}, "/weight/scale"),
    ({"weight": {"codes": [[1, 2]]}}, "/weight/scale"),
    ({"weight": CODED | {"codes": [[1, 200]]}}, "/weight/codes/0/1"),
    ({"weight": CODED | {"codes": [[1, 9]], "scheme": {"bits": 4}}}, "/weight/codes"),
    ({"weight": CODED | {"zero_point": 128}}, "/weight/zero_point"),
    ({"weight": CODED | {"dtype": "I16"}}, "/weight/codes"),
    ({"weight": W, "bias": [1.0]}, "/bias"),
    ({"weight": W, "bias": [1.0, 2.0, "NaN"]}, "/bias"),
    ({"weight": W, "bias": {"data": [1, 2, 3], "x": 1}}, "/bias/x"),
    ({"weight": W, "kind": "conv3d"}, "/kind"),
    ({"weight": W, "kind": "conv2d"}, "/weight/shape"),
    ({"weight": W, "stride": 2}, "/stride"),
    ({"weight": W, "unknown": 2}, "/unknown"),
    ({"weight": W, "scheme": "int8"}, "/scheme"),
    ({"weight": W, "activation": "tanh"}, "/activation"),
    ({"weight": W, "transpose": 1}, "/transpose"),
    ({"weight": W, "input": "int16"}, "/input/bits"),
    ({"weight": W, "input": "int8_per_channel"}, "/input/granularity"),
    ({"weight": W, "input": {"range": "mse"}}, "/input/range"),
    ({"weight": W, "input": {"scale": 0}}, "/input/scale"),
    ({"weight": W, "input": {"scale": -1}}, "/input/scale"),
    ({"weight": W, "input": {"scale": 1e-50}}, "/input/scale"),
    ({"weight": W, "input": {"scale": 1e39}}, "/input/scale"),
    ({"weight": W, "input": {"scale": [0.1, 0.2]}}, "/input/scale"),
    ({"weight": W, "input": {"scale": 0.1, "zero_point": 300}}, "/input/zero_point"),
    ({"weight": W, "input": {"scale": 0.1, "granularity": "token"}}, "/input/granularity"),
    ({"weight": W, "input": 3}, "/input"),
    ({"weight": W, "input": {"calibrator": "../x"}}, "/input/calibrator"),
    ({"weight": W, "input": {"calibrator": "x", "granularity": "token"}}, "/input/granularity"),
    ({"weight": W, "input": {"calibrator": "x", "scale": 1}}, "/input/calibrator"),
    ({"weight": W, "input": {"calibrator": "nobody-has-made-it"}}, "/input/calibrator"),
    ({"weight": W, "output": {"calibrator": "nobody-has-made-it"}}, "/output/calibrator"),
    ({"weight": W, "output": {"signed": False}}, "/output/scale"),
    ({"weight": W, "output": {"scale": 0}}, "/output/scale"),
    ({"weight": W, "output": {"scale": 0.1, "requantize": "no"}}, "/output/requantize"),
    ({"weight": W, "output": {"scale": 0.1, "requantize": "gemmlowp"}}, "/output/requantize"),
    ({"weight": W, "output": "I32"}, "/output"),
    ({"weight": W, "keep_float": "yes"}, "/keep_float"),
    ({"weight": W, "name": "a/b"}, "/name"),
    ({"weight": W, "name": "other"}, "/name"),
    ({"weight": W, "chain": ["a"]}, "/weight"),
    ({"chain": []}, "/chain"),
    ({"chain": "a/b"}, "/chain"),
    ({"chain": ["nobody-has-made-it"]}, "/chain"),
    ({"chain": ["hostile", "hostile"]}, "/chain"),
    ({"chain": [1]}, "/chain"),
    ({"kind": "chain"}, "/chain"),
]  # fmt: skip


@pytest.mark.parametrize("body,place", HOSTILE, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_wrong_is_named_and_nothing_is_made(client, body, place):
    make(client, "hostile", weight=W)
    name = "half-made"
    response = client.request("put", f"/v1/layers/{name}", data=json.dumps(body), headers={"content-type": JSON})
    assert 400 <= response.status_code < 500, response.text
    problem = response.json()
    if problem["type"] == "urn:quantd:error:not-found":
        check_problem(response, "not-found", 404, place)
    else:
        check_problem(response, problem["type"].rsplit(":", 1)[1], response.status_code, place)
    check_problem(client.request("get", f"/v1/layers/{name}"), "not-found", 404, "name")


CONV = {"data": [[[[1.0, 2.0], [3.0, 4.0]]]]}


@pytest.mark.parametrize("fields,place", [
    ({"stride": 0}, "/stride"),
    ({"stride": [1, 1, 1]}, "/stride"),
    ({"dilation": 0}, "/dilation"),
    ({"padding": -1}, "/padding"),
    ({"padding": 1 << 40}, "/padding"),
    ({"groups": 0}, "/groups"),
    ({"groups": 3}, "/groups"),
    ({"transpose": True}, "/transpose"),
    ({"weight": CONV | {"scheme": {"bits": 4, "group_size": 2}}}, "/weight/scheme/granularity"),
])  # fmt: skip
def test_wrong_convolutions(client, fields, place):
    body = {"kind": "conv2d", "weight": CONV} | fields
    response = client.request("put", "/v1/layers/half-made", data=json.dumps(body), headers={"content-type": JSON})
    check_problem(response, "invalid-option", 400, place)


def test_wrong_inputs(client):
    """Wrong K, wrong types, NaN, and names that are none."""
    make(client, "picky", weight=W)
    make(client, "static", weight=W, input={"scale": 0.1, "bits": 4})
    for name, body, slug, status, place in [
        ("picky", {"data": [1, 2, 3]}, "invalid-option", 400, "/shape"),
        ("picky", {"data": 1}, "invalid-option", 400, "/shape"),
        ("picky", {"data": [1, 2], "dtype": "U8"}, "invalid-option", 400, "/dtype"),
        ("picky", {"data": [1, "NaN"]}, "non-finite", 422, "/data"),
        ("picky", {"data": [1, 2], "extra": 1}, "invalid-option", 400, "/extra"),
        ("picky", {}, "invalid-option", 400, "/data"),
        ("static", {"data": [1, 2], "dtype": "U8"}, "invalid-option", 400, "/dtype"),
        ("static", {"data": [1, 8], "dtype": "I8"}, "invalid-option", 400, "/data"),
    ]:  # fmt: skip
        check_problem(client.post(f"/v1/layers/{name}/forward", body), slug, status, place)
        check_problem(client.post(f"/v1/layers/{name}/evaluate", body), slug, status, place)
    for name in ["..", "a%2Fb", "%2e%2e%2fetc", "a b", "-x", "x" * 129]:
        for method, rest in [("get", ""), ("delete", ""), ("post", "/forward")]:
            response = client.session.request(method, f"{client.url}/v1/layers/{name}{rest}", json={"data": [1]})
            assert response.status_code in (400, 404, 405), (name, response.status_code)
    infinite = forward(client, "picky", np.array([np.inf, 1], "f4"))
    assert np.isfinite(infinite).all()
    assert forward(client, "picky", np.zeros((0, 2), "f4")).shape == (0, 3)
    make(client, "lenient", weight=W, input={"granularity": "token", "signed": False, "nan": "zero"})
    given = forward(client, "lenient", np.array([np.nan, 1], "f4"))
    np.testing.assert_array_equal(given, forward(client, "lenient", np.array([0, 1], "f4")))


@pytest.mark.parametrize("kept", ["layers", "calibrators"])
@pytest.mark.parametrize("name", ["%ff", "..%2fx", "a%20b", "-a", "a" * 129], ids=lambda name: name[:8])
def test_paths_that_are_no_names(client, kept, name):
    for method in ("GET", "DELETE"):
        response = client.request(method, f"/v1/{kept}/{name}")
        check_problem(response, "invalid-option", 400, "name")


def test_a_file_that_is_no_layer(client):
    """Wrong tensors in a safetensors body are named."""
    w = np.ones((2, 2), "f4")
    for tensors in [{"w": w}, {"weight": w, "extra": w}, {"bias": w[0]}, {"weight.codes": w.astype("i1"), "x": w}]:
        response = client.post("/v1/layers", write_safetensors(tensors), kind=SAFETENSORS, params={"name": "half-made"})
        check_problem(response, "malformed-body", 400)
    response = client.post("/v1/layers", write_safetensors({"weight": w}), kind=SAFETENSORS)
    check_problem(response, "invalid-option", 400, "/name")
    check_problem(client.request("get", "/v1/layers/half-made"), "not-found", 404)
