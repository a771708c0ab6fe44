"""Pretrained digits given a noisy image of half the resolution: a linear inverse problem."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.constants import constant
from tiltbench.targets.digits.digits import split
from tiltbench.targets.digits.images import likelihood, likelihood_and_grad, pooled
from tiltbench.targets.tilts._digits import DigitsTilt

HELD_OUT = 359
LEAST, MOST = 1e-3, 1e3  # of the noise; pixels are in [-1, 1]


@dataclass(frozen=True)
class DigitsSuperresolution(DigitsTilt):
    """r(x) = log N(y; A x, noise^2 I), A x the means of 2 x 2 blocks of the 8 x 8 image.

    y = A x_0 + noise xi for the held-out image x_0 of that index: p* is the posterior of the image
    under the digits base as its prior, Z the evidence of y (dimension 16).  Image 138, a nought, is
    the default as one of those whose posterior 50,000 draws of the base know best.
    """

    name = "digits_superresolution"
    image: int = 138
    noise: float = 0.6
    test_value = -24.862803126392997

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image not in range(HELD_OUT):
            raise ValueError(f"image is {self.image}; it must be from 0 to {HELD_OUT - 1}")
        if not LEAST <= self.noise <= MOST:
            raise ValueError(f"noise is {self.noise}; it must be from {LEAST:g} to {MOST:g}")

    @cached_property
    def y(self) -> Float[Tensor, " 16"]:
        """What was seen, float64; xi from NumPy's RandomState, whose stream is frozen."""
        x = split(torch.empty(0, dtype=torch.float64))[1].x[self.image]
        xi = np.random.RandomState(self.image).standard_normal(16)
        return pooled(x) + self.noise * torch.from_numpy(xi)

    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return likelihood(x, self._seen(x), self.noise)

    def reward_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        return likelihood_and_grad(x, self._seen(x), self.noise)

    def _seen(self, like: Tensor) -> Float[Tensor, " 16"]:
        return constant(self._numbers, like)

    @cached_property
    def _numbers(self) -> tuple[float, ...]:
        return tuple(self.y.tolist())
