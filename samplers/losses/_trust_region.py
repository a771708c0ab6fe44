"""The target within reach of a batch (trust regions for measures, arXiv 2508.12511).

For each batch of paths of a control v the next target is the tempered law

    dP' / dP^v proportional to (dP* / dP^v)^beta,

beta <= 1 the largest with KL(P' | P^v) <= radius: the KL of the self-normalised weights of the
batch, which grows with beta; its root by bisection.  beta rises to 1 as v nears the optimum.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.samplers.weights import largest

RADIUS = 0.1  # nats a batch


def exponent(log_w: Float[Tensor, " n"], radius: float) -> Float[Tensor, ""]:
    """The largest beta in [0, 1] with divergence(beta log_w) <= radius."""
    return largest(lambda betas: divergence(betas * log_w) <= radius, 1.0, log_w)


def divergence(log_w: Float[Tensor, "*b n"]) -> Float[Tensor, " *b"]:
    """KL of the self-normalised weights from equal ones, nats: 0 to log n."""
    entropy = torch.special.entr(torch.softmax(log_w, -1)).sum(-1)
    return math.log(log_w.shape[-1]) - entropy
