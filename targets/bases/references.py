"""Gaussian reference processes: two formulas each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import ClassVar

from tiltbench.targets.bases.linear import Linear


@dataclass(frozen=True)
class Brownian(Linear):
    """Brownian motion from the origin, sigma(t) = sigma_0 ratio^-t, so that X_1 ~ N(0, scale^2 I).

    nu_t = int_0^t sigma^2; ratio = 1 is constant noise, ratio > 1 ("geometric") spends the noise
    early and leaves fine steps for the end.  Memoryless: X_0 is a point.  The base of PIS
    (arXiv 2111.15141) and adjoint sampling (2504.11713).
    """

    name: ClassVar[str] = "Brownian"
    steps: int = 32
    scale: float = 1.0
    ratio: float = 5.0

    def __post_init__(self) -> None:
        _positive(self, "steps", "scale", "ratio")

    @property
    def times(self) -> tuple[float, ...]:
        return _uniform(self.steps)

    @property
    def start_var(self) -> float:
        return 0.0

    def _share(self, t: float) -> float:
        """nu_t / nu_1."""
        rate = -2 * math.log(self.ratio)
        return t if abs(rate) < 1e-9 else math.expm1(rate * t) / math.expm1(rate)

    def between(self, s: float, t: float) -> tuple[float, float]:
        return 1.0, self.scale**2 * (self._share(t) - self._share(s))

    def sigma(self, t: float) -> float:
        rate = -2 * math.log(self.ratio)
        slope = 1.0 if abs(rate) < 1e-9 else rate * math.exp(rate * t) / math.expm1(rate)
        return self.scale * math.sqrt(slope)

    def widened(self, factor: float) -> Brownian:
        return replace(self, scale=self.scale * factor)


@dataclass(frozen=True)
class Scattered(Linear):
    """Brownian motion from X_0 ~ N(0, prior^2 I): X_1 ~ N(0, (prior^2 + scale^2) I).

    sigma(t) = sigma_0 ratio^-t as for `Brownian`.  *Not* memoryless: corr(X_0, X_1) =
    prior / sqrt(prior^2 + scale^2), and no control moves X_0, so that a loss that regresses on
    grad r at the end is drawn to a wrong law; the adjoint Schroedinger bridge (arXiv 2506.22565)
    corrects for it, and path-space functionals still bound log Z.
    """

    name: ClassVar[str] = "Scattered"
    steps: int = 32
    scale: float = 1.0
    ratio: float = 5.0
    prior: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "steps", "scale", "ratio", "prior")

    @cached_property
    def _moved(self) -> Brownian:
        """X_t - X_0."""
        return Brownian(self.steps, self.scale, self.ratio)

    @property
    def times(self) -> tuple[float, ...]:
        return _uniform(self.steps)

    @property
    def start_var(self) -> float:
        return self.prior**2

    def between(self, s: float, t: float) -> tuple[float, float]:
        return self._moved.between(s, t)

    def sigma(self, t: float) -> float:
        return self._moved.sigma(t)

    def widened(self, factor: float) -> Scattered:
        return replace(self, scale=self.scale * factor, prior=self.prior * factor)


@dataclass(frozen=True)
class Stationary(Linear):
    """Ornstein-Uhlenbeck, dX = -gamma(t)/2 X dt + scale sqrt(gamma(t)) dW, X_t ~ N(0, scale^2 I).

    gamma falls linearly from gamma_noise at t = 0 to gamma_data at t = 1.  Memoryless up to the
    residual correlation of X_0 and X_1, exp(-(gamma_noise + gamma_data)/4): 0.0066 at the default.
    log_w stays exact; the optimum of a control-matching loss is biased by that much.  The base of
    DDS (arXiv 2302.13834).
    """

    name: ClassVar[str] = "Stationary"
    steps: int = 32
    scale: float = 1.0
    gamma_noise: float = 20.0
    gamma_data: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "steps", "scale", "gamma_noise", "gamma_data")

    @property
    def times(self) -> tuple[float, ...]:
        return _uniform(self.steps)

    @property
    def start_var(self) -> float:
        return self.scale**2

    def between(self, s: float, t: float) -> tuple[float, float]:
        total = (
            self.gamma_noise * (t - s) + (self.gamma_data - self.gamma_noise) * (t * t - s * s) / 2
        )
        return math.exp(-total / 2), -math.expm1(-total) * self.scale**2

    def sigma(self, t: float) -> float:
        gamma = self.gamma_noise + (self.gamma_data - self.gamma_noise) * t
        return self.scale * math.sqrt(gamma)

    def widened(self, factor: float) -> Stationary:
        return replace(self, scale=self.scale * factor)


@lru_cache(maxsize=64)
def _uniform(steps: int) -> tuple[float, ...]:
    return tuple(k / steps for k in range(steps + 1))


def _positive(process: Linear, *fields: str) -> None:
    for field in fields:
        if not getattr(process, field) > 0:
            raise ValueError(f"{field} is {getattr(process, field)}; it must be positive")
