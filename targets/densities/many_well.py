"""Independent asymmetric double wells, each beside a Gaussian coordinate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.constants import constant
from tiltbench.targets.densities._tabulated import TabulatedDensity, tabulate
from tiltbench.targets.target import Density, Observable, Truth


@dataclass(frozen=True)
class ManyWell(Density):
    """Blocks of two, log rho = sum -x1^4 + 6 x1^2 + x1/2 - x2^2/2: 2^(dim/2) modes.

    From FAB (arXiv 2208.01893).  x1 are the even coordinates.  The right well of a block holds
    0.8443071 of its mass; every block has its own observable, so that one collapsed block is seen.
    """

    name = "many_well"
    dim: int = 32
    scale = 1.4
    test_value = 65.9036236827683

    def __post_init__(self) -> None:
        if self.dim < 2 or self.dim % 2:
            raise ValueError(f"dim is {self.dim}; it must be even and positive")

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        push, fourth, fall = self._parts(x)
        return (x.square() * fall + push * x).sum(-1)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        x = x.detach()
        push, fourth, fall = self._parts(x)
        grad = (fall - fourth) * x * 2 + push
        return (x.square() * fall + push * x).sum(-1), grad

    def _parts(self, x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor, Tensor]:
        """(a, b x^2, c - b x^2) with log rho = sum -b x^4 + c x^2 + a x, coordinate by coordinate:
        all of them in one pass is faster than every other one twice."""
        blocks = self.dim // 2
        fourth, square = constant((1.0, 0.0) * blocks, x), constant((6.0, -0.5) * blocks, x)
        bent = fourth * x * x  # in this order: 0 where b is, however large x
        return constant((0.5, 0.0) * blocks, x), bent, square - bent

    def truth(self) -> Truth:
        line, blocks = _well_density(), self.dim // 2
        right = line.above(0.0)
        width = math.sqrt(right * (1 - right))
        well, fourth = line.mean(lambda x: x**2), line.mean(lambda x: x**4)
        share = {f"right_{k}": Observable(_right(k), right, width) for k in range(blocks)}
        square = Observable(
            lambda x: x.square().mean(-1),
            (well + 1) / 2,
            math.sqrt((fourth - well**2 + 2) * blocks) / self.dim,
        )
        return Truth(
            "quadrature, 1e-10",
            log_Z=blocks * (line.log_Z + math.log(2 * math.pi) / 2),
            sample=self._sample,
            observables={**share, "square": square},
        )

    def _sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        shape = (n, self.dim // 2)
        x1 = _well_density().sample(shape, generator)
        x2 = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
        return torch.stack([x1, x2], -1).flatten(-2)


def _well(x: Tensor) -> Tensor:
    square = x.square()
    return square * (6 - square) + x / 2


@lru_cache(maxsize=1)
def _well_density() -> TabulatedDensity:
    return tabulate(_well, reach=5.0)


def _right(k: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (x[:, 2 * k] > 0).to(x.dtype)
