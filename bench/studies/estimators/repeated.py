"""The same estimate many times over, from blocks of one large pool: is its error bar honest?"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from torch import Tensor

from tiltbench.estimators import NoOverlap, bar, jarzynski, reverse
from tiltbench.samplers.weights import Estimate


class Direction(NamedTuple):
    """How an estimate splits its calls between the two sides, and what it makes of the weights."""

    shares: tuple[float, float]  # forward, reverse
    estimate: Callable[[Tensor, Tensor], Estimate]

    def paths(self, calls: int, prices: tuple[int, int]) -> tuple[int, int]:
        """Paths forward and reverse that `calls` pay for, at so many calls a path."""
        forward, backward = (
            int(share * calls // price) for share, price in zip(self.shares, prices, strict=True)
        )
        return forward, backward


def _bennett(forward: Tensor, backward: Tensor) -> Estimate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoOverlap)
        return bar(forward, backward)


DIRECTIONS = {
    "forward": Direction((1.0, 0.0), lambda forward, backward: jarzynski(forward)),
    "reverse": Direction((0.0, 1.0), lambda forward, backward: reverse(backward)),
    "Bennett": Direction((0.5, 0.5), _bennett),
}


class Repeated(NamedTuple):
    """R independent estimates and the errors they report."""

    value: ndarray  # (R,)
    se: ndarray  # (R,)


def repeat(
    direction: Direction, forward: Tensor, backward: Tensor, counts: tuple[int, int]
) -> Repeated:
    """The estimate from the first `counts` paths of every row of two pools (R, n)."""
    n, m = counts
    rows = zip(forward[:, :n], backward[:, :m], strict=True)
    estimates = [direction.estimate(f, b) for f, b in rows]
    return Repeated(np.array([e.value for e in estimates]), np.array([e.se for e in estimates]))


def bias(repeated: Repeated, aim: float) -> Estimate:
    n = len(repeated.value)
    return Estimate(
        float(repeated.value.mean()) - aim, float(repeated.value.std(ddof=1)) / n**0.5, n
    )


def sd(repeated: Repeated) -> Estimate:
    """With the delta method's error, which knows heavy tails: sd(v^2) / (2 sd sqrt R)."""
    return _root(np.square(repeated.value - repeated.value.mean()))


def rmse(repeated: Repeated, aim: float) -> Estimate:
    return _root(np.square(repeated.value - aim))


def _root(squares: ndarray) -> Estimate:
    n, root = len(squares), math.sqrt(squares.mean())
    return Estimate(root, float(squares.std(ddof=1)) / n**0.5 / (2 * root), n)


def coverage(repeated: Repeated, aim: float) -> Estimate:
    """Part of the intervals value +- 1.96 se that hold the aim.  The error is that of (k + 2) in
    (R + 4), which does not vanish where all or none do (Agresti and Coull, 1998).  An interval
    without an end holds nothing: it says nothing."""
    inside = np.abs(repeated.value - aim) <= 1.96 * repeated.se
    held, n = int((inside & np.isfinite(repeated.se)).sum()), len(inside)
    middle = (held + 2) / (n + 4)
    return Estimate(held / n, math.sqrt(middle * (1 - middle) / (n + 4)), n)


def jensen(value: ndarray, sign: int) -> Estimate:
    """E v - sign log E exp(sign v): the bias of a logarithm of a mean, forward (sign 1, negative)
    or reverse (-1, positive), whatever the chain's own offset is.

    To first order -sign Var(w) / (2 n E[w]^2).  v less what is linear in exp(sign v) has the same
    mean and next to no noise where n is large: that is what the error is taken from."""
    top = sign * value
    centre = float(np.logaddexp.reduce(top)) - math.log(len(top))
    gap = (top - centre) - (np.exp(top - centre) - 1)
    return Estimate(sign * float(gap.mean()), float(gap.std(ddof=1)) / len(gap) ** 0.5, len(gap))


def order(x: ndarray, values: list[Estimate]) -> Estimate:
    """Slope of log |value| against log x, by least squares weighted with the errors."""
    size = np.array([abs(e.value) for e in values])
    errors = np.array([e.se for e in values]) / size
    design = np.stack([np.log(x), np.ones(len(x))], 1) / errors[:, None]
    covariance = np.linalg.inv(design.T @ design)
    slope = covariance @ design.T @ (np.log(size) / errors)
    return Estimate(float(slope[0]), math.sqrt(float(covariance[0, 0])), len(x))
