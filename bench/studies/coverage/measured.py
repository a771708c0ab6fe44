"""Weights of many repetitions of a measurement, and how often its intervals hold log Z."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from arviz_stats.base import array_stats
from numpy import ndarray
from torch import Generator, Tensor

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome
from tiltbench.metrics.log_Z import log_Z_bar_err, log_Z_err, log_Z_rev_err
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth

SURE = 1.96


class Weights(NamedTuple):
    """log-weights of R repetitions of n paths of each side."""

    forward: Tensor  # (R, n)
    reverse: Tensor  # (R, n)


@dataclass(frozen=True, eq=False)
class MeasuredControl:
    """One control, measured R times, by the weights in use before and by those of now."""

    target: str
    control: str
    on_chain: bool  # whether the chain of K steps is another law than the base's
    built: Target
    truth: Truth
    before: Weights
    after: Weights

    @cached_property
    def estimates(self) -> dict[str, RepeatedEstimate]:
        return {side: repeated_estimate(self, *how) for side, how in SIDES.items()}


class RepeatedEstimate(NamedTuple):
    """R repetitions of one estimate: errors of log Z and the standard errors stated, NaN where none
    is, before and now; the shapes of the tails and what is not seen, of one-sided ones."""

    before: ndarray  # (R, 2)
    after: ndarray  # (R, 2)
    bare: ndarray  # (R, 2): now, but with an error in every repetition
    smooth: ndarray  # (R, 2): the same from Pareto-smoothed weights
    k: ndarray  # (R,)
    unseen: ndarray  # (R,)

    @property
    def stated(self) -> ndarray:
        """(R,) where an error is stated."""
        return ~np.isnan(self.after[:, 1])


def _bennett(forward: Tensor, reverse: Tensor) -> Estimate:
    with warnings.catch_warnings():  # that the sides hardly meet is part of what is measured
        warnings.simplefilter("ignore", estimators.NoOverlap)
        return estimators.bar(forward, reverse)


Old = Callable[[Tensor, Tensor], Estimate]
SIDES: dict[str, tuple[Old, Metric, int]] = {
    "forward": (lambda forward, reverse: estimators.jarzynski(forward), log_Z_err, 1),
    "reverse": (lambda forward, reverse: estimators.reverse(reverse), log_Z_rev_err, -1),
    "Bennett": (_bennett, log_Z_bar_err, 0),
}


def repeated_estimate(
    control: MeasuredControl, old: Old, metric: Metric, sign: int
) -> RepeatedEstimate:
    """`sign`: that of log_w in the mean of a one-sided estimate; 0 of a two-sided one."""
    aim, wide = control.truth.log_Z, control.truth.log_Z_se
    assert aim is not None
    rows: list[list[tuple[float, float]]] = [[], [], [], []]
    tails = []

    def put(column: int, e: Estimate) -> None:
        rows[column].append((e.value - aim, math.hypot(e.se, wide)))

    for first, second in zip(*control.before, strict=True):
        put(0, old(first, second))
    for first, second in zip(*control.after, strict=True):
        outcome = Outcome(Draws(first[:, None], first), second, {})
        value, se, _ = metric.fn(control.built, control.truth, outcome, Generator())
        rows[1].append((value, se))
        put(2, old(first, second))
        if sign:
            log_w, other = (first, second) if sign > 0 else (-second, -first)
            tails.append((estimators.k_hat(log_w), estimators.unseen(log_w, other).value))
            value, se, n = smoothed(log_w)
            put(3, Estimate(sign * value, se, n))
        else:
            tails.append((math.nan, math.nan))
            rows[3].append((math.nan, math.nan))
    k, unseen = np.array(tails).T
    before, after, bare, smooth = (np.array(column) for column in rows)
    return RepeatedEstimate(before, after, bare, smooth, k, unseen)


def smoothed(log_w: Tensor) -> Estimate:
    """log of the mean of Pareto-smoothed weights (JMLR 25, 72, 2024), with the error of a mean."""
    values = log_w.double().numpy()
    n, top = len(values), values.max()
    order, few = np.argsort(values), int(3 * math.sqrt(n))
    try:
        with np.errstate(all="ignore"):
            smooth, _ = array_stats.psislw(top - values)
    except ValueError:  # the tail is all alike
        return estimators.jarzynski(log_w)
    body = order[:-few]  # which is left as it was, up to a constant
    log_v = smooth + np.logaddexp.reduce(values[body] - top) - np.logaddexp.reduce(smooth[body])
    v = np.exp(log_v)
    return Estimate(float(np.log(v.mean())) + top, float(v.std(ddof=1) / v.mean() / n**0.5), n)


def covered(errors: ndarray, among: ndarray | None = None) -> Estimate:
    """The share of intervals, value +- 1.96 se, that hold the truth, of those with an end; the
    error is Agresti and Coull's."""
    stated = np.isfinite(errors[:, 1]) if among is None else among
    count = int(stated.sum())
    if not count:
        return Estimate(math.nan, math.nan, 0)
    held = int((np.abs(errors[:, 0]) <= SURE * errors[:, 1])[stated].sum())
    middle = (held + 2) / (count + 4)
    return Estimate(held / count, math.sqrt(middle * (1 - middle) / (count + 4)), count)
