"""What siblings say of a base and a reward: how much the end remembers of X_0, and what it costs.

Of m siblings from each of n starts, w = exp r at their ends.  The optimum draws X_0 from the base
and X_1 given it by w normalised for each X_0 apart; the tilt weighs each X_0 by Z(X_0) =
E[w | X_0] besides.  Where Z(X_0) is the same for all X_0 the two are one law.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.estimators import jackknife
from tiltbench.samplers.least_squares import least_squares
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.memoryless.noise import Siblings

FEW = 5  # siblings


class Memory(NamedTuple):
    """corr(X_0, X_1): the roots of the shares of tr Var X_1."""

    linear: float  # that a linear regression on X_0 explains
    any: float  # that E[X_1 | X_0] explains; nan of only children


def memory(family: Siblings) -> Memory:
    """The shares less what chance explains of means over so many siblings and starts."""
    start, ends = family.start.double(), family.ends.double()
    each, n, dim = ends.shape
    total = float(ends.flatten(0, 1).var(0).sum())
    means = ends.mean(0) - ends.mean((0, 1))
    inputs = start - start.mean(0)
    left = means - inputs @ least_squares(inputs, means)
    spread = float(means.square().sum()) / (n - 1)
    unexplained = float(left.square().sum()) / (n - 1 - start.shape[-1])
    within = float(ends.var(0).mean(0).sum()) / each if each > 1 else math.nan
    return Memory(_root((spread - unexplained) / total), _root((spread - within) / total))


def coupling(r: Float[Tensor, "each starts"]) -> Estimate:
    """Var Z(X_0) / Z^2, by products of two siblings' weights: 0 where the optimum ends in the tilt.

    It is the chi-square divergence between the tilt's X_0 and the base's, and so bounds that of the
    optimum's end from the tilt.  The error leaves out one start at a time."""
    w = (r.double() - r.max()).exp()
    m, n = w.shape
    z = w.mean(0)
    pairs = (w.sum(0).square() - w.square().sum(0)) / (m * (m - 1))

    def ratio(pair: Tensor, one: Tensor) -> Tensor:
        return pair / one.square() - 1

    value = ratio(pairs.mean(), z.mean())
    without = ratio((pairs.sum() - pairs) / (n - 1), (z.sum() - z) / (n - 1))
    return Estimate(float(value), jackknife(float(value), without), n)


def starved(r: Float[Tensor, "each starts"]) -> float:
    """The share of starts whose siblings' weights have an ess below FEW: from these a draw by
    exp r is far from one of the optimum, which would go where no sibling went."""
    ess = (2 * r.double().logsumexp(0) - (2 * r.double()).logsumexp(0)).exp()
    return float((ess < FEW).double().mean())


class Shares(NamedTuple):
    """Of each class, at the optimum and in the tilt, and their difference."""

    optimum: Float[Tensor, " classes"]
    tilt: Float[Tensor, " classes"]
    se: Float[Tensor, " classes"]  # of the difference, over starts

    @property
    def z(self) -> Tensor:
        return (self.optimum - self.tilt) / self.se


def shares(r: Float[Tensor, "each starts"], of: Float[Tensor, "each starts classes"]) -> Shares:
    """By all weights, nothing drawn; `of` holds ones and zeros.  The ratio of sums over siblings is
    jackknifed over these, which takes its bias from O(1 / each) to O(1 / each^2)."""
    w = (r.double() - r.max()).exp()[..., None]
    m, z, hit = len(w), w.sum(0), w * of
    hits = hit.sum(0)
    without = ((hits - hit) / (z - w)).mean(0)
    best, tilt = m * hits / z - (m - 1) * without, hits.sum(0) / z.sum()
    bend = (hits - tilt * z) / z.mean()  # the first-order change of `tilt` by each start
    se = (best - bend).std(0) / math.sqrt(len(best))
    return Shares(best.mean(0), tilt, se)


def tilted(family: Siblings, r: Float[Tensor, "each starts"], n: int, source: Generator) -> Tensor:
    """n independent draws of the ends, weighed by exp r over all X_0 at once."""
    p = torch.softmax(r.double().flatten(), 0)
    rows = torch.multinomial(p, n, replacement=True, generator=source)
    return family.ends.flatten(0, 1)[rows]


def _root(share: float) -> float:
    return math.sqrt(max(share, 0.0)) if share == share else math.nan
