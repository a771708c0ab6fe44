"""log Z from log-weights, one side or both, each with a standard error (math.md 5.4).

Forward weights are those of the sampler's own paths, E[exp log_w] = Z; reverse weights those of
reverse paths, from exact draws of the target, E[exp -log_w] = 1/Z.  All in float64 and nats.
Standard errors delete one independent group at a time (one path, where `group` is None): the
jackknife needs no randomness, is the textbook error for a mean, and grows without bound where one
group carries all the weight, which a linearised error bar does not.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import brentq
from scipy.special import log_expit, logsumexp
from torch import Tensor

from tiltbench.samplers import weights
from tiltbench.samplers.weights import Estimate, log_mean_exp

Group = Int[Tensor, " n"] | None


def average(values: Float[Tensor, " n"], group: Group = None) -> Estimate:
    """The mean, with the error of a mean of independent groups: sqrt(G/(G-1) sum_g S_g^2) / n,
    S_g the sum of deviations in group g.  One group: the error is unknown, nan."""
    values = values.double()
    index, groups = _index(values, group)
    if len(values) == 0:
        return Estimate(math.nan, math.nan, 0)
    mean = values.mean()
    if groups < 2 or not bool(mean.isfinite()):
        return Estimate(float(mean), math.nan, groups)
    sums = values.new_zeros(groups).index_add(0, index, values - mean)
    se = math.sqrt(groups / (groups - 1) * float(sums.square().sum())) / len(values)
    return Estimate(float(mean), se, groups)


def elbo(log_w: Float[Tensor, " n"], group: Group = None) -> Estimate:
    """E_forward[log_w] <= log Z.  -inf where a weight is zero."""
    return average(log_w, group)


def eubo(log_w_reverse: Float[Tensor, " n"]) -> Estimate:
    """E_reverse[log_w] >= log Z."""
    return average(log_w_reverse)


def jarzynski(log_w: Float[Tensor, " n"], group: Group = None) -> Estimate:
    """log of the mean of exp(log_w): exp of it is unbiased for Z.

    -inf where every weight is zero; the error is inf where one group has all the weight."""
    log_w = log_w.double()
    index, groups = _index(log_w, group)
    if len(log_w) == 0:
        return Estimate(math.nan, math.nan, 0)
    value = log_mean_exp(log_w)
    if groups < 2 or value == -math.inf:
        return Estimate(value, math.nan, groups)
    without = _all_but_one(log_w, index, groups) - _left(index, groups).log()
    return Estimate(value, jackknife(value, without), groups)


def reverse(log_w_reverse: Float[Tensor, " n"]) -> Estimate:
    """-log of the mean of exp(-log_w): exp of minus it is unbiased for 1/Z.

    -inf where a target draw has weight zero, i.e. where the model cannot go."""
    value, se, n = jarzynski(-log_w_reverse)
    return Estimate(-value, se if math.isfinite(value) else math.nan, n)


def ess_model(log_w: Float[Tensor, " n"], group: Group = None) -> Estimate:
    """(sum w)^2 / (n sum w^2) over forward paths, in [1/n, 1]: blind to what is never visited."""
    log_w = log_w.double()
    index, groups = _index(log_w, group)
    if len(log_w) == 0:
        return Estimate(math.nan, math.nan, 0)
    value = weights.ess(log_w)
    if groups < 2 or value == 0.0:
        return Estimate(value, math.nan, groups)
    first = _all_but_one(log_w, index, groups)
    second = _all_but_one(2 * log_w, index, groups)
    left = torch.where(first > -torch.inf, 2 * first - second, -torch.inf)
    return Estimate(value, jackknife(value, left.exp() / _left(index, groups)), groups)


def ess_target(log_w_reverse: Float[Tensor, " n"]) -> Estimate:
    """1 / (E_reverse[w] E_reverse[1/w]) over paths from exact draws, in [0, 1]: sees lost modes."""
    log_w = log_w_reverse.double()
    n = len(log_w)
    if n == 0:
        return Estimate(math.nan, math.nan, 0)
    if not bool((log_w > -torch.inf).all()):
        nan = bool(log_w.isnan().any())
        return Estimate(math.nan if nan else 0.0, math.nan, n)
    value = math.exp(-log_mean_exp(log_w) - log_mean_exp(-log_w))
    if n < 2:
        return Estimate(value, math.nan, n)
    index, _ = _index(log_w, None)
    both = _all_but_one(log_w, index, n) + _all_but_one(-log_w, index, n)
    return Estimate(value, jackknife(value, (2 * math.log(n - 1) - both).exp()), n)


def bar(log_w_forward: Float[Tensor, " n"], log_w_reverse: Float[Tensor, " m"]) -> Estimate:
    """log Z by Bennett (J. Comput. Phys. 22, 245, 1976): with f(y) = 1/(1 + e^y), M = log(n/m), the
    root c of  sum_forward f(c + M - A) = sum_reverse f(A - c - M).

    Variance 1/I - 1/n - 1/m with I = sum f (1 - f) over both sides, the information in the overlap:
    equal to Bennett's where the sides overlap, and without bound where they do not, when two points
    set the root.  Infinite work has Fermi weight 0; -inf +- inf where no weights can match.
    Assumes independent paths.  Warns (NoOverlap) where `overlap` is below MEETING.
    """
    estimate, information = _bennett(log_w_forward, log_w_reverse)
    n, m = len(log_w_forward), len(log_w_reverse)
    if information * (1 / n + 1 / m if n and m else 0) < MEETING:
        warnings.warn(
            f"the two sides of the Bennett estimate {estimate.value:.4g} hardly meet: its error "
            f"bar is {estimate.se:.3g}; train longer, or trust neither side",
            NoOverlap,
            stacklevel=2,
        )
    return estimate


def overlap(log_w_forward: Float[Tensor, " n"], log_w_reverse: Float[Tensor, " m"]) -> Estimate:
    """I (1/n + 1/m) in [0, 1], I the information of `bar`: 1 where both sides have one law of
    log_w, 0 where they do not meet.  bar's variance is (1/n + 1/m) (1/overlap - 1).  The second
    eigenvalue of MBAR's overlap matrix is 1 minus it (Klimovich et al., J. Comput.-Aided Mol. Des.
    29, 397, 2015)."""
    n, m = len(log_w_forward), len(log_w_reverse)
    if n == 0 or m == 0:
        return Estimate(math.nan, math.nan, n + m)
    _, information = _bennett(log_w_forward, log_w_reverse)
    return Estimate(information * (1 / n + 1 / m), math.nan, n + m)


def k_hat(log_w: Float[Tensor, " n"], group: Group = None) -> float:
    """The shape of the generalised Pareto tail of exp(log_w), by the fit of Pareto-smoothed
    importance sampling to the largest 3 sqrt(n) of n, n / 5 of few (Vehtari, Simpson, Gelman, Yao
    and Gabry, JMLR 25, 72, 2024; arviz-stats): moments of order 1/k and above are infinite.

    The weight of a group is the sum of its own.  inf where the tail spans more than float64 does;
    NaN where there are fewer than 25 weights or those of the tail are all alike."""
    index, groups = _index(log_w, group)
    log_w = log_w.double()
    if groups < len(log_w):
        most = log_w.new_full((groups,), -torch.inf).scatter_reduce(0, index, log_w, "amax")
        top = torch.where(most.isinf(), 0.0, most)
        log_w = top + most.new_zeros(groups).index_add(0, index, (log_w - top[index]).exp()).log()
    values = log_w.cpu().numpy()
    few = len(values) // 5 if len(values) <= 225 else int(3 * math.sqrt(len(values)))
    if few < 5 or np.isnan(values).any() or values.max() == -math.inf:
        return math.nan
    if values.max() == math.inf:
        return math.inf
    values = np.maximum(values - values.max(), -np.finfo(float).max)
    tail = np.sort(values)[-few - 1 :]
    if tail[-1] - tail[1] < np.finfo(float).tiny:
        return math.nan
    above = np.exp(tail[1:]) - np.exp(tail[0])
    if not above[int(few / 4 + 0.5) - 1] > 1e-300:  # the fit divides by the quartile
        return math.inf
    from arviz_stats.base import array_stats

    with np.errstate(all="ignore"):
        return float(array_stats.psislw(-values)[1])  # it takes log 1/w


def unseen(log_w: Float[Tensor, " n"], other: Float[Tensor, " m"]) -> Estimate:
    """What the mean of w = exp(log_w) lacks for weights above the largest one seen, as a share.

    `other` are log-weights of the same form along m paths of the law that w leads to, under which
    the mean of 1 - Z/w where w > a, and 0 elsewhere, is E[w - Z; w > a] / Z of the first law: that
    is averaged, a the largest of w and Z their mean.  Lost modes show here, and not in the tail
    that was seen."""
    m = len(other)
    if len(log_w) == 0 or m == 0:
        return Estimate(math.nan, math.nan, m)
    log_w, other = log_w.double(), other.double()
    if bool(log_w.isnan().any() or other.isnan().any()):
        return Estimate(math.nan, math.nan, m)
    if log_w.max() == -torch.inf:
        return Estimate(1.0, math.nan, m)
    lacking = -torch.expm1(log_mean_exp(log_w) - other)
    return average(torch.where(other > log_w.max(), lacking, 0.0))


def steepest(n: int) -> float:
    """The largest k_hat at which n weights tell the error of their mean: min(1 - 1/log10 n, .7)
    (Vehtari et al., 2024)."""
    return min(1 - 1 / math.log10(n), 0.7) if n > 10 else 0.0


class NoOverlap(UserWarning):
    """Forward and reverse weights hardly meet: an estimate from both sides rests on a few paths."""


MEETING = 0.03  # overlap below which two sides hardly meet (Klimovich et al., 2015)


def _bennett(log_w_forward: Tensor, log_w_reverse: Tensor) -> tuple[Estimate, float]:
    """Bennett's estimate and the information I in the overlap."""
    forward = log_w_forward.double().cpu().numpy()
    backward = log_w_reverse.double().cpu().numpy()
    n, m = len(forward), len(backward)
    if n == 0 or m == 0 or np.isnan(forward).any() or np.isnan(backward).any():
        return Estimate(math.nan, math.nan, n + m), math.nan
    if np.isfinite(forward).sum() <= np.isneginf(backward).sum():
        return Estimate(-math.inf, math.inf, n + m), 0.0
    shift = math.log(n / m)

    def excess(c: float) -> float:  # decreasing in c; logarithms, because the sums underflow
        left = logsumexp(log_expit(forward - c - shift))
        return float(left - logsumexp(log_expit(c + shift - backward)))

    both = np.concatenate([forward, backward])
    low, high = both[np.isfinite(both)].min() - 1, both[np.isfinite(both)].max() + 1
    width = high - low
    while excess(low) < 0:
        low, width = low - width, 2 * width
    while excess(high) > 0:
        high, width = high + width, 2 * width
    c = float(brentq(excess, low, high, xtol=1e-13, rtol=4 * np.finfo(float).eps, maxiter=500))
    y = both - c - shift
    information = float(np.exp(log_expit(y) + log_expit(-y)).sum())
    if information == 0:
        return Estimate(c, math.inf, n + m), 0.0
    variance = max(1 / information - 1 / n - 1 / m, 0.0)
    return Estimate(c, math.sqrt(variance), n + m), information


