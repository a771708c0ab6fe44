"""Two unequal Gaussians, far apart, in any dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.densities._mixture import Mixture
from tiltbench.targets.target import Density, Observable, Truth

PLACES = (-2 / 3, 4 / 3)
WEIGHTS = (2 / 3, 1 / 3)
VARIANCE = 0.05


@dataclass(frozen=True)
class GmmWeighted(Density):
    """2/3 N(-2/3 1, 0.05 I) + 1/3 N(4/3 1, 0.05 I) in R^dim; normalised.

    Mean 0.  What it asks: not whether both modes are found but whether they get 2 to 1.
    """

    name = "gmm_weighted"
    dim: int = 8
    scale = 0.97
    test_value = -68.2294759664854

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ValueError(f"dim is {self.dim}; it must be at least 1")

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return _mixture(self.dim).log_density(x)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        return _mixture(self.dim).log_density_and_grad(x)

    def truth(self) -> Truth:
        """The cells are half-spaces, so that their masses are normal cdfs along (1, ..., 1)."""
        a, b = (place * math.sqrt(self.dim) for place in PLACES)  # in units along 1/sqrt(dim)
        border = (a + b) / 2 + VARIANCE / (b - a) * math.log(WEIGHTS[0] / WEIGHTS[1])
        below = [_cdf((border - place) / math.sqrt(VARIANCE)) for place in (a, b)]
        first = WEIGHTS[0] * below[0] + WEIGHTS[1] * below[1]
        cells = torch.tensor([first, 1 - first], dtype=torch.float64)
        truth = _mixture(self.dim).truth(cells)
        return truth._replace(observables={**truth.observables, "centre": self._centre()})

    def _centre(self) -> Observable:
        """The mean coordinate: E = 0, Var = E place^2 + VARIANCE / dim."""
        between = sum(w * p * p for w, p in zip(WEIGHTS, PLACES, strict=True))
        return Observable(lambda x: x.mean(-1), 0.0, math.sqrt(between + VARIANCE / self.dim))


@lru_cache(maxsize=32)
def _mixture(dim: int) -> Mixture:
    mean = torch.tensor(PLACES, dtype=torch.float64)[:, None].expand(2, dim)
    return Mixture(torch.tensor(WEIGHTS, dtype=torch.float64), mean, VARIANCE)


def _cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2
