"""Angles of conformations, for statistics, pictures and internal coordinates."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def dihedral(x: Float[Tensor, "*b D"], atoms: tuple[int, int, int, int]) -> Float[Tensor, " *b"]:
    """The torsion angle of four atoms in (-pi, pi], 0 where the ends are cis, positive where the
    far bond is turned clockwise, seen along the middle one (IUPAC)."""
    y = x.unflatten(-1, (-1, 3))
    i, j, k, m = (y[..., atom, :] for atom in atoms)
    return torsion(i, j, k, m)


def torsion(
    i: Float[Tensor, "*b 3"],
    j: Float[Tensor, "*b 3"],
    k: Float[Tensor, "*b 3"],
    m: Float[Tensor, "*b 3"],
) -> Float[Tensor, " *b"]:
    """The same of four points."""
    middle = k - j
    a, b = (j - i).cross(middle, dim=-1), middle.cross(m - k, dim=-1)
    length = middle.square().sum(-1).sqrt()
    return ((j - i) * b).sum(-1).mul(length).atan2((a * b).sum(-1))


def corner(
    i: Float[Tensor, "*b 3"], j: Float[Tensor, "*b 3"], k: Float[Tensor, "*b 3"]
) -> Float[Tensor, " *b"]:
    """The angle at j in [0, pi] between i and k."""
    a, b = i - j, k - j
    return a.cross(b, dim=-1).square().sum(-1).sqrt().atan2((a * b).sum(-1))
