"""Controls of n like particles: equivariant under permutations, rotations, reflections, shifts.

Everything but vectors is a function of pair distances d_ij, and the vectors are differences:

    u_i = squash( sum_j (x_i - x_j)/(1 + d_ij) phi_ij + (x_i - mean) psi_i ),

phi_ij = phi_ji from `rounds` rounds of messages between pairs and particles (in the manner of EGNN,
arXiv 2102.09844), each unordered pair once.  Sums over pairs of functions of distances do not tell
at which angle two neighbours stand.  `vectors` of them a particle do, made after every round but
the last (in the manner of PaiNN, arXiv 2102.03150):

    a_ic = sum over rounds of  sum_j (x_i - x_j)/(1 + d_ij) w_ijc + (x_i - mean)/(1 + d_i) w_ic,

d_i the distance from the mean, of which a pair hears (a_i - a_j)_c . (x_i - x_j)/(1 + d_ij), and a
particle |a_ic|^2.  Lengths are in units of the base's spread, and sums over j are divided by
sqrt(n - 1).  Pairs come first in memory, points after them: sums over pairs are products with one
small fixed matrix, and the embedding of a time broadcasts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
FAINT = 30.0  # e^-30 stands for what is less: subnormal numbers take a CPU ten times as long
TOUCH = 1e-3  # sqrt(d^2 + TOUCH^2) has a gradient where two particles coincide


@dataclass(frozen=True)
class Equivariant(OfField):
    """u of pair distances d: `radial` Gaussians of d / spread on [0, 6], `rounds` of messages, and
    between rounds `vectors` a particle, which tell angles; 0: distances alone.

    The optimal control of a law with these symmetries has them too.  For bases whose centre of
    mass is removed, and targets whose particles are all alike and mirror images equal; raises
    Unsupported on others.
    """

    name: ClassVar[str] = "Equivariant"
    may_be_none = ("vectors",)
    width: int = 64
    rounds: int = 2
    radial: int = 32
    vectors: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vectors and self.rounds < 2:
            raise ValueError(
                f"vectors is {self.vectors}, but they are heard in the round after the first: "
                "set rounds to 2 or more, or leave vectors out"
            )

    def field(self, dim: int, process: Process, generator: Generator, gates: int) -> Messages:
        return _Particles(self, dim, process, generator, gates)


@dataclass(frozen=True)
class EquivariantGuided(Hinted, Equivariant):
    """u = Equivariant(x, t) + gate(t) h,  h = grad r(x) spread clipped to length `clip`.

    As `Guided` is to `Mlp`; the clip is on the whole vector, so that h stays equivariant.
    """

    name: ClassVar[str] = "EquivariantGuided"


class Messages(Field):
    """What particles hear of each other: features of pairs and of particles, functions of distances
    and of products of vectors, after `rounds` of messages; `spare` vectors of the time are for what
    is read out of them, all 0 at first."""

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
        spare: int = 2,
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
        self.time = clock(width * (1 + spare + 2 * rounds) + gates)
        self.gather = nn.ModuleList([nn.Linear(width, width) for _ in range(rounds)])
        self.spread_out = nn.ModuleList([nn.Linear(width, width) for _ in range(rounds)])
        self.update = nn.ModuleList([nn.Linear(width, width) for _ in range(rounds)])
        later = range(rounds - 1) if spec.vectors else ()
        self.aim = nn.ModuleList([nn.Linear(width, spec.vectors) for _ in later])
        self.lean = nn.ModuleList([nn.Linear(width, spec.vectors) for _ in later])
        self.lengths = nn.ModuleList([nn.Linear(spec.vectors, width) for _ in later])
        self.angles = nn.ModuleList([nn.Linear(spec.vectors, width) for _ in later])
        self.read_out = slice(width * (1 + 2 * rounds), width * (1 + spare + 2 * rounds))

    def begin(self, generator: Generator) -> None:
        """The parameters, once all are there."""
        self.to(generator.device)
        initialise(self, generator)
        self.silence(self.read_out)

    def apart(self, x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positions (n, *b, d) in units of the spread, differences (P, *b, d), their squares, and
        distances, softened where two particles meet."""
        y = x.unflatten(-1, (-1, self.space)).movedim(-2, 0) / self.spread
        away = along(self.between, y)
        square = away.square().sum(-1, keepdim=True)
        return y, away, square, (square + TOUCH**2).sqrt()

    def features(
        self, square: Float[Tensor, "P *b 1"], d: Float[Tensor, "P *b 1"]
    ) -> Float[Tensor, "P *b f"]:
        apart = ((d - self.centres) * self.sharpness).square()
        bump = apart.clamp(max=FAINT).neg().exp()
        return torch.cat([bump, d / (1 + d), 1 / (1 + 4 * square)], -1)

    def exchange(
        self,
        y: Float[Tensor, "n *b s"],
        away: Float[Tensor, "P *b s"],
        d: Float[Tensor, "P *b 1"],
        pair: Float[Tensor, "P *b w"],
        node: Tensor,
        parts: Iterator[Tensor],
    ) -> tuple[Float[Tensor, "P *b w"], Float[Tensor, "n *b w"]]:
        """Pairs and particles after all rounds, each of which takes two of the time's `parts`."""
        centred = y - y.mean(0)
        far = (centred.square().sum(-1, keepdim=True) + TOUCH**2).sqrt()
        towards, centred = (away / (1 + d))[..., None], (centred / (1 + far))[..., None]
        arrows = torch.zeros((), dtype=y.dtype, device=y.device)  # a: (n, *b, s, c)
        length, angle = arrows, arrows
        for i, (gather, spread_out, update) in enumerate(
            zip(self.gather, self.spread_out, self.update, strict=True)
        ):
            heard = gather(along(self.within.T, pair) * self.share) + (next(parts) + length)
            node = node + silu(heard)
            spread = along(self.within, spread_out(node))
            pair = pair + silu(update(pair) + spread + (next(parts) + angle))
            if i < len(self.aim):
                pull = along(self.between.T, towards * self.aim[i](pair)[..., None, :]) * self.share
                arrows = arrows + pull + centred * self.lean[i](node)[..., None, :]
                length = self.lengths[i](arrows.square().sum(-2))
                angle = self.angles[i]((along(self.between, arrows) * towards).sum(-2))
        return pair, node

    def output(
        self,
        y: Tensor,
        away: Tensor,
        d: Tensor,
        pair: Tensor,
        node: Tensor,
        parts: Iterator[Tensor],
    ) -> Float[Tensor, "n *b d"]:
        """sum_j (x_i - x_j)/(1 + d_ij) phi_ij + (x_i - mean) psi_i."""
        phi = (pair * next(parts)).sum(-1, keepdim=True)
        psi = (node * next(parts)).sum(-1, keepdim=True)
        pull = along(self.between.T, away * (phi / (1 + d))) * self.share
        return pull + (y - y.mean(0)) * psi


