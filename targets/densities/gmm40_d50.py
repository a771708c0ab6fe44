"""Forty equal Gaussians at frozen random places of fifty dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.densities._mixture import Mixture
from tiltbench.targets.target import Density, Truth, table


@dataclass(frozen=True)
class Gmm40D50(Density):
    """(1/40) sum_j N(m_j, I) in R^50, m_j from data/gmm40_d50.npy, in [-40, 40]^50; normalised.

    Our own means, not those of any paper.  The closest two are more than 150 apart: the cell of
    a mean holds a fortieth to far below rounding.
    """

    name = "gmm40_d50"
    dim = 50
    scale = 23.0
    test_value = -14218.296092106139

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return _mixture().log_density(x)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        return _mixture().log_density_and_grad(x)

    def truth(self) -> Truth:
        mixture = _mixture()
        return mixture.truth(mixture.weight)


@lru_cache(maxsize=1)
def _mixture() -> Mixture:
    mean = table("gmm40_d50", torch.zeros((), dtype=torch.float64))
    return Mixture(torch.full((40,), 1 / 40, dtype=torch.float64), mean, 1.0)
