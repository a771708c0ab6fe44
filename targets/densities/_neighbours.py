"""Sums over the nearest neighbours on a periodic lattice."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

DENSE = 64  # sites up to which a product with the adjacency is faster than moving the field


def neighbours(x: Float[Tensor, "*b d"], sides: tuple[int, ...]) -> Float[Tensor, "*b d"]:
    """The sum of x over the 2 len(sides) neighbours of every site, row-major; on a side of 2 the
    other site counts twice."""
    if x.shape[-1] <= DENSE:
        return x @ _adjacency(sides, x.device, x.dtype)
    field = x.unflatten(-1, sides)
    axes = range(-len(sides), 0)
    moved = [field.roll(step, axis).flatten(-len(sides)) for axis in axes for step in (1, -1)]
    return sum(moved[1:], moved[0])


@lru_cache(maxsize=32)
def _adjacency(
    sides: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "d d"]:
    """Symmetric; entry (i, j) is the number of bonds between sites i and j."""
    with torch.inference_mode(False):  # or whoever records a graph later could not use it
        each = torch.eye(torch.Size(sides).numel(), dtype=torch.float64)
        field, axes = each.unflatten(-1, sides), range(-len(sides), 0)
        moved = [field.roll(step, axis) for axis in axes for step in (1, -1)]
        total = torch.stack(moved).sum(0).flatten(-len(sides))
        return total.to(device=device, dtype=dtype)