class _Particles(Messages):
    def __init__(
        self, spec: Equivariant, dim: int, process: Process, generator: Generator, gates: int
    ) -> None:
        super().__init__(spec, dim, process, generator, gates)
        groups = process.alike
        if process.chiral or (groups is not None and sum(map(len, groups[:1])) * self.space != dim):
            raise Unsupported(
                "this network takes all particles for alike and mirror images for equal, and the "
                "target states otherwise: use Atomic"
            )
        self.begin(generator)

    def forward(self, x: Float[Tensor, "*b d"], embedding: Tensor) -> Float[Tensor, "*b d"]:
        parts = iter(embedding.split(self.width, -1))
        y, away, square, d = self.apart(x)
        pair = silu(self.pairs(self.features(square, d)) + next(parts))  # (P, *b, W)
        node = torch.zeros((), dtype=x.dtype, device=x.device)
        pair, node = self.exchange(y, away, d, pair, node, parts)
        return squashed(self.output(y, away, d, pair, node, parts))


def squashed(v: Float[Tensor, "n *b d"]) -> Float[Tensor, "*b D"]:
    """|v_i| < MOST."""
    v = v * (1 + v.square().sum(-1, keepdim=True) / MOST**2).rsqrt()
    return v.movedim(0, -2).flatten(-2)


def along(matrix: Float[Tensor, "m n"], each: Float[Tensor, "n *b w"]) -> Float[Tensor, "m *b w"]:
    """The matrix applied along the first dimension."""
    return (matrix @ each.flatten(1)).unflatten(-1, each.shape[1:])
