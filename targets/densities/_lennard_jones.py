"""Lennard-Jones clusters in a harmonic trap."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.densities._particles import Particles, distances
from tiltbench.targets.reference import Basins

CONTACT = 1.3  # between the first and the second shell of neighbours
CENTRAL = 0.4


class LennardJones(Particles):
    """log rho = -sum_{i != j} (r_ij^-12 - 2 r_ij^-6) - sum_i |x_i - c|^2 / 2 in 3-D, kT = 1.

    The sum runs over ordered pairs, every pair twice: a pair at the minimum r = 1 has -2.  rho is 0
    where a pair is nearer than 0.01, a hard core that takes a mass below exp(-10^23): r^-12 and the
    gradient fit single precision everywhere else.
    """

    trap = 1.0
    core = 0.01
    ceiling = 1e24  # a pair in the core has 2e24, all others not below -2
    unit = 24.0

    def pair(self, s: Tensor, energy: Tensor) -> Tensor:
        q = s.reciprocal()
        cube = q.pow(3)
        fall = torch.addcmul(cube, cube, cube, value=-1, out=s)  # r^-6 - r^-12
        energy.sub_(fall, alpha=2).sub_(cube, alpha=2)
        return q.mul_(fall)

    def bend(self, s: Tensor) -> tuple[Tensor, Tensor]:
        q = 1 / s
        cube = q.pow(3)
        return 24 * q * cube * (1 - cube), 24 * q * cube * (14 * cube - 8)

    def statistics(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Energy, |x|^2 about the centre, the distance from a particle to the next (mean), the
        number of pairs nearer than 1.3, and the largest distance from the centre."""
        n, d = self.particles
        return {
            "energy": lambda x: -self.log_rho(x),
            "square": lambda x: self.project(x).square().sum(-1),
            "nearest": self._nearest,
            "contacts": lambda x: (distances(x, n, d) < CONTACT).sum(-1).to(x.dtype),
            "reach": lambda x: self._radii(x).amax(-1),
        }

    def basins(self) -> Basins:
        """Hollow or not: no particle, or at least one, within 0.4 of the centre of mass."""
        return Basins(2, lambda x: (self._radii(x).amin(-1) < CENTRAL).long())

    def _radii(self, x: Float[Tensor, "b D"]) -> Float[Tensor, "b n"]:
        return torch.linalg.vector_norm(self.project(x).unflatten(-1, self.particles), dim=-1)

    def _nearest(self, x: Float[Tensor, "b D"]) -> Float[Tensor, " b"]:
        n, d = self.particles
        i, j = torch.triu_indices(n, n, 1, device=x.device)
        away = distances(x, n, d)
        least = torch.full((len(x), n), torch.inf, dtype=x.dtype, device=x.device)
        for end in (i, j):
            least = least.scatter_reduce(1, end.expand(away.shape), away, "amin")
        return least.mean(-1)
