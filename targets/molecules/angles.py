"""Angles of conformations, for statistics and pictures."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def dihedral(x: Float[Tensor, "*b D"], atoms: tuple[int, int, int, int]) -> Float[Tensor, " *b"]:
    """The torsion angle of four atoms in (-pi, pi], 0 where the ends are cis, positive where the
    far bond is turned clockwise, seen along the middle one (IUPAC)."""
    y = x.unflatten(-1, (-1, 3))
    i, j, k, m = (y[..., atom, :] for atom in atoms)
    middle = k - j
    a, b = (j - i).cross(middle, dim=-1), middle.cross(m - k, dim=-1)
    length = middle.square().sum(-1).sqrt()
    return ((j - i) * b).sum(-1).mul(length).atan2((a * b).sum(-1))
