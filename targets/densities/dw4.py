"""Four particles in the plane, with a double well between every two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.densities._particles import Particles, distances
from tiltbench.targets.reference import Basins

REST, QUARTIC, QUADRATIC = 4.0, 0.9, 4.0
TINY = 1e-18  # where the gradient turns linear: its square fits single precision


@dataclass(frozen=True)
class Dw4(Particles):
    """log rho = -sum_{i<j} 0.9 (d_ij - 4)^4 - 4 (d_ij - 4)^2: 4 particles in 2-D, kT = 1.

    The wells of a pair are at d = 2.51 and 5.49; the d_0 = 1 that papers print is wrong (Koehler,
    Klein, Noe, arXiv 2006.02425).  E[x . grad log rho] = -6.  At d_ij = 0 the energy has a kink,
    where the gradient and the Hessian of the pair are defined as 0.
    """

    name = "dw4"
    particles = (4, 2)
    dim = 8
    scale = 2.1
    unit = 4 * QUARTIC
    test_value = -50.4418480706984

    def pair(self, s: Tensor, energy: Tensor) -> Tensor:
        r = s.sqrt().clamp_(min=TINY)
        y = torch.sub(r, REST, out=s)
        square = y * y
        energy.addcmul_(square, square, value=QUARTIC).sub_(square, alpha=QUADRATIC)
        return square.sub_(2 * QUADRATIC / self.unit).mul_(y).div_(r)

    def bend(self, s: Tensor) -> tuple[Tensor, Tensor]:
        r = s.sqrt()
        square = (r - REST).square()
        first = (4 * QUARTIC * square - 2 * QUADRATIC) * (r - REST) / r
        return first, 12 * QUARTIC * square - 2 * QUADRATIC - first

    def statistics(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Energy, |x|^2 about the centre, and of the six distances the number below 4, the least
        and the mean."""
        return {
            "energy": lambda x: -self.log_rho(x),
            "square": lambda x: self.project(x).square().sum(-1),
            "short_pairs": lambda x: self._short(x).to(x.dtype),
            "nearest": lambda x: distances(x, 4, 2).amin(-1),
            "distance": lambda x: distances(x, 4, 2).mean(-1),
        }

    def basins(self) -> Basins:
        """By the pairs shorter than 4: at most 2, 3, 4, at least 5.  Most mass has 2 or 4."""
        return Basins(4, lambda x: self._short(x).clamp(2, 5) - 2)

    def _short(self, x: Float[Tensor, "b D"]) -> Tensor:
        return (distances(x, 4, 2) < REST).sum(-1)
