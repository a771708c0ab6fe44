"""The base of `tilt_linear` and `tilt_quadratic`: two unequal Gaussians in any dimension."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiltbench.targets.bases.components import Components
from tiltbench.targets.target import Modes

WEIGHTS = (0.4, 0.6)
VARIANCES = (0.3, 0.2)
PLANE = ((-1.5, 0.0), (1.5, 0.5))  # math.md 11


def pair_means(dim: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Those of math.md 11 in the first two coordinates, -+0.5 cos(i) in coordinate i = 3, 4, ..."""
    if dim < 2:
        raise ValueError(f"dim is {dim}; it must be 2 or more")
    rest = [0.5 * math.cos(i) for i in range(3, dim + 1)]
    first, second = PLANE
    return (*first, *(-c for c in rest)), (*second, *rest)


def extended(plane: tuple[float, float], amplitude: float, dim: int) -> tuple[float, ...]:
    """`plane` in the first two coordinates, amplitude sin(i) in coordinate i = 3, 4, ...: nearly
    orthogonal to what the means differ by, so that both modes matter in every dimension."""
    return (*plane, *(amplitude * math.sin(i) for i in range(3, dim + 1)))


def halves(law: Components) -> Modes:
    """Two half-spaces, cut across the line of the two means in proportion to their widths; the
    masses are normal cdfs."""
    s = law.var.sqrt()
    across = law.mean[1] - law.mean[0]
    normal = across / across.norm()
    place = law.mean @ normal
    border = float((place * s.flip(0)).sum() / s.sum())
    below = float((law.weight * torch.special.ndtr((border - place) / s)).sum())

    def assign(x: Float[Tensor, "*b d"]) -> Int[Tensor, " *b"]:
        return (x @ normal.to(x) > border).long()

    return Modes(torch.tensor([below, 1 - below], dtype=torch.float64), assign)
