"""A target in one file: a banana in the plane, with everything known about it."""

import math
from dataclasses import dataclass

import torch

from tiltbench.targets.target import Density, Observable, Truth


@dataclass(frozen=True)
class Banana(Density):
    """x1 ~ N(0, 1), x2 given x1 ~ N(x1^2 - 1, 1/4)."""

    name = "banana"
    dim = 2
    scale = 1.3  # rms coordinate

    def log_rho(self, x):
        a, b = x.unbind(-1)
        return -(a**2) / 2 - 2 * (b - a**2 + 1) ** 2

    def truth(self):
        def sample(n, generator):
            on = {"generator": generator, "device": generator.device, "dtype": torch.float64}
            a, noise = torch.randn(2, n, **on)
            return torch.stack([a, a**2 - 1 + noise / 2], -1)

        height = {"height": Observable(lambda x: x[:, 1], mean=0.0, sd=1.5)}
        return Truth("closed form", log_Z=math.log(math.pi), sample=sample, observables=height)
