"""Gradients of a loss over mini-batches at fixed parameters, and their split into noise and signal.

With G_ab = g_a . g_b for M independent mini-batch gradients, both without bias (math.md 7 c),

    |E g|^2 = mean of G_ab over a != b,        tr Cov(g) = mean of G_aa - |E g|^2.

A bootstrap over batches draws some of them twice, and G_aa between two copies is E|g|^2, not
|E g|^2: here such pairs are left out, so that every draw is a split of the same kind; tr Cov is
drawn from the gradients about their mean.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.problem import Problem

RESAMPLES = 1_000
LEVEL = 0.95
PAIRED = 0.99  # for comparisons, of which there are many

Draws = NDArray[np.float64]


class Split(NamedTuple):
    """tr Cov(g) and |E g|^2, each unbiased, the latter possibly negative, with bootstrap draws."""

    noise: float
    signal: float
    noises: Draws  # (RESAMPLES,), fewer by draws of one batch alone
    signals: Draws
    worst: float  # the share of one batch, the noisiest, in sum |g - mean|^2; 1/M were all alike


class Interval(NamedTuple):
    """A ratio and its bootstrap interval; inf where the denominator does not differ
    significantly from zero."""

    value: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        return self.high < math.inf


def split(gram: Tensor, seed: int = 11) -> Split:
    """From the (M, M) Gram matrix of M >= 3 gradients.

    It is brought to the CPU, where the dice are: the same draws whatever made the gradients."""
    gram = gram.cpu()
    squares, m = gram.diagonal(), len(gram)
    signal = float((gram.sum() - squares.sum()) / (m * (m - 1)))
    dice = Generator().manual_seed(seed)
    picks = torch.randint(m, (RESAMPLES, m), generator=dice)
    count = torch.zeros(RESAMPLES, m, dtype=torch.float64)
    count.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))
    copies = count.square()
    mixed = copies.sum(1) < m * m  # a draw of one batch alone has no pair to go by
    count, copies = count[mixed], copies[mixed]
    pairs = m * m - copies.sum(1)
    signals = _apart(gram, count, copies) / pairs
    # about the mean of all batches: a shift leaves tr Cov as it is, and takes out of its draws what
    # a large |E g| adds to each of the two terms, and not alike
    level = gram.mean(1)
    away = gram - level[:, None] - level + level.mean()
    noises = count @ away.diagonal() / m - _apart(away, count, copies) / pairs
    worst = float(away.diagonal().max() / away.trace())
    return Split(float(squares.mean()) - signal, signal, noises.numpy(), signals.numpy(), worst)


def _apart(gram: Tensor, count: Tensor, copies: Tensor) -> Tensor:
    """The sum of the Gram matrix over pairs of different batches, by how often each was drawn."""
    return ((count @ gram) * count).sum(1) - copies @ gram.diagonal()


def relative(one: Split) -> Interval:
    """tr Cov / |E g|^2."""
    return _interval(_over(one.noise, one.signal), _ratios(one))


def against(one: Split, other: Split) -> Interval:
    """relative(one) / relative(other), at the level PAIRED.

    Both are resampled with the same dice: batch i of both begins with the same seed, so what they
    have in common is paired, and what they have not is independent all the same.  Unbounded above
    where the signal of `one` does not differ significantly from zero, by zero below where that of
    `other` does not."""
    a, b = _ratios(one), _ratios(other)
    value = _over(one.noise, one.signal) / _over(other.noise, other.signal)
    with np.errstate(invalid="ignore"):
        draws = a / b
    high = np.where(np.isnan(draws), np.inf, draws)
    low = np.where(np.isnan(draws), 0.0, draws)
    return Interval(value, _interval(value, low, PAIRED).low, _interval(value, high, PAIRED).high)


def quotient(one: Split, other: Split, scale: float = 1.0) -> Interval:
    """tr Cov of `one` over scale tr Cov of `other`, paired as in `against`."""
    value = one.noise / (scale * other.noise)
    return _interval(value, one.noises / (scale * other.noises), PAIRED)


def spread_of_log(one: Split) -> float:
    """The standard error of log tr Cov."""
    return float(np.std(np.log(one.noises[one.noises > 0])))


def spread_of_log_ratio(one: Split) -> float:
    """The standard error of log(tr Cov / |E g|^2), from the middle two thirds of the draws."""
    low, high = np.quantile(_ratios(one), [0.16, 0.84], method="nearest")
    return float(np.log(high / low) / 2) if 0 < low and high < math.inf else math.inf


def _over(noise: float, signal: float) -> float:
    return noise / signal if signal > 0 else math.inf


def _ratios(one: Split) -> Draws:
    positive = one.signals > 0
    safe = np.where(positive, one.signals, 1.0)
    return np.where(positive, one.noises / safe, np.inf)


def _interval(value: float, draws: Draws, level: float = LEVEL) -> Interval:
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="nearest")
    return Interval(value, float(low), float(high))


def gradients(
    sampler: Diffusion,
    problem: Problem,
    model: Model,
    share: float,
    batches: int,
    seed: int,
) -> Tensor:
    """(batches, P) gradients of fresh mini-batches, float64, by the parameters that the control
    depends on (`Diffusion.gradient`).  Batch i is drawn from the seed `seed` + i."""
    device = next(model.parameters()).device
    posed = sampler.posed(problem)
    return torch.stack(
        [
            sampler.gradient(posed, model, share, Generator(device).manual_seed(seed + i))
            for i in range(batches)
        ]
    )
