"""Exact optimal transport to exact draws."""

from __future__ import annotations

import math
import warnings

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._pairs import against
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth

MOST = 5000  # points a side: 10 seconds; the cost grows like the cube


def _w2(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """sqrt of the least mean squared distance over couplings of the two sets.

    Its error is not known from one pair of sets: nan; the floor's sd is the guide."""
    n = len(outcome.draws.x)
    if n > MOST:
        raise Unknown(f"exact transport of {n} draws takes too long; draw {MOST} or fewer")
    x, y = against(target, truth, outcome, generator)
    return Estimate(transport(torch.cdist(x, y).square()), math.nan, n)


def transport(cost: Float[Tensor, "n m"]) -> float:
    """sqrt of the least mean of the squared distances `cost` over couplings of equal weights."""
    import ot  # 2 seconds

    with warnings.catch_warnings():
        # at its iteration limit POT returns a wrong value and only warns
        warnings.simplefilter("error", UserWarning)
        squared = float(ot.emd2([], [], cost.numpy(), numItermax=10_000_000))
    return math.sqrt(max(squared, 0.0))


w2 = Metric("w2", frozenset({"sample"}), "lower", "length", "floor", _w2)
"""2-Wasserstein distance between equal numbers of draws and exact draws, by exact transport"""
