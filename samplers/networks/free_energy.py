"""The free energy along time: F(t) = -log Z_t, F(0) = 0 and F(1) = -log Z."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltbench.samplers.least_squares import least_squares

BENDS = 8  # sines that bend the free energy away from a straight line


class FreeEnergy(nn.Module):
    """F(t) = -t log_Z + sum_j bend_j sin(j pi t) / (j pi), BENDS terms, nats.

    The parameters are amplitudes of dF/dt, so that one learning rate suits them all."""

    def __init__(self) -> None:
        super().__init__()
        self.log_Z = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.bend = nn.Parameter(torch.zeros(BENDS, dtype=torch.float64))

    def at(self, t: Tensor) -> Tensor:
        """F at every t, differentiable in t."""
        waves = torch.arange(1, BENDS + 1, device=t.device) * math.pi
        bends = (self.bend / waves * torch.sin(t.double()[..., None] * waves)).sum(-1)
        return -t * self.log_Z + bends.to(t)

    def rate(self, t: Tensor) -> Tensor:
        """dF/dt, in closed form."""
        waves = torch.arange(1, BENDS + 1, device=t.device) * math.pi
        bends = (self.bend * torch.cos(t.double()[..., None] * waves)).sum(-1)
        return bends.to(t) - self.log_Z.to(t)

    @torch.no_grad()
    def fit(self, t: Float[Tensor, " k"], rate: Float[Tensor, " k"]) -> None:
        """log_Z and bend such that dF/dt is nearest to `rate`, in the mean square; the shortest of
        them where there are fewer times than numbers."""
        waves = torch.arange(1, BENDS + 1, device=t.device) * math.pi
        slopes = torch.cos(t.double()[:, None] * waves)
        basis = torch.cat([torch.full_like(slopes[:, :1], -1.0), slopes], 1)
        found = least_squares(basis, rate[:, None])[:, 0]
        self.log_Z.copy_(found[0])
        self.bend.copy_(found[1:])
