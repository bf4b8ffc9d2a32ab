"""Makes tests/golden/formats.json: digests of tensors in number formats as compressed-tensors, torchao and
Model-Optimizer store them.

Run with an interpreter that has torch (of a processor is enough), numpy, safetensors, compressed-tensors and torchao,
and pip to fetch the wheel of nvidia-modelopt (one class of it is run):

    python tests/golden/make_formats.py [folder]

For each peer and each of `samples.tensors()`, in their order, there is the digest of its parts (codes, scale,
global_scale, as bytes) and that of what it restores (F32, 0 for -0); null where the peer makes NaN of finite numbers, or is
known to store something else than it computes with. With a folder the parts themselves are written there.
"""

import hashlib
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import zipfile

import samples
import torch
from safetensors.torch import save_file

OUT = pathlib.Path(__file__).with_name("formats.json")
MODELOPT = "0.47.0"
def digest(*parts):
    """The beginning of the digest of some bytes."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def bytes_of(x):
    return x.contiguous().view(torch.uint8).numpy().tobytes()


def main():
    inputs = samples.tensors()
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None
    made = {"versions": versions(), "inputs": digest(*(x.tobytes() for x in inputs)), "peers": {}}
    for name, peer in peers().items():
        rows, kept = [], {}
        for i, x in enumerate(inputs):
            parts = peer(torch.from_numpy(x))
            if not parts["restored"].isfinite().all():
                rows.append(None)
                continue
            # Some fold -0 into 0 on the way.
            restored = parts.pop("restored") + 0.0
            rows.append([digest(*map(bytes_of, parts.values())), digest(bytes_of(restored))])
            kept |= {f"{i}.{part}": x.contiguous().view(torch.uint8) for part, x in parts.items()}
            kept[f"{i}.restored"] = restored.contiguous()
        made["peers"][name] = rows
        print(name, sum(row is not None for row in rows), "tensors")
        if folder:
            folder.mkdir(exist_ok=True)
            save_file(kept, folder / f"{name}.safetensors")
    peers_of = made.pop("peers")
    lines = [f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in peers_of.items()]
    head = json.dumps(made)[:-1]
    OUT.write_text(head + ', "peers": {\n' + ",\n".join(lines) + "\n}}\n")


def compressed_tensors_peers():
    """Weights of a linear layer as the compressors of compressed-tensors make checkpoints of them."""
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

    def ends(x, args):
        if args.strategy == "tensor":
            return x.min().reshape(1), x.max().reshape(1)
        size = args.group_size or x.shape[1]
        groups = x.reshape(x.shape[0], -1, size)
        return groups.amin(-1), groups.amax(-1)

    def peer(form, **options):
        args = QuantizationArgs(type="float", symmetric=True, **options)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)

        def make(x):
            least, most = ends(x, args)
            state = {"weight": x.clone()}
            global_scale = None
            if args.strategy == "tensor_group":
                global_scale = generate_gparam(x.min(), x.max())
                state["weight_global_scale"] = global_scale
            scale, zero_point = calculate_qparams(least, most, args, global_scale)
            state["weight_scale"] = scale
            made = BaseCompressor.get_value_from_registry(form).compress(state, scheme)
            codes = made["weight_packed"] if "weight_packed" in made else made["weight"]
            parts = {"codes": codes, "scale": made["weight_scale"]}
            if global_scale is not None:
                parts["global_scale"] = global_scale
            numbers = quantize(x, scale, zero_point, args, global_scale=global_scale)
            parts["restored"] = dequantize(numbers, scale, args=args, global_scale=global_scale, dtype=torch.float32)
            return parts

        return make

    group = {"strategy": "group", "group_size": 32, "scale_dtype": torch.uint8}
    levels = {"strategy": "tensor_group", "group_size": 16, "scale_dtype": torch.float8_e4m3fn}
    return {
        "ct-fp8-tensor": peer("float-quantized", num_bits=8, strategy="tensor"),
        "ct-fp8-channel": peer("float-quantized", num_bits=8, strategy="channel"),
        "ct-mxfp8": peer("mxfp8-quantized", num_bits=8, **group),
        "ct-mxfp6": peer("mxfp6-pack-quantized", num_bits=6, **group),
        "ct-mxfp4": peer("mxfp4-pack-quantized", num_bits=4, **group),
        "ct-nvfp4": peer("nvfp4-pack-quantized", num_bits=4, **levels),
    }


def torchao_peers():
    from torchao.prototype.mx_formats import mx_tensor
    from torchao.prototype.mx_formats.constants import DTYPE_FP6_E2M3, DTYPE_FP6_E3M2
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    elements = {
        "mxfp8_e4m3": torch.float8_e4m3fn,
        "mxfp8_e5m2": torch.float8_e5m2,
        "mxfp6_e2m3": DTYPE_FP6_E2M3,
        "mxfp6_e3m2": DTYPE_FP6_E3M2,
        "mxfp4": torch.float4_e2m1fn_x2,
    }

    def microscaling(element, mode):
        def make(x):
            scale, codes = mx_tensor.to_mx(x, element, 32, mode)
            # Blocks of the smallest exponent are divided by another scale than the one that is stored.
            others = (x.reshape(-1, 32) != 0).any(-1) & (scale.view(torch.uint8).reshape(-1) == 0)
            if others.any():
                return {"restored": torch.full_like(x, torch.nan)}
            restored = mx_tensor.to_dtype(codes, scale, element, 32, torch.float32)
            return {"codes": codes, "scale": scale, "restored": restored}

        return make

    def two_level(x):
        tensor = NVFP4Tensor.to_nvfp4(x, per_tensor_scale=per_tensor_amax_to_scale(x.abs().max()))
        return {
            "codes": tensor.qdata,
            "scale": tensor.scale,
            "global_scale": tensor.per_tensor_scale.reshape(1),
            "restored": tensor.dequantize(torch.float32),
        }

    modes = mx_tensor.ScaleCalculationMode
    made = {
        f"ao-{name}-{mode.value}": microscaling(element, mode)
        for name, element in elements.items()
        for mode in (modes.FLOOR, modes.CEIL, modes.EVEN, modes.RCEIL)
    }
    return {**made, "ao-nvfp4": two_level}


def modelopt_peers():
    """`NVFP4QTensor`, taken out of the wheel; what it asks of others are maxima and two constants."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
        subprocess.run([*command, f"nvidia-modelopt=={MODELOPT}"], check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        text = zipfile.ZipFile(wheel).read("modelopt/torch/quantization/qtensor/nvfp4_tensor.py").decode()

    class Base:
        def __init__(self, shape, dtype, codes):
            self.metadata, self._quantized_data = {"shape": shape, "dtype": dtype}, codes

    names = {
        "torch": torch,
        "fp4_compatible": lambda: False,
        "BaseQuantizedTensor": Base,
        "reduce_amax": lambda x: x.abs().max(),
        "reduce_block_amax": lambda x, block_sizes: x.reshape(x.shape[0], -1, block_sizes[-1]).abs().amax(-1),
        "reduce_block_padding": lambda x, block_sizes: x,
        "E2M1_MAX": 6.0,
        "E4M3_MAX": 448.0,
        "fp8_max_for_normalization": None,
    }
    exec("\n".join(line for line in text.splitlines() if not line.startswith("from ..")), names)

    def make(x):
        tensor, scale, scale_2 = names["NVFP4QTensor"].quantize(x, 16)
        restored = tensor.dequantize(torch.float32, scale=scale, double_scale=scale_2, block_sizes={-1: 16})
        parts = {"codes": tensor._quantized_data, "scale": scale, "global_scale": scale_2.reshape(1)}
        return {**parts, "restored": restored}

    return {"mo-nvfp4": make}


def peers():
    return {**compressed_tensors_peers(), **torchao_peers(), **modelopt_peers()}


def versions():
    import compressed_tensors
    import torchao

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compressed-tensors": compressed_tensors.__version__,
        "torchao": torchao.__version__,
        "nvidia-modelopt": MODELOPT,
    }


if __name__ == "__main__":
    main()
