"""Logarithms of sums of exponentials whose terms may differ by hundreds of nats."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FAINT = -80.0  # nats below the largest term: e^-80 is nothing beside 1 in double precision either


def log_sum_exp(
    near: Float[Tensor, m * b],
) -> tuple[Float[Tensor, " *b"], Float[Tensor, m * b], Float[Tensor, " *b"]]:
    """(log sum_j exp near_j, e_j, sum_j e_j) with e_j / sum e_j the softmax; over the first
    dimension, which long batches want to be that of few terms.  -inf where all terms are.

    Terms fainter than FAINT count as e^FAINT: their exponentials would not be normal numbers, over
    which a CPU takes ten times as long and more.  Derivatives of all orders are right up to
    rounding."""
    top = near.detach().amax(0)
    e = (near - top.clamp(min=torch.finfo(near.dtype).min)).clamp(min=FAINT).exp()
    total = e.sum(0)
    return total.log() + top, e, total
