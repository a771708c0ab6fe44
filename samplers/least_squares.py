"""Least squares that need no full rank, alike on a CPU and on a GPU."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

RANK = 1e-10  # singular values below this part of the largest are taken for rounding of zero


def least_squares(a: Float[Tensor, "m n"], b: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
    """The shortest of all x with |a x - b|^2 at its least, in float64, by singular values.

    `torch.linalg.lstsq` has one driver on a GPU, QR without pivots, which is wrong where columns
    depend on each other; and the last digits of its standard driver on a CPU change from call to
    call."""
    inverse: Tensor = torch.linalg.pinv(a.double(), rtol=RANK)
    return inverse @ b.double()
