"""What is known about a law: log Z, exact draws, modes, observables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Generator, Tensor


class Observable(NamedTuple):
    """A statistic known under p*: E f(X) = mean +- se, Var f(X) = sd^2."""

    f: Callable[[Tensor], Tensor]  # (B, D) -> (B,)
    mean: float
    sd: float
    se: float = 0.0  # 0 means exact


class Modes(NamedTuple):
    """A partition of R^D into M <= 100 cells with known masses."""

    weight: Tensor  # (M,), sums to 1
    assign: Callable[[Tensor], Tensor]  # (B, D) -> (B,) index of the cell


class Truth(NamedTuple):
    """What is known about a target without running a sampler under test."""

    source: str  # "closed form" | "quadrature, 1e-10" | "PT, 10 x 10^4, R-hat 1.003" | "unknown"
    log_Z: float | None = None
    log_Z_se: float = 0.0
    sample: Callable[[int, Generator], Tensor] | None = None  # (n, generator) -> (n, D), float64
    held: float = math.inf  # `sample` draws from so many stored ones, without replacement
    modes: Modes | None = None
    observables: Mapping[str, Observable] = MappingProxyType({})
    noised_score: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    # (x, signal, noise) -> grad log of the law of signal X + noise xi, X ~ p*, xi ~ N(0, I)
    log_Z_along: Callable[[float, float, float], float] | None = None
    # (signal, noise, strength) -> log E exp(strength r(signal X + noise xi)), X ~ p_base: minus
    # the free energy of the annealing strength(t) r at the time of these levels; tilts only
    paths: Callable[[int, Generator], Tensor] | None = None
    # (n, generator) -> (K + 1, n, D): draws as `sample` makes them, each with the path of the
    # base's chain that it ended; where that is all one knows of the base (`reversed_exactly`)

    @property
    def unknown(self) -> bool:
        """Whether nothing is known that a score could be held against."""
        facts = (self.log_Z, self.sample, self.modes, self.noised_score)
        return all(fact is None for fact in facts) and not self.observables
