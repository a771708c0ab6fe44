"""Transport between the interatomic distances of draws and of exact draws."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metric import Metric, Outcome
from tiltbench.metrics._given import given
from tiltbench.metrics._line import w2
from tiltbench.metrics._pairs import both
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _distance_w2(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """sqrt of the least mean squared difference of distances over couplings, all pairs of particles
    of all configurations pooled: which distances belong to one configuration is not seen.

    Its error is not known from one pair of sets: nan; the floor's sd is the guide."""
    x, y = both(truth, outcome, generator)
    _, space = given(target.particles)
    return Estimate(w2(distances(x, space), distances(y, space)), math.nan, len(x))


def distances(x: Float[Tensor, "n D"], space: int) -> Float[Tensor, " pairs"]:
    """|x_i - x_j|, i < j, of every configuration of particles in `space` dimensions."""
    each = x.unflatten(-1, (-1, space))
    i, j = torch.triu_indices(each.shape[1], each.shape[1], 1)
    return (each[:, i] - each[:, j]).norm(dim=-1).flatten()


distance_w2 = Metric(
    "distance_w2", frozenset({"sample", "particles"}), "lower", "length", "floor", _distance_w2
)
"""2-Wasserstein distance between the interatomic distances of draws and of exact draws"""
