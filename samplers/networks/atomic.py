"""Controls of a molecule, whose atoms differ: equivariant under rotations and shifts.

As `equivariant`, with an embedding of every kind of atom and of pair, and, where the law tells
mirror images apart, with vector products: for C pairs of vectors a_i, b_i = sum_j w_ij (x_i - x_j)
/ (1 + d_ij),

    u_i = squash( sum_j (x_i - x_j)/(1 + d_ij) phi_ij + (x_i - mean) psi_i
                  + chi_i sum_c m_c a_ic x b_ic ),

and the volumes a_ic . b_ic x a_i(c+1) are features of the atom.  Atoms that are alike have one
embedding: the control is equivariant under their permutations as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.functional import silu

from tiltbench.samplers.networks.equivariant import Equivariant, Messages, along, squashed
from tiltbench.samplers.networks.hinted import Hinted
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Process
from tiltbench.targets.target import Groups

HANDS = 4  # pairs of vectors
VOLUME = 0.1  # of volumes, which are of order one then


@dataclass(frozen=True)
class Atomic(Equivariant):
    """u of distances and kinds of atoms: `radial` Gaussians of d / spread on [0, 6], `rounds` of
    messages, `width` small enough for a CPU.

    For bases whose centre of mass is removed, in space where the target is chiral; raises
    Unsupported on others."""

    name: ClassVar[str] = "Atomic"
    width: int = 32
    rounds: int = 1
    radial: int = 16

    def field(self, dim: int, process: Process, generator: Generator, gates: int) -> Messages:
        return _Atoms(self, dim, process, generator, gates)


@dataclass(frozen=True)
class AtomicGuided(Hinted, Atomic):
    """u = Atomic(x, t) + gate(t) h,  h = grad r(x) spread clipped to length `clip`."""

    name: ClassVar[str] = "AtomicGuided"


class _Atoms(Messages):
    atom: Tensor
    couple: Tensor

    def __init__(
        self, spec: Atomic, dim: int, process: Process, generator: Generator, gates: int
    ) -> None:
        super().__init__(spec, dim, process, generator, gates, spare=2 + process.chiral)
        if process.chiral and self.space != 3:
            raise Unsupported("this network tells mirror images apart in three dimensions only")
        self.chiral = process.chiral
        kind = kinds(dim // self.space, process.alike)
        first, second = torch.triu_indices(len(kind), len(kind), 1)
        ends = torch.stack([kind[first], kind[second]], 1).sort(1).values
        couples, couple = torch.unique(ends, dim=0, return_inverse=True)
        self.register_buffer("atom", kind, persistent=False)
        self.register_buffer("couple", couple, persistent=False)
        self.atoms = nn.Embedding(int(kind.max()) + 1, self.width)
        self.couples = nn.Embedding(len(couples), self.width)
        if self.chiral:
            self.legs = nn.Linear(self.width, 2 * HANDS)
            self.volumes = nn.Linear(HANDS, self.width)
            self.mix = nn.Linear(HANDS, 1, bias=False)
        self.begin(generator)

    def forward(self, x: Float[Tensor, "*b d"], embedding: Tensor) -> Float[Tensor, "*b d"]:
        parts = iter(embedding.split(self.width, -1))
        y, away, square, d = self.apart(x)
        lead = (-1, *[1] * (x.dim() - 1), self.width)
        couple = self.couples(self.couple).reshape(lead)
        pair = silu(self.pairs(self.features(square, d)) + couple + next(parts))  # (P, *b, W)
        node = self.atoms(self.atom).reshape(lead)
        if not self.chiral:
            pair, node = self.exchange(y, away, d, pair, node, parts)
            return squashed(self.output(y, away, d, pair, node, parts))
        a, b = self._hands(pair, away / (1 + d)).chunk(2, -1)  # (n, *b, 3, C) each
        normal = a.cross(b, dim=-2)
        volume = (normal * a.roll(1, -1)).sum(-2)
        node = node + silu(self.volumes(torch.tanh(volume / VOLUME)))
        pair, node = self.exchange(y, away, d, pair, node, parts)
        v = self.output(y, away, d, pair, node, parts)
        chi = (node * next(parts)).sum(-1, keepdim=True)
        return squashed(v + self.mix(normal)[..., 0] * chi)

    def _hands(self, pair: Tensor, unit: Float[Tensor, "P *b 3"]) -> Float[Tensor, "n *b 3 c"]:
        """sum_j w_ij (x_i - x_j) / (1 + d_ij), all vectors at once."""
        weighted = unit[..., None] * self.legs(pair)[..., None, :]
        return along(self.between.T, weighted.flatten(-2)).unflatten(-1, (3, -1)) * self.share


def kinds(n: int, alike: Groups | None) -> Tensor:
    """(n,) whole numbers from 0: one for every group of like atoms and every atom of its own."""
    kind = torch.arange(n)
    for group in alike or ():
        kind[list(group)] = group[0]
    return torch.unique(kind, return_inverse=True)[1]
