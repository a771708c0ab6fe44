"""Kernel Stein discrepancy: draws against a density, without any draw of it.

Liu, Lee and Jordan (ICML 2016), Chwialkowski, Strathmann and Gretton (ICML 2016); the inverse
multiquadric kernel of Gorham and Mackey (ICML 2017), which sees draws that run away to infinity."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.estimators import average
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Density, Target, Truth

MOST = 1000  # draws, evenly spread: as many gradients are taken
BLOCK = 2**20  # pairs held at once


def _discrepancy(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """E h(X, X') over pairs of draws of different groups, which is 0 under the target:

        h(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + div_x grad_y k,
        s = grad log rho,  k = (1 + |x - y|^2 / l^2)^(-1/2),

    l = scale sqrt(2 rank), the distance at which two draws of the target's rms coordinate lie: the
    median heuristic with one l for every sampler.  Times scale^2 it has no unit.

    Its error is the larger of two: that of the first-order projection by groups (of draws, where
    they have none), and that of exact draws, whose projection is 0: the root of twice the sum of
    H^2 over pairs of groups, H the sum of h between two groups, over the number of pairs of draws.
    The second is the floor: exact draws score 0 +- it.

    The gradients are taken in scoring, at most 1,000: no run's meter sees them."""
    assert isinstance(target, Density)
    x, group = outcome.draws.x.double(), outcome.draws.group
    chosen = torch.linspace(0, len(x) - 1, min(len(x), MOST)).round().long()
    x, group = x[chosen], None if group is None else group[chosen]
    index = torch.arange(len(x)) if group is None else group.unique(return_inverse=True)[1]
    groups = int(index.max()) + 1 if len(x) else 0
    if groups < 2:
        raise Unknown(f"{groups} independent draw(s) or chain(s): at least two are needed")
    x = target.project(x)
    score = target.log_rho_and_grad(x)[1]
    if not bool(score.isfinite().all()):
        raise Unknown("the gradient of log rho is not finite at every draw")
    sums, rows = _sums(x, score, index, target.scale * math.sqrt(2 * target.rank), target.rank)
    sizes = torch.bincount(index, minlength=groups).double()
    pairs = float(len(x) ** 2 - sizes.square().sum())
    between = sums - sums.diagonal().diag()
    value = float(between.sum()) / pairs
    # by draws: the mean of h over the draws of other groups
    each = rows / (len(x) - sizes[index])
    projected = 2 * average(each, index).se
    exact = math.sqrt(2 * float(between.square().sum())) / pairs
    unit = target.scale**2
    return Estimate(unit * value, unit * max(projected, exact), groups)


def _sums(
    x: Float[Tensor, "n d"],
    score: Float[Tensor, "n d"],
    index: Int[Tensor, " n"],
    length: float,
    rank: int,
) -> tuple[Float[Tensor, "g g"], Float[Tensor, " n"]]:
    """h summed over pairs of groups, and for each draw over the draws of other groups."""
    groups = int(index.max()) + 1
    sums = x.new_zeros(groups, groups)
    rows = x.new_zeros(len(x))
    for part in torch.arange(len(x)).split(max(BLOCK // len(x), 1)):
        h = stein(x[part], score[part], x, score, length, rank)
        sums.index_add_(0, index[part], h.new_zeros(len(part), groups).index_add_(1, index, h))
        rows[part] = (h * (index[part][:, None] != index)).sum(1)
    return sums, rows


def stein(
    x: Float[Tensor, "n d"],
    s: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    t: Float[Tensor, "m d"],
    length: float,
    rank: int,
) -> Float[Tensor, "n m"]:
    """h between points x and y with scores s and t on a subspace of `rank` dimensions.

    With k = q^(-1/2), q = 1 + r^2 / l^2 and r = x - y it is grad_x k = -r / l^2 q^(-3/2) and
    div_x grad_y k = rank / l^2 q^(-3/2) - 3 r^2 / l^4 q^(-5/2)."""
    square = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    q = 1 + square / length**2
    slope = q**-1.5 / length**2
    # (s - t).(x - y), in products of matrices
    across = (s * x).sum(-1)[:, None] - s @ y.T - x @ t.T + (t * y).sum(-1)
    curved = rank * slope - 3 * square / length**4 * q**-2.5
    return s @ t.T * q**-0.5 + across * slope + curved


ksd = Metric("ksd", frozenset({"density", "unknown_law"}), "lower", "1", "0", _discrepancy)
"""squared kernel Stein discrepancy, unbiased: 0 for exact draws, blind to modes never visited"""
