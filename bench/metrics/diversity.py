"""How different draws are from each other, in the features that the tilt states."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.estimators import Group, average
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._given import tilt
from tiltbench.metrics._pairs import both, within
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth

MOST = 2000  # draws compared: the cost grows like their square


def _diversity(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    x, group = outcome.draws.x.double().cpu(), outcome.draws.group
    if len(x) < 2:
        raise Unknown(f"{len(x)} draw(s): at least two are needed")
    return spread(target, x[:MOST], None if group is None else group[:MOST])


def _error(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    x, y = both(truth, outcome, generator)
    mine, exact = spread(target, x, outcome.draws.group), spread(target, y, None)
    return Estimate(abs(mine.value - exact.value), math.hypot(mine.se, exact.se), mine.n)


def spread(target: Target, x: Float[Tensor, "n d"], group: Group) -> Estimate:
    """E |f(X) - f(X')| over pairs of different draws, f the tilt's features; the error is that of
    the first-order (Hajek) projection, by groups."""
    rows = within(lambda distance: distance, tilt(target).features(x))
    mean = average(2 * rows, group)
    return Estimate(float(rows.mean()), mean.se, mean.n)


diversity = Metric("diversity", frozenset({"tilt"}), "higher", "length", "", _diversity)
"""mean distance between the features of two draws: not ranked, for a tilt narrows its base"""

diversity_err = Metric(
    "diversity_err", frozenset({"sample", "tilt"}), "lower", "length", "floor", _error
)
"""|diversity of the draws - that of exact draws|; less diversity is collapse"""
