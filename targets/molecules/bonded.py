"""Energies of bonds, angles and torsions, each as a function of the vectors between atoms.

A term takes vectors (m, 3, b), the batch b innermost, and parameters (m, 1), and returns its
`Term`: energies in kJ/mol, and on demand the derivatives by its vectors in kJ/mol/nm.  All of it is
made of differentiable operations, so that autograd of a derivative gives the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

TINY = 1e-30  # of squares: degenerate angles get finite energies and derivatives


class Term(NamedTuple):
    """Part of an energy."""

    energy: Float[Tensor, " b"]
    pull: Callable[[], tuple[Tensor, ...]]  # dE / dv of every argument v, in their order


def bonds(v: Float[Tensor, "m 3 b"], rest: Tensor, stiffness: Tensor) -> Term:
    """sum k / 2 (|v| - r0)^2."""
    r = square(v).clamp(min=TINY).sqrt()
    away = r - rest
    energy = (stiffness / 2 * away * away).sum(0)
    return Term(energy, lambda: ((stiffness * away / r)[:, None] * v,))


def angles(
    a: Float[Tensor, "m 3 b"], c: Float[Tensor, "m 3 b"], rest: Tensor, stiffness: Tensor
) -> Term:
    """sum k / 2 (theta - theta0)^2, theta the angle between a and c, which start in its corner."""
    along, aa, cc = dot(a, c), square(a).clamp(min=TINY), square(c).clamp(min=TINY)
    across = square(cross(a, c)).clamp(min=TINY).sqrt()
    away = across.atan2(along) - rest
    energy = (stiffness / 2 * away * away).sum(0)

    def pull() -> tuple[Tensor, Tensor]:
        size = stiffness * away / across
        on_a, on_c, both = size * along / aa, size * along / cc, size[:, None]
        return on_a[:, None] * a - both * c, on_c[:, None] * c - both * a

    return Term(energy, pull)


def torsions(
    f: Float[Tensor, "m 3 b"],
    g: Float[Tensor, "m 3 b"],
    h: Float[Tensor, "m 3 b"],
    even: Float[Tensor, "p m 1"],
    odd: Float[Tensor, "p m 1"],
) -> Term:
    """sum_n even_n cos(n phi) + odd_n sin(n phi), n = 1, ..., p; f = x_i - x_j, g = x_j - x_k and
    h = x_l - x_k of the atoms i, j, k, l.

    phi is the angle from f to h seen along -g, 0 where they are cis; its derivatives are those of
    Blondel and Karplus (J. Comput. Chem. 17, 1132, 1996), without a pole at phi = 0 or pi."""
    a, b = cross(f, g), cross(h, g)
    aa, bb = square(a).clamp(min=TINY), square(b).clamp(min=TINY)
    middle = square(g).clamp(min=TINY).sqrt()
    scale = aa.rsqrt() * bb.rsqrt()
    cos, sin = dot(a, b) * scale, dot(h, a) * middle * scale
    c, s = cos, sin
    energy, slope = (even[0] * c + odd[0] * s), (odd[0] * c - even[0] * s)
    for n in range(2, len(even) + 1):
        c, s = c * cos - s * sin, s * cos + c * sin
        energy = energy + even[n - 1] * c + odd[n - 1] * s
        slope = slope + n * (odd[n - 1] * c - even[n - 1] * s)

    def pull() -> tuple[Tensor, Tensor, Tensor]:
        of_a, of_b = slope / aa, slope / bb
        on_f, on_h = -middle * of_a, middle * of_b
        left, right = of_a * dot(f, g) / middle, of_b * dot(h, g) / middle
        return on_f[:, None] * a, left[:, None] * a - right[:, None] * b, on_h[:, None] * b

    return Term(energy.sum(0), pull)


def dot(a: Float[Tensor, "m 3 b"], b: Float[Tensor, "m 3 b"]) -> Float[Tensor, "m b"]:
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def square(a: Float[Tensor, "m 3 b"]) -> Float[Tensor, "m b"]:
    return dot(a, a)


def cross(a: Float[Tensor, "m 3 b"], b: Float[Tensor, "m 3 b"]) -> Float[Tensor, "m 3 b"]:
    return a.cross(b, dim=1)
