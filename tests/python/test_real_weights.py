"""The weights of a real model, against ONNX Runtime bit for bit."""

import importlib.machinery
import importlib.util
import json

import numpy as np
import pytest
from onnx import TensorProto
from onnxruntime.quantization import quant_utils

from client import JSON, NPY, RAW, SAFETENSORS, read_safetensors
from server import ROOT
from test_random_schemes import operator


def load_script():
    """scripts/real-weights as a module."""
    path = str(ROOT / "scripts/real-weights")
    loader = importlib.machinery.SourceFileLoader("real_weights", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def weights():
    """Where the script put the tensors."""
    return load_script().prepare()


@pytest.fixture(scope="session")
def tensors(weights):
    found, _ = read_safetensors((weights / "weights.safetensors").read_bytes())
    assert len(found) >= 100
    return found


KINDS = {8: TensorProto.INT8, 4: TensorProto.INT4}


def by_tool(x, bits):
    """Codes, scale and zero point of onnxruntime.quantization for one tensor or channel."""
    zero_point, scale, codes = quant_utils.quantize_data(x, KINDS[bits], symmetric=True)
    return np.asarray(codes).astype(np.int8), scale, int(zero_point)


def chosen(tensors):
    """Every kind of weight, of two layers; the large embedding is its own test."""
    names = [name for name in tensors if ".layer.0." in name or ".layer.5." in name]
    names += [name for name in tensors if "layer" not in name and tensors[name].size < 1 << 20]
    return [name for name in names if tensors[name].dtype == np.float32 and tensors[name].any()]


@pytest.mark.parametrize("bits", [8, 4])
def test_tensors(client, tensors, bits):
    names = chosen(tensors)
    assert len(names) >= 30
    for number, name in enumerate(names):
        x = tensors[name]
        # The tool restricts int8 to -127..127 and gives int4 its whole range.
        scheme = {"bits": bits, "signed": True, "symmetric": True, "restricted": bits == 8}
        result = client.quantize(x, scheme, kind=[NPY, RAW, SAFETENSORS][number % 3])
        codes, scale, zero_point = by_tool(x, bits)
        assert result.scale == scale and result.zero_point == zero_point, name
        np.testing.assert_array_equal(result.codes, codes, name)
        np.testing.assert_array_equal(
            result.codes, operator(x, result.scale, result.zero_point, bits, True), name
        )


@pytest.mark.parametrize("bits", [8, 4])
def test_channels(client, tensors, bits):
    names = [name for name in chosen(tensors) if tensors[name].ndim == 2]
    assert len(names) >= 10
    for name in names:
        x = tensors[name]
        for axis in (0, -1):
            scheme = {"bits": bits, "granularity": "channel", "axis": axis, "restricted": bits == 8}
            result = client.quantize(x, scheme, kind=NPY)
            expected = operator(x, result.scale, result.zero_point, bits, True, axis=axis % 2)
            np.testing.assert_array_equal(result.codes, expected, name)
            step = max(1, x.shape[axis] // 24)
            for channel in range(0, x.shape[axis], step):
                codes, scale, zero_point = by_tool(np.take(x, channel, axis).copy(), bits)
                assert result.scale[channel] == scale, (name, channel)
                assert result.zero_point[channel] == zero_point
                np.testing.assert_array_equal(np.take(result.codes, channel, axis), codes)


def test_the_embedding(client, tensors):
    """12 million numbers in one request."""
    (name,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    x = tensors[name]
    result = client.quantize(x, "int8_per_channel", kind=RAW)
    scale = (np.abs(x).max(axis=1).astype(np.float64) * 2 / 254).astype(np.float32)
    scale = np.where(x.any(axis=1), scale, np.float32(1))
    np.testing.assert_array_equal(result.scale, scale)
    np.testing.assert_array_equal(
        result.codes, operator(x, result.scale, result.zero_point, 8, True, axis=0)
    )
    assert result.report["sqnr_db"] > 35


def test_the_whole_model_in_one_request(client, weights, tensors):
    """A safetensors file as it is, quantized and restored."""
    body = (weights / "weights.safetensors").read_bytes()
    answer = client.post("/v1/quantize", body, kind=SAFETENSORS, params={"preset": "int8"})
    assert answer.status_code == 200, answer.text[:500]
    found, metadata = read_safetensors(answer.content)
    quantized = {name: x for name, x in tensors.items() if f"{name}.codes" in found}
    passed = tensors.keys() - quantized.keys()
    assert all(tensors[name].ndim < 2 or tensors[name].dtype.kind in "iub" for name in passed)
    assert set(json.loads(metadata.get("passed", "[]"))) == passed
    assert len(found) == 3 * len(quantized) + len(passed)
    assert len(answer.content) < 0.26 * len(body) + (1 << 20)
    assert quantized.keys() <= metadata.keys()
    for name in passed:
        np.testing.assert_array_equal(found[name], tensors[name])
    for name, x in list(quantized.items())[:10]:
        restored = found[f"{name}.codes"].astype(np.float32) * found[f"{name}.scale"]
        np.testing.assert_allclose(restored, x, atol=float(found[f"{name}.scale"]) * 0.5001)


def test_files_of_numpy(client, weights):
    files = sorted((weights / "npy").glob("*.npy"))
    assert files
    for path in files[:5]:
        answer = client.post("/v1/quantize", path.read_bytes(), kind=NPY, accept=JSON)
        assert answer.status_code == 200, answer.text
        assert answer.json()["report"]["sqnr_db"] > 20
