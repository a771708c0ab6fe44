"""A target from a function, as other libraries have it: NumPy, one point at a time."""

import numpy as np

from tiltbench.targets.functions import from_numpy


def log_density(x):
    """(dim,) -> nats: a valley along x2 = x1^2."""
    return -(x[0] ** 2) / 2 - 2 * (x[1] - x[0] ** 2) ** 2


def gradient(x):
    """(dim,) -> (dim,); without it, differences are taken."""
    across = 4 * (x[1] - x[0] ** 2)
    return np.array([2 * x[0] * across - x[0], -across])


valley = from_numpy(
    "valley",
    np.vectorize(log_density, signature="(d)->()"),
    dim=2,
    scale=1.5,
    gradient=np.vectorize(gradient, signature="(d)->(d)"),
)
