"""What draws of a lattice field say of its order and of its correlations."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metric import Metric, Outcome
from tiltbench.metrics._given import given
from tiltbench.metrics._line import w1
from tiltbench.metrics._pairs import both
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Target, Truth


def _magnetisation(
    target: Target, truth: Truth, outcome: Outcome, generator: Generator
) -> Estimate:
    """E|M - M'| / sqrt E M'^2 under the best coupling of the mean fields M of draws and M' of exact
    draws: 1 where one of two sharp phases +-m is lost.

    W1 and not W2, whose floor in two phases is sqrt of the chance excess of one of them: it falls
    like n^(-1/4).  The error is not known from one pair of sets: nan."""
    x, y = both(truth, outcome, generator)
    a, b = x.mean(-1), y.mean(-1)
    return Estimate(w1(a, b) / float(b.square().mean().sqrt()), math.nan, len(x))


def _two_point(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    """sqrt of the mean over all separations r of (G(r) - G'(r))^2, over G'(0).

    G(r) = mean over sites and draws of x_s x_{s+r}, not connected, and G' that of exact draws.  A
    change of sign does not change it: it is blind to a lost phase, which magnetisation_err sees.
    The error is not known from one pair of sets: nan."""
    x, y = both(truth, outcome, generator)
    sides = given(target.lattice)
    sampled, exact = two_point(x, sides), two_point(y, sides)
    error = (sampled - exact).square().mean().sqrt() / exact.flatten()[0]
    return Estimate(float(error), math.nan, len(x))


def two_point(x: Float[Tensor, "n D"], sides: tuple[int, ...]) -> Tensor:
    """(*sides): the mean over draws and sites of x_s x_{s+r} at every separation r, by FFT."""
    axes = tuple(range(1, len(sides) + 1))
    power = torch.fft.fftn(x.reshape(-1, *sides), dim=axes).abs().square().mean(0)
    return torch.fft.ifftn(power).real / x.shape[-1]


_NEEDS = frozenset({"sample", "lattice"})

magnetisation_err = Metric("magnetisation_err", _NEEDS, "lower", "1", "floor", _magnetisation)
"""1-Wasserstein distance of the mean field to that of exact draws, over its rms"""

two_point_err = Metric("two_point_err", _NEEDS, "lower", "1", "floor", _two_point)
"""rms error of the two-point function over all separations, over its value at zero"""
