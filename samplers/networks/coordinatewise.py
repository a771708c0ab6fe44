"""Controls by one small perceptron that all coordinates share, each beside their common mean.

    h_i = silu(a x_i + e_i + embedding(t)),    h_i <- silu(W h_i + V mean_j h_j),    u_i = c . h_i

with e_i learned for every coordinate: parameters do not grow with D^2, every coordinate of every
point teaches the same weights, and what coordinates have to know of each other passes through their
mean (in the manner of Deep Sets, arXiv 1703.06114).  Where coordinates are nearly independent a
perceptron of the whole vector has to learn that they are; this one starts from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.functional import linear, silu

from tiltbench.samplers.networks.hinted import Hinted, OfField
from tiltbench.samplers.networks.timed import MOST, Field, clock, initialise
from tiltbench.targets.bases.process import Process


@dataclass(frozen=True)
class Coordinatewise(OfField):
    """u_i = squash(f(x_i / spread, e_i, mean of features, t)), f of `layers` layers, one for all.

    A point costs about D (layers - 1) width^2 multiplications, and the means as much again."""

    name: ClassVar[str] = "Coordinatewise"
    width: int = 16
    layers: int = 3

    def field(self, dim: int, process: Process, generator: Generator, gates: int) -> _Shared:
        return _Shared(self, dim, process, generator, gates)


@dataclass(frozen=True)
class CoordinatewiseGuided(Hinted, Coordinatewise):
    """u = Coordinatewise(x, t) + gate(t) h,  h = grad r(x) spread clipped to length `clip` sqrt(D).

    As `Guided` is to `Mlp`, but that the clip grows with the dimension: one for the length of the
    whole vector would tie every coordinate's hint to the sizes of all others."""

    name: ClassVar[str] = "CoordinatewiseGuided"
    clip: float = 20.0  # the greatest length of h, over sqrt(D)

    def longest(self, dim: int) -> float:
        return self.clip * math.sqrt(dim)


class _Shared(Field):
    def __init__(
        self,
        spec: Coordinatewise,
        dim: int,
        process: Process,
        generator: Generator,
        gates: int,
    ) -> None:
        super().__init__()
        width = spec.width
        self.inverse_spread = 1 / process.spread
        self.state = nn.Linear(1, width)
        self.each = nn.Parameter(torch.zeros(dim, width))
        self.time = clock(width + gates)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(spec.layers - 1)])
        self.means = nn.ModuleList(
            [nn.Linear(width, width, bias=False) for _ in range(spec.layers - 1)]
        )
        self.out = nn.Linear(width, 1)
        self.to(generator.device)
        initialise(self, generator)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "*b d"], embedding: Tensor) -> Float[Tensor, "*b d"]:
        slope = self.state.weight[:, 0] * self.inverse_spread
        offset = (embedding + self.state.bias)[..., None, :] + self.each
        h = silu(x[..., None] * slope + offset)
        for layer, mean in zip(self.hidden, self.means, strict=True):
            h = silu(layer(h) + mean(h.mean(-2, keepdim=True)))
        return MOST * torch.tanh(linear(h, self.out.weight, self.out.bias)[..., 0] / MOST)
