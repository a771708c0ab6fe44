"""Twenty-five equal Gaussians on a square grid."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.densities._grid import (
    grid_log_density,
    grid_log_density_and_grad,
    grid_truth,
)
from tiltbench.targets.target import Density, Truth

CENTRES = (-10.0, -5.0, 0.0, 5.0, 10.0)
VARIANCE = 0.3


@dataclass(frozen=True)
class Gmm25(Density):
    """(1/25) sum_j N(m_j, 0.3 I), means m_j in {-10, -5, 0, 5, 10}^2; normalised."""

    name = "gmm25"
    dim = 2
    scale = 7.1
    test_value = -13.0823389973076

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return grid_log_density(x, CENTRES, VARIANCE)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        return grid_log_density_and_grad(x, CENTRES, VARIANCE)

    def truth(self) -> Truth:
        return grid_truth(CENTRES, VARIANCE)
