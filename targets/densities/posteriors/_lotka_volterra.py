"""Pelts of hares and lynxes, and the equation of Lotka and Volterra, by Runge-Kutta of order 4."""

from __future__ import annotations

import torch
from torch import Tensor

PELTS = (  # thousands of hares and lynxes, 1900 to 1920
    (30.0, 4.0), (47.2, 6.1), (70.2, 9.8), (77.4, 35.2), (36.3, 59.4), (20.6, 41.7), (18.1, 19.0),
    (21.4, 13.0), (22.0, 8.3), (25.4, 9.1), (27.1, 7.4), (40.3, 8.0), (57.0, 12.3), (76.6, 19.5),
    (52.3, 45.7), (19.5, 51.1), (11.2, 29.7), (7.6, 15.8), (14.6, 9.7), (16.2, 10.1), (24.7, 8.6),
)  # fmt: skip
SUBSTEPS = 20  # a year
LOW, HIGH = -40.0, 12.0  # logarithms beyond which a trajectory is given up: e^12 thousand pelts


def years(rates: Tensor, first: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """log of prey and predator (*b, count + 1, 2), yearly from log `first` (*b, 2), and whether the
    trajectory (*b) stayed between e^LOW and e^HIGH; past them it stands still.

    rates (*b, 4): d log u/dt = rates_1 - rates_2 v, d log v/dt = rates_4 u - rates_3.  Logarithms
    stay finite where animals die out."""
    grow, kill, die, feed = rates.unbind(-1)
    rise, pull = torch.stack([grow, -die]), torch.stack([-kill, feed])

    def slope(z: Tensor) -> Tensor:  # (2, *b)
        return torch.addcmul(rise, pull, z.flip(0).clamp(max=HIGH + 3).exp())

    z, h = first.movedim(-1, 0), 1 / SUBSTEPS
    states, inside = [z], torch.ones_like(grow, dtype=torch.bool)
    for _ in range(count):
        for _ in range(SUBSTEPS):
            a = slope(z)
            b = slope(torch.add(z, a, alpha=h / 2))
            c = slope(torch.add(z, b, alpha=h / 2))
            d = slope(torch.add(z, c, alpha=h))
            z = z + h / 6 * (a + 2 * (b + c) + d)
            z = z.clamp(LOW, HIGH)
        inside = inside & ~((z <= LOW) | (z >= HIGH)).any(0)  # NaN stays NaN
        states.append(z)
    return torch.stack(states, 0).movedim(0, -1).movedim(0, -1), inside
