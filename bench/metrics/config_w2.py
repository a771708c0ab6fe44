"""Exact optimal transport between configurations of particles, whatever their names and pose."""

from __future__ import annotations

import math

import torch
from torch import Generator

from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._congruence import aligner
from tiltbench.metrics._given import given
from tiltbench.metrics._pairs import both
from tiltbench.metrics.w2 import transport
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth, centred


def _config_w2(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """sqrt of the least mean of |x - g y|^2 over couplings and, for each pair by itself, over
    permutations of like particles, rotations, reflections unless the law tells mirror images apart,
    and translations g.

    At most five particles in the plane: exact.  At most twenty in space: from 100 draws a side,
    spread evenly over those there are (n says how many), and with an upper bound of the least over
    g (`_congruence.in_space`); atoms that differ from 200 draws a side (`_congruence.in_order`).
    Floors carry the same bias.  Larger systems are unknown.  Its error is not known from one pair
    of sets: nan; the floor's sd is the guide."""
    k, space = given(target.particles)
    alignment = aligner(target)
    if alignment is None:
        raise Unknown(
            f"aligning {k} particles in {space} dimensions takes too long: too many permutations"
        )
    squared, most = alignment
    x, y = both(truth, outcome, generator)
    n = min(len(x), most)
    x = x[torch.linspace(0, len(x) - 1, n).round().long()]
    x, y = (centred(z, space).unflatten(-1, (k, space)) for z in (x, y[:n]))
    return Estimate(transport(squared(x, y)), math.nan, n)


config_w2 = Metric(
    "config_w2", frozenset({"sample", "particles"}), "lower", "length", "floor", _config_w2
)
"""2-Wasserstein distance between configurations, least over permutations and rigid motions"""
