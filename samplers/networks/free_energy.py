"""The free energy along time: F(t) = -log Z_t, F(0) = 0 and F(1) = -log Z."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltbench.samplers.least_squares import least_squares
from tiltbench.targets.constants import constant

BENDS = 8  # sines that bend the free energy away from a straight line
WAVES = tuple(j * math.pi for j in range(1, BENDS + 1))


class FreeEnergy(nn.Module):
    """F(t) = -t log_Z + sum_j bend_j sin(j pi t) / (j pi), BENDS terms, nats.

    The parameters are amplitudes of dF/dt, so that one learning rate suits them all."""

    def __init__(self) -> None:
        super().__init__()
        self.log_Z = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.bend = nn.Parameter(torch.zeros(BENDS, dtype=torch.float64))

    def at(self, t: Tensor) -> Tensor:
        """F at every t, differentiable in t."""
        waves = constant(WAVES, self.bend)
        bends = (self.bend / waves * torch.sin(t.double()[..., None] * waves)).sum(-1)
        return -t * self.log_Z + bends.to(t)

    def rate(self, t: Tensor) -> Tensor:
        """dF/dt, in closed form."""
        waves = constant(WAVES, self.bend)
        bends = (self.bend * torch.cos(t.double()[..., None] * waves)).sum(-1)
        return (bends - self.log_Z).to(t)

    @torch.no_grad()
    def fit(self, t: Float[Tensor, " k"], rate: Float[Tensor, " k"]) -> None:
        """log_Z and bend such that dF/dt is nearest to `rate`, in the mean square; the shortest of
        them where there are fewer times than numbers."""
        waves = constant(WAVES, self.bend)
        slopes = torch.cos(t.double()[:, None] * waves)
        basis = torch.cat([torch.full_like(slopes[:, :1], -1.0), slopes], 1)
        coefficients = least_squares(basis, rate[:, None])[:, 0]
        self.log_Z.copy_(coefficients[0])
        self.bend.copy_(coefficients[1:])
