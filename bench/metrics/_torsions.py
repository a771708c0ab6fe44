"""Torsion angles of draws and of exact draws."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.metric import Unknown
from tiltbench.targets.target import Target


def angles(target: Target, x: Float[Tensor, "n D"]) -> Float[Tensor, "n k"]:
    """All torsions that the target names, in [-pi, pi]."""
    return torch.stack([angle(target, name, x) for name in target.torsions()], 1)


def angle(target: Target, name: str, x: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
    """One of them.  Raises Unknown where the target has none of that name, or no angle of a draw is
    a number."""
    if name not in target.torsions():
        raise Unknown(f"the target has no torsion {name}")
    with torch.no_grad():
        angles = target.torsions()[name](x).double().cpu()
    bad = int((~angles.isfinite()).sum())
    if bad:
        raise Unknown(f"{name} of {bad} of {len(x)} draws are not finite")
    return angles


def bin_of(angle: Float[Tensor, " n"], bins: int) -> Tensor:
    """(n,) which of `bins` equal parts of the circle, from -pi on, holds an angle."""
    return ((angle + math.pi) / (2 * math.pi) * bins).long().clamp(0, bins - 1)


def wrapped(difference: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return (difference + math.pi).remainder(2 * math.pi) - math.pi
