"""Random tensors under random schemes, against NumPy formulas and ONNX Runtime."""

import zlib

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import quant_utils

import reference
from client import JSON, NPY, RAW, SAFETENSORS, nested

KINDS = [JSON, NPY, RAW, SAFETENSORS]
PROFILES = ["onnx", "torch", "compressed-tensors", "tflite"]
ONNX_TYPES = {
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
    (16, True): TensorProto.INT16,
    (16, False): TensorProto.UINT16,
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
}


def random_tensor(rng, rank, dtype):
    """A tensor of odd extents, now and then with outliers, ties, zeros or tiny values."""
    shape = tuple(int(n) for n in rng.integers(1, [40, 20, 9, 7, 5, 4][rank] + 1, rank))
    x = rng.standard_normal(shape) * 10.0 ** rng.integers(-6, 7)
    x = x + (rng.random() < 0.3) * rng.standard_normal() * 10
    match int(rng.integers(6)):
        case 0:
            x = np.rint(x * 2) / 2
        case 1:
            x = np.where(rng.random(shape) < 0.05, x * 1000, x)
        case 2:
            x = np.abs(x)
        case 3:
            x = np.where(rng.random(shape) < 0.5, 0, x)
    with np.errstate(over="ignore"):
        return np.asarray(x, dtype=dtype)


def random_scheme(rng, rank, profile):
    """A valid scheme for a tensor of that rank."""
    bits = int(rng.choice([2, 3, 4, 5, 6, 7, 8, 8, 8, 16]))
    signed = bool(rng.integers(2)) or profile == "compressed-tensors"
    scheme = {"bits": bits, "signed": signed, "symmetric": bool(rng.integers(2)), "profile": profile}
    if signed and scheme["symmetric"] and rng.integers(2):
        scheme["restricted"] = bool(rng.integers(2))
    choices = ["tensor"] + ["channel", "group", "token"] * (rank >= 1) + ["block"] * (rank >= 2)
    name = str(rng.choice(choices))
    scheme["granularity"] = name
    if name in ("channel", "group"):
        scheme["axis"] = int(rng.integers(-rank, rank))
    if name == "group":
        scheme["group_size"] = int(rng.integers(1, 10))
    if name == "block":
        scheme["block_shape"] = [int(rng.integers(1, 6)), int(rng.integers(1, 6))]
    return scheme


def expectation(x, scheme, ranges=None):
    """Codes, scales, zero points and report by the formulas."""
    restricted = scheme["signed"] and scheme["symmetric"] and scheme["profile"] in ("onnx", "tflite")
    codes = reference.Codes(
        scheme["bits"], scheme["signed"], scheme["symmetric"], scheme.get("restricted", restricted)
    )
    keys = ("granularity", "axis", "group_size", "block_shape")
    index, scale_shape = reference.slices(x.shape, **{key: scheme.get(key) for key in keys})
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    real = x.astype(dtype)
    count = int(np.prod(scale_shape))
    scale, zero_point = np.empty(count, dtype), np.empty(count, np.int64)
    for number in range(count):
        values = real[index == number]
        low, high = ranges(values, codes) if ranges else (values.min(initial=0), values.max(initial=0))
        scale[number], zero_point[number] = reference.parameters(
            low, high, codes, scheme["profile"], dtype
        )
    full_scale, full_zero = scale[index], zero_point[index]
    q = reference.encode(real, full_scale, full_zero, codes, scheme["profile"])
    restored = reference.decode(q, full_scale, full_zero)
    wide = reference.Codes(32, True, False, False)
    unsaturated = reference.encode(real, full_scale, full_zero, wide, scheme["profile"])
    return {
        "codes": q,
        "scale": scale.reshape(scale_shape),
        "zero_point": zero_point.reshape(scale_shape),
        "report": reference.report(real, restored, unsaturated != q),
        "restored": restored,
        "range": codes,
    }


