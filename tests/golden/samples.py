"""Tensors that number formats are tried on: the same ones wherever this is run with the NumPy of the tests."""

import numpy as np

COUNT = 220
SHAPE = (2, 256)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def tensors():
    """All of them, F32."""
    draw = np.random.default_rng(20261130)
    return [tensor(i, draw) for i in range(COUNT)]


def tensor(i, draw):
    """One of twelve kinds of tensors."""
    n = int(np.prod(SHAPE))
    scale = 10.0 ** draw.uniform(-3, 3)
    gauss = draw.standard_normal(n)
    match i % 12:
        case 0:
            x = gauss * scale
        case 1:
            x = draw.standard_t(2, n) * scale
        case 2:
            x = np.where(draw.random(n) < 0.01, 1000, 1) * gauss
        case 3:
            x = gauss * scale
            x[: 32 * draw.integers(1, 8)] = 0
            x[draw.random(n) < 0.2] = -0.0
        case 4:
            x = gauss * 1e-40
        case 5:  # ties of floats of 4 and of 8 bits, each block with its largest number
            ties = (E2M1[1:] + E2M1[:-1]) / 2
            x = draw.choice(np.concatenate([ties, E2M1, [2.125, 2.375, 5.25, 0.0625]]), n) * draw.choice([-1, 1], n)
            x[::16] = 6
            x *= 2.0 ** draw.integers(-8, 9)
        case 6:
            x = np.full(n, draw.standard_normal() * scale)
        case 7:
            x = np.abs(gauss) * scale
        case 8:
            x = -np.exp(gauss * 3)
        case 9:
            x = gauss * 10.0 ** draw.uniform(-30, 30)
        case 10:
            x = draw.integers(-500, 500, n) * 1.0
        case 11:  # a wide range from block to block
            x = gauss * np.repeat(2.0 ** draw.integers(-20, 20, n // 16), 16)
    with np.errstate(under="ignore"):
        return x.astype(np.float32).reshape(SHAPE)
