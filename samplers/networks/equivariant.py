"""Controls of n like particles: equivariant under permutations, rotations, reflections, shifts.

Everything but vectors is a function of pair distances d_ij, and the vectors are differences:

    u_i = squash( sum_j (x_i - x_j)/(1 + d_ij) phi_ij + (x_i - mean) psi_i ),

phi_ij = phi_ji from `rounds` rounds of messages between pairs and particles (in the manner of EGNN,
arXiv 2102.09844), each unordered pair once.  Pairs come first in memory, points after them: sums
over pairs are products with one small fixed matrix, and the embedding of a time broadcasts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.functional import silu

from tiltbench.samplers.networks.hinted import Hinted, OfField
from tiltbench.samplers.networks.timed import MOST, Field, clock, initialise
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Process

REACH = 6.0  # of the radial features, in units of the base's rms coordinate
FASTEST = 5.0  # pi rad per unit of time: what is learned at one time serves its neighbours
TOUCH = 1e-3  # sqrt(d^2 + TOUCH^2) has a gradient where two particles coincide


@dataclass(frozen=True)
class Equivariant(OfField):
    """u of pair distances d: `radial` Gaussians of d / spread on [0, 6], `rounds` of messages.

    The optimal control of a law with these symmetries has them too.  For bases whose centre of
    mass is removed; raises Unsupported on others.
    """

    name: ClassVar[str] = "Equivariant"
    width: int = 64
    rounds: int = 2
    radial: int = 32

    def field(self, dim: int, process: Process, generator: Generator, gates: int) -> _Particles:
        return _Particles(self, dim, process, generator, gates)


@dataclass(frozen=True)
class EquivariantGuided(Hinted, Equivariant):
    """u = Equivariant(x, t) + gate(t) h,  h = grad r(x) spread clipped to length `clip`.

    As `Guided` is to `Mlp`; the clip is on the whole vector, so that h stays equivariant.
    """

    name: ClassVar[str] = "EquivariantGuided"


class _Particles(Field):
    between: Tensor
    within: Tensor
    centres: Tensor

    def __init__(
        self,
        spec: Equivariant,
        dim: int,
        process: Process,
        generator: Generator,
        gates: int,
    ) -> None:
        super().__init__(FASTEST)
        self.space, self.spread = process.removed, process.spread
        if not self.space or dim <= self.space:
            raise Unsupported("this network is for particles, on a base without centre of mass")
        n, width, rounds = dim // self.space, spec.width, spec.rounds
        between = torch.zeros(n * (n - 1) // 2, n)
        first, second = torch.triu_indices(n, n, 1)
        rows = torch.arange(len(between))
        between[rows, first], between[rows, second] = 1.0, -1.0
        self.register_buffer("between", between, persistent=False)  # (P, n): x_i - x_j
        self.register_buffer("within", between.abs(), persistent=False)  # (P, n): h_i + h_j
        centres = torch.linspace(0.0, REACH, spec.radial)
        self.register_buffer("centres", centres, persistent=False)
        self.sharpness = spec.radial / REACH
        self.width, self.share = width, 1 / math.sqrt(n - 1)
        self.pairs = nn.Linear(spec.radial + 2, width)
        self.time = clock(width * (3 + 2 * rounds) + gates)
        self.gather = nn.ModuleList([nn.Linear(width, width) for _ in range(rounds)])
        self.spread_out = nn.ModuleList([nn.Linear(width, width) for _ in range(rounds)])
        self.update = nn.ModuleList([nn.Linear(width, width) for _ in range(rounds)])
        self.to(generator.device)
        initialise(self, generator)
        # phi and psi are read out by vectors of the time, 0 at first
        self.silence(slice(width * (1 + 2 * rounds), width * (3 + 2 * rounds)))

    def forward(self, x: Float[Tensor, "*b d"], embedding: Tensor) -> Float[Tensor, "*b d"]:
        parts = iter(embedding.split(self.width, -1))
        y = x.unflatten(-1, (-1, self.space)).movedim(-2, 0) / self.spread  # (n, *b, d)
        away = _along(self.between, y)  # (P, *b, d)
        square = away.square().sum(-1, keepdim=True)
        d = (square + TOUCH**2).sqrt()
        bump = ((d - self.centres) * self.sharpness).square().neg().exp()
        features = torch.cat([bump, d / (1 + d), 1 / (1 + 4 * square)], -1)
        pair = silu(self.pairs(features) + next(parts))  # (P, *b, W)
        node = torch.zeros((), dtype=x.dtype, device=x.device)
        for gather, spread_out, update in zip(
            self.gather, self.spread_out, self.update, strict=True
        ):
            heard = gather(_along(self.within.T, pair) * self.share) + next(parts)
            node = node + silu(heard)
            told = _along(self.within, spread_out(node))
            pair = pair + silu(update(pair) + told + next(parts))
        phi = (pair * next(parts)).sum(-1, keepdim=True)
        psi = (node * next(parts)).sum(-1, keepdim=True)
        pull = _along(self.between.T, away * (phi / (1 + d))) * self.share
        v = pull + (y - y.mean(0)) * psi
        v = v * (1 + v.square().sum(-1, keepdim=True) / MOST**2).rsqrt()  # |v_i| < MOST
        return v.movedim(0, -2).flatten(-2)


def _along(matrix: Float[Tensor, "m n"], each: Float[Tensor, "n *b w"]) -> Float[Tensor, "m *b w"]:
    """The matrix applied along the first dimension."""
    return (matrix @ each.flatten(1)).unflatten(-1, each.shape[1:])
