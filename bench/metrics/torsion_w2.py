"""Exact optimal transport between the torsion angles of draws and of exact draws."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._pairs import both
from tiltbench.metrics._torsions import angles, wrapped
from tiltbench.metrics.w2 import MOST, transport
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _torsion_w2(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """sqrt of the least mean squared distance on the torus over couplings of the two sets.

    The distance of two conformations is sqrt(sum_k d_k^2), d_k in [0, pi] the shorter way round
    from one angle to the other.  Of alanine dipeptide the torus is that of (phi, psi).  Its error
    is not known from one pair of sets: nan; the floor's sd is the guide."""
    n = len(outcome.draws.x)
    if n > MOST:
        raise Unknown(f"exact transport of {n} draws takes too long; draw {MOST} or fewer")
    x, y = both(truth, outcome, generator)
    return Estimate(transport(squared(angles(target, x), angles(target, y))), math.nan, n)


def squared(a: Float[Tensor, "n k"], b: Float[Tensor, "m k"]) -> Float[Tensor, "n m"]:
    """Squared distances on the torus."""
    total = a.new_zeros(len(a), len(b))
    for one, other in zip(a.T, b.T, strict=True):
        total += wrapped(one[:, None] - other).square_()
    return total


torsion_w2 = Metric(
    "torsion_w2", frozenset({"sample", "torsions"}), "lower", "rad", "floor", _torsion_w2
)
"""2-Wasserstein distance on the torus between torsion angles of draws and of exact draws"""
