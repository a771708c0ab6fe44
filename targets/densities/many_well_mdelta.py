"""Independent symmetric double wells beside Gaussian coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.densities._tabulated import TabulatedDensity, tabulate
from tiltbench.targets.target import Density, Modes, Observable, Truth


@dataclass(frozen=True)
class ManyWellMDelta(Density):
    """log rho = -sum_{i <= wells} (x_i^2 - delta)^2 - sum_{i > wells} x_i^2 / 2 on R^dim.

    2^wells equal modes.  The cells of `modes` are the sign patterns of the first min(wells, 6)
    coordinates, equal by symmetry.
    """

    name = "many_well_mdelta"
    wells: int = 5
    delta: float = 4.0
    dim: int = 5
    test_value = -37.7437996402642

    def __post_init__(self) -> None:
        if not 1 <= self.wells <= self.dim:
            raise ValueError(f"wells is {self.wells}; it must be from 1 to dim = {self.dim}")
        if not 0 <= self.delta <= 25:
            raise ValueError(f"delta is {self.delta}; it must be from 0 to 25")

    @property
    def scale(self) -> float:  # type: ignore[override]
        well = _well_density(self.delta).mean(torch.square)
        square = (self.wells * well + self.dim - self.wells) / self.dim
        return float(f"{math.sqrt(square):.2g}")

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self._from(x.square())

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        x = x.detach()
        square = x.square()
        wells = x[..., : self.wells] * (square[..., : self.wells] - self.delta) * -4
        return self._from(square), torch.cat([wells, -x[..., self.wells :]], -1)

    def _from(self, square: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        wells, rest = square[..., : self.wells], square[..., self.wells :]
        return -(wells - self.delta).square().sum(-1) - rest.sum(-1) / 2

    def truth(self) -> Truth:
        line, free = _well_density(self.delta), self.dim - self.wells
        well, fourth = line.mean(torch.square), line.mean(lambda x: x**4)
        spread = math.sqrt(self.wells * (fourth - well**2) + free * 2) / self.dim
        square = (self.wells * well + free) / self.dim
        bits = min(self.wells, 6)
        return Truth(
            "quadrature, 1e-10",
            log_Z=self.wells * line.log_Z + free * math.log(2 * math.pi) / 2,
            sample=self._sample,
            modes=Modes(torch.full((2**bits,), 2.0**-bits, dtype=torch.float64), _pattern(bits)),
            observables={
                **{f"right_{i}": Observable(_right(i), 0.5, 0.5) for i in range(self.wells)},
                "square": Observable(lambda x: x.square().mean(-1), square, spread),
            },
        )

    def _sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        wells = _well_density(self.delta).sample((n, self.wells), generator)
        shape = (n, self.dim - self.wells)
        rest = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
        return torch.cat([wells, rest], -1)


@lru_cache(maxsize=16)
def _well_density(delta: float) -> TabulatedDensity:
    return tabulate(lambda x: -((x.square() - delta).square()), reach=math.sqrt(delta + 8))


def _pattern(bits: int) -> Callable[[Tensor], Int[Tensor, " b"]]:
    """The signs of the first `bits` coordinates read as a binary number."""
    return lambda x: ((x[..., :bits] > 0) * 2 ** torch.arange(bits, device=x.device)).sum(-1)


def _right(i: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (x[:, i] > 0).to(x.dtype)