def check(result, expected):
    np.testing.assert_array_equal(result.scale, expected["scale"])
    np.testing.assert_array_equal(result.zero_point, expected["zero_point"])
    np.testing.assert_array_equal(result.codes, expected["codes"])
    for key, value in expected["report"].items():
        found = result.report[key]
        if value is None or isinstance(value, int):
            assert found == value, key
        else:
            # Sums in f64 in another order.
            assert found == pytest.approx(value, rel=1e-9, abs=1e-300), key


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(40))
def test_schemes_follow_their_formulas(client, profile, seed):
    rng = np.random.default_rng([seed, PROFILES.index(profile)])
    rank = int(rng.integers(0, 6))
    dtype = rng.choice([np.float32, np.float64, np.float16])
    x = random_tensor(rng, rank, dtype)
    x = np.clip(x, -6e4, 6e4).astype(dtype)
    scheme = random_scheme(rng, rank, profile)
    kind = KINDS[seed % len(KINDS)]
    accept = [JSON, SAFETENSORS][seed // len(KINDS) % 2]
    result = client.quantize(x, scheme, kind=kind, accept=accept)
    assert result.shape == x.shape
    for field in ("bits", "signed", "symmetric", "granularity", "profile"):
        assert result.scheme[field] == scheme[field]
    check(result, expectation(x, scheme))


def operator(x, scale, zero_point, bits, signed, axis=None, block=None):
    """ONNX Runtime's QuantizeLinear."""
    kind = ONNX_TYPES[(bits, signed)]
    scale = np.asarray(scale, np.float32)
    extra = {} if axis is None else {"axis": axis}
    extra |= {} if block is None else {"block_size": block}
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape),
        helper.make_tensor_value_info("s", TensorProto.FLOAT, scale.shape),
    ]
    z = helper.make_tensor("z", kind, scale.shape, zero_point.ravel().tolist())
    # Four-bit outputs cannot be fetched as NumPy arrays: cast them inside.
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **extra)]
    nodes += [helper.make_node("Cast", ["q"], ["y"], to=TensorProto.INT32)]
    output = helper.make_tensor_value_info("y", TensorProto.INT32, x.shape)
    graph = helper.make_graph(nodes, "g", inputs, [output], [z])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x, "s": scale})[0]


@pytest.mark.parametrize("bits,signed", ONNX_TYPES)
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_equal_quantize_linear(client, bits, signed, granularity, symmetric):
    rng = np.random.default_rng([bits, signed, zlib.crc32(granularity.encode()), symmetric])
    for _ in range(4):
        x = random_tensor(rng, 3, np.float32)
        axis = int(rng.integers(0, 3))
        scheme = {"bits": bits, "signed": signed, "symmetric": symmetric, "granularity": granularity}
        if signed and symmetric:
            scheme["restricted"] = False
        arguments = {}
        if granularity != "tensor":
            scheme["axis"] = arguments["axis"] = axis
        if granularity == "group":
            # A size that the operator can tell from the shape of the scales.
            scheme["group_size"] = arguments["block"] = int(rng.integers(1, x.shape[axis] + 1))
        result = client.quantize(x, scheme, kind=NPY)
        expected = operator(x, result.scale, result.zero_point, bits, signed, **arguments)
        np.testing.assert_array_equal(result.codes, expected)


def test_given_parameters_equal_quantize_linear(client):
    """Scale and zero point of the caller's: saturation to the full range, ties, infinities."""
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 1e10, -1e10, np.inf, -np.inf, 127.5], np.float32)
    for bits, signed in ONNX_TYPES:
        low = -(2 ** (bits - 1)) if signed else 0
        for zero_point in (0, 3, low, low + 2**bits - 1):
            if not low <= zero_point < low + 2**bits:
                continue
            scheme = {"bits": bits, "signed": signed, "scale": 1, "zero_point": zero_point}
            result = client.quantize(x, scheme)
            scale, zero = np.float32(1), np.array(zero_point)
            np.testing.assert_array_equal(
                result.codes, operator(x, scale, zero, bits, signed), str(scheme)
            )
            assert result.report["inf"] == 2


@pytest.mark.parametrize("bits,signed", ONNX_TYPES)
@pytest.mark.parametrize("symmetric", [True, False])
def test_parameters_equal_the_tool(client, bits, signed, symmetric):
    """onnxruntime.quantization: compute_scale_zp and quantize_data, bit for bit."""
    kind = ONNX_TYPES[(bits, signed)]
    rng = np.random.default_rng([bits, signed, symmetric])
    for number in range(8):
        x = random_tensor(rng, 1 + number % 3, np.float32)
        if not x.any():
            continue
        scheme = {"bits": bits, "signed": signed, "symmetric": symmetric}
        # The tool uses all sixteen codes of int4, but 255 of int8.
        if signed and symmetric:
            scheme["restricted"] = bits != 4
        result = client.quantize(x, scheme, kind=RAW)
        zero_point, scale, codes = quant_utils.quantize_data(x, kind, symmetric)
        low, high = quant_utils.get_qmin_qmax_for_qType(kind, symmetric=symmetric)
        again, step = quant_utils.compute_scale_zp(x.min(), x.max(), low, high, symmetric)
        assert result.scale == scale == step.astype(np.float32)
        assert result.zero_point == int(zero_point) == int(again)
        np.testing.assert_array_equal(result.codes, np.asarray(codes).astype(np.int64))


