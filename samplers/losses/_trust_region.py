"""The target within reach of a batch (trust regions for measures, arXiv 2508.12511).

For each batch of paths of a control v the next target is the tempered law

    dP' / dP^v proportional to (dP* / dP^v)^beta,

beta <= 1 the largest with KL(P' | P^v) <= radius: the KL of the self-normalised weights of the
batch, which grows with beta; its root by bisection.  beta rises to 1 as v nears the optimum.  Paths
of another law than P^v are weighed to it first.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.samplers.weights import largest

RADIUS = 0.1  # nats a batch


def exponent(
    log_w: Float[Tensor, " n"], radius: float, log_q: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """The largest beta in [0, 1] with divergence(beta log_w, log_q) <= radius."""
    return largest(lambda betas: divergence(betas * log_w, log_q) <= radius, 1.0, log_w)


def divergence(
    log_w: Float[Tensor, "*b n"], log_q: Float[Tensor, " n"] | None = None
) -> Float[Tensor, " *b"]:
    """KL(p | q) of p proportional to q exp log_w, nats; q of unnormalised logarithms, or even."""
    log_q = torch.log_softmax(torch.zeros_like(log_w) if log_q is None else log_q, -1)
    p = torch.softmax(log_w + log_q, -1)
    return -(torch.special.entr(p) + p * log_q).sum(-1)
