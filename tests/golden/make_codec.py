"""Makes tests/golden/codec: files as NumPy and safetensors write them.

Run with an interpreter that has numpy, safetensors and ml_dtypes:

    python tests/golden/make_codec.py

Every array of rank two or less holds 0, 1, 2, ... in C order, so that the tests
know the expected elements without another file.
"""

import json
import pathlib
import platform

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

OUT = pathlib.Path(__file__).parent / "codec"


def save(name, array, version=(1, 0)):
    with open(OUT / name, "wb") as file:
        np.lib.format.write_array(file, array, version=version, allow_pickle=name == "object.npy")


def main():
    OUT.mkdir(exist_ok=True)
    for kind in ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1"]:
        ramp = np.arange(6).reshape(2, 3)
        save(f"le_{kind}.npy", ramp.astype("<" + kind))
        save(f"be_{kind}.npy", ramp.astype(">" + kind))
        save(f"fortran_{kind}.npy", np.asfortranarray(ramp.astype("<" + kind)))
        save(f"be_fortran_{kind}.npy", np.asfortranarray(ramp.astype(">" + kind)))
    cube = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    save("fortran_cube.npy", np.asfortranarray(cube))
    save("scalar.npy", np.array(0, "<f4"))
    save("empty.npy", np.zeros((2, 0, 3), "<f4"))
    save("vector.npy", np.arange(5, dtype="<f4"))
    save("version2.npy", cube, (2, 0))
    save("version3.npy", cube, (3, 0))
    # What is refused.
    save("bool.npy", np.array([True, False]))
    save("complex.npy", np.zeros(2, "<c8"))
    save("date.npy", np.zeros(2, "<M8[s]"))
    save("text.npy", np.array(["a", "b"]))
    save("structured.npy", np.zeros(2, [("a", "<f4"), ("b", "<i4")]))
    save("object.npy", np.array([{}, None]))
    save("bfloat16.npy", np.zeros(2, ml_dtypes.bfloat16))

    tensors = {
        "half": np.arange(3, dtype=np.float16),
        "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 4), np.uint8),
        "codes/ü": np.arange(5, dtype=np.int8),
        "brain": np.arange(4).astype(ml_dtypes.bfloat16),
    }
    safetensors.numpy.save_file(tensors, OUT / "plain.safetensors", {"by": "numpy", "note": "a \"b\""})
    safetensors.numpy.save_file({"mask": np.array([True])}, OUT / "bool.safetensors")
    safetensors.numpy.save_file({}, OUT / "none.safetensors")
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
        "ml_dtypes": ml_dtypes.__version__,
    }
    (OUT / "VERSIONS.json").write_text(json.dumps(versions, indent=2) + "\n")


main()