@pytest.mark.parametrize("percentile", [100, 99.9, 99, 75, 50])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_percentiles_are_numpys(client, percentile, symmetric, dtype):
    rng = np.random.default_rng(int(percentile * 10) + symmetric)
    for granularity in ({"granularity": "tensor"}, {"granularity": "channel", "axis": -1}):
        x = random_tensor(rng, 3, dtype)
        scheme = {"bits": 8, "signed": True, "symmetric": symmetric, "profile": "onnx"} | granularity

        def ends(values, codes):
            if codes.symmetric:
                most = np.percentile(np.abs(values), percentile)
                return -most, most
            return np.percentile(values, [100 - percentile, percentile])

        result = client.quantize(x, scheme | {"range": "percentile", "percentile": percentile})
        expected = expectation(x, scheme, ends)
        # NumPy interpolates in the type of the tensor, quantd may do it in f64.
        np.testing.assert_allclose(result.scale, expected["scale"], rtol=3e-7)
        difference = np.abs(result.codes.astype(int) - expected["codes"])
        assert difference.max(initial=0) <= 1 and np.mean(difference) < 0.01


@pytest.mark.parametrize("method", ["mse", "entropy_ort", "entropy_tensorrt", "entropy_modelopt", "cross_entropy"])
@pytest.mark.parametrize(
    "granularity",
    [
        {},
        {"granularity": "channel", "axis": -1},
        {"granularity": "group", "axis": 0, "group_size": 16},
        {"granularity": "block", "block_shape": [8, 16]},
        {"granularity": "token"},
    ],
    ids=lambda g: g.get("granularity", "tensor"),
)
@pytest.mark.parametrize("symmetric", [True, False])
def test_searched_ranges_are_sound(client, method, granularity, symmetric):
    """A searched range lies within the extent, and mse never loses to min-max."""
    rng = np.random.default_rng(11)
    x = rng.standard_t(3, (24, 32)).astype(np.float32)
    base = {"bits": 4, "signed": True, "symmetric": symmetric, **granularity}
    plain = client.quantize(x, base)
    found = client.quantize(x, base | {"range": method})
    assert found.scheme["range"] == method
    assert found.scale.shape == plain.scale.shape
    assert np.all(found.scale > 0) and np.all(found.scale <= plain.scale * 1.001)
    if method == "mse":
        assert found.report["mse"] <= plain.report["mse"] * (1 + 1e-9)


@pytest.mark.parametrize("method", ["entropy_ort", "entropy_tensorrt", "percentile", "mse", "cross_entropy"])
@pytest.mark.parametrize("dtype, factor", [("F32", 2.0**120), ("F32", 2.0**-100), ("F64", 2.0**1016)])
def test_searched_ranges_do_not_depend_on_the_size_of_numbers(client, method, dtype, factor):
    """A power of two moves a range and changes nothing else of it, also where widths overflow."""
    x = np.random.default_rng(3).standard_t(3, 200)
    x = (x / np.abs(x).max() * 255).astype({"F32": np.float32, "F64": np.float64}[dtype])
    if method == "cross_entropy":
        # A softmax does depend on it: all of it is at the largest element.
        x = np.abs(x)
    scheme = {"bits": 8, "range": method} | ({"percentile": 99} if method == "percentile" else {})
    near, far = client.quantize(x, scheme), client.quantize(x * x.dtype.type(factor), scheme)
    if method == "cross_entropy":
        assert np.isfinite(far.scale) and far.scale > near.scale * factor / 2 or factor < 1
    else:
        assert far.scale == near.scale * x.dtype.type(factor)
        np.testing.assert_array_equal(far.codes, near.codes)