def jackknife(value: float, without: Float[Tensor, " g"]) -> float:
    """sqrt((G-1)/G sum_g (theta_without_g - theta)^2), for groups of any size."""
    groups = len(without)
    if bool(without.isinf().any()):
        return math.inf
    return math.sqrt((groups - 1) / groups * float((without - value).square().sum()))


def _index(values: Tensor, group: Group) -> tuple[Tensor, int]:
    """(n,) numbers 0..G-1 of the groups, and G."""
    if group is None:
        return torch.arange(len(values), device=values.device), len(values)
    labels, index = torch.unique(group, return_inverse=True)
    return index, len(labels)


def _left(index: Tensor, groups: int) -> Tensor:
    return len(index) - torch.bincount(index, minlength=groups).double()


def _all_but_one(log_w: Tensor, index: Tensor, groups: int) -> Tensor:
    """(G,) log of the sum of exp(log_w) over all groups but one."""
    top = log_w.max()
    if top == -torch.inf:
        return log_w.new_full((groups,), -torch.inf)
    share = log_w.new_zeros(groups).index_add(0, index, (log_w - top).exp())
    rest = (share.sum() - share).clamp_min(0).log() + top
    largest = int(share.argmax())  # its rest is a small difference of large numbers: sum it anew
    rest[largest] = torch.logsumexp(log_w[index != largest], 0)
    return rest
