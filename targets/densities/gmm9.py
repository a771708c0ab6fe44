"""Nine equal Gaussians on a square grid."""

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

CENTRES = (-5.0, 0.0, 5.0)
VARIANCE = 0.3


@dataclass(frozen=True)
class Gmm9(Density):
    """(1/9) sum_j N(m_j, 0.3 I), means m_j in {-5, 0, 5}^2; normalised."""

    name = "gmm9"
    dim = 2
    scale = 4.1
    test_value = -15.8531636024225

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return grid_log_density(x, CENTRES, VARIANCE)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        return grid_log_density_and_grad(x, CENTRES, VARIANCE)

    def truth(self) -> Truth:
        return grid_truth(CENTRES, VARIANCE)