@pytest.mark.parametrize("low", [1, 3, 10])
@pytest.mark.parametrize("bits", [4, 8])
def test_entropy_keeps_what_lies_away_from_zero(client, low, bits):
    x = np.random.default_rng(4).uniform(low, low + 1, 3000).astype(np.float32)
    report = client.quantize(x, {"bits": bits, "range": "entropy_tensorrt"}).report
    assert report["clipped"] <= x.size / 10
    # The copy's threshold is the smallest element; up to half a step beyond it is not clipped.
    assert client.quantize(x, {"bits": bits, "range": "entropy_modelopt"}).report["clipped"] > x.size / 5


def test_explicit_ranges(client):
    x = np.array([[-3, -1, 0, 1], [2, 4, 8, 16]], np.float32)
    scheme = {"bits": 8, "signed": False, "symmetric": False, "axis": 0}
    result = client.quantize(x, scheme | {"range": "explicit", "min": [-2, 0], "max": [2, 10]})
    np.testing.assert_array_equal(result.scale, np.array([4 / 255, 10 / 255], np.float32))
    assert result.report["clipped"] == 2
    one = client.quantize(x, {"bits": 8, "signed": True, "min": -1, "max": 1})
    assert one.scale == np.float32(2 / 254)


def test_ranges_of_nothing(client):
    """Zeros, constants, a single element, no elements: a positive scale, and 0 stays 0."""
    for profile in PROFILES:
        for x in ([0, 0, 0], [5, 5, 5], [-5], [], [1e-45], [3.4e38, -3.4e38]):
            x = np.array(x, np.float32)
            result = client.quantize(x, {"profile": profile, "symmetric": False})
            assert result.scale > 0 and np.isfinite(result.scale)
            restored = (result.codes.astype(int) - result.zero_point) * np.float64(result.scale)
            assert np.all(restored[x == 0] == 0)


def test_nan_and_infinity(client):
    x = np.array([1.0, np.nan, -np.inf, np.inf, -1.0], np.float32)
    body = {"data": nested(x), "scheme": {"bits": 8}}
    response = client.post("/v1/quantize", body)
    assert response.status_code == 422
    problem = response.json()
    assert problem["type"] == "urn:quantd:error:non-finite"
    assert "1" in problem["detail"], "names the first one"
    assert problem["errors"][0]["pointer"] == "/data"
    for policy, code in (("zero", 0), ("min", -127), ("max", 127)):
        result = client.quantize(x, {"bits": 8, "nan": policy})
        assert result.codes.tolist() == [127, code, -127, 127, -127]
        assert (result.report["nan"], result.report["inf"]) == (1, 2)
        assert result.scale == np.float32(1 / 127)


def test_reports_of_slices(client):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((6, 10)).astype(np.float32)
    scheme = {"bits": 4, "granularity": "channel", "axis": 1, "range": "percentile", "percentile": 90}
    whole = client.quantize(x, scheme, per_slice=True)
    parts = whole.report["slices"]
    assert len(parts) == 10
    assert np.mean([part["mse"] for part in parts]) == pytest.approx(whole.report["mse"], rel=1e-9)
    assert sum(part["clipped"] for part in parts) == whole.report["clipped"]
    assert max(part["max_abs_error"] for part in parts) == whole.report["max_abs_error"]
    assert "slices" not in client.quantize(x, scheme).report


def test_bits_of_a_result(client):
    x = np.ones((4, 256), np.float32)
    report = client.quantize(x, "int4_g128").report
    assert report["bits_per_element"] == pytest.approx(4 + 32 / 128)
    assert report["compression_ratio"] == pytest.approx(32 / (4 + 32 / 128))
    report = client.quantize(x, "uint4_g128").report
    assert report["bits_per_element"] == pytest.approx(4 + 36 / 128)


def test_the_same_bytes_each_time(client, start):
    """Any number of threads gives the same answer, byte for byte."""
    one = start("--threads", "1", "--log-level", "error")
    x = np.random.default_rng(5).standard_normal(300_001).astype(np.float32)
    import requests

    answers = set()
    for url in (client.url, client.url, one.url):
        for scheme in ("int8", "int4_g128"):
            reply = requests.post(
                f"{url}/v1/quantize?preset={scheme}&range=mse&per_slice=false&dtype=F32&shape=300001",
                data=x.tobytes(),
                headers={"content-type": "application/octet-stream"},
                timeout=120,
            )
            assert reply.status_code == 200, reply.text
            answers.add((scheme, reply.content))
    assert len(answers) == 2
