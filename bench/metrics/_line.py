"""Transport on the line: sorted points are matched in order."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor


def w1(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """E|A - B| under the best coupling: the area between the two distribution functions."""
    return float((a.sort().values - b.sort().values).abs().mean())


def w2(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """sqrt E (A - B)^2 under the best coupling."""
    return math.sqrt(float((a.sort().values - b.sort().values).square().mean()))
