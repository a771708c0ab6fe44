"""Forty equal Gaussians at frozen random places."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.densities._mixture import Mixture
from tiltbench.targets.target import Density, Truth, table

VARIANCE = math.log1p(math.e) ** 2  # sd softplus(1) = 1.3132617


@dataclass(frozen=True)
class Gmm40(Density):
    """(1/40) sum_j N(m_j, softplus(1)^2 I) in the plane, m_j from data/gmm40.npy; normalised.

    The version most papers use (FAB, arXiv 2208.01893): means uniform on [-40, 40]^2.  Components
    overlap: the cell of a mean holds between 0.973 and 1.023 fortieths (data/gmm40_cells.npy).
    """

    name = "gmm40"
    dim = 2
    scale = 23.0
    test_value = -38.3426543382297

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return _mixture().log_density(x)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        return _mixture().log_density_and_grad(x)

    def truth(self) -> Truth:
        cells = table("gmm40_cells", torch.zeros((), dtype=torch.float64))
        return _mixture().truth(cells, "closed form; masses of cells by quadrature, 1e-12")


@lru_cache(maxsize=1)
def _mixture() -> Mixture:
    mean = table("gmm40", torch.zeros((), dtype=torch.float64))
    return Mixture(torch.full((40,), 1 / 40, dtype=torch.float64), mean, VARIANCE)
