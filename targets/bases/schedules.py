"""Interpolants X_t = alpha_t X_1 + beta_t xi, and the noise a process along them may carry.

alpha_0 = 0 (or nearly), alpha_1 = 1, beta_1 = 0; xi ~ N(0, I) independent of X_1 (math.md 2).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar


class Schedule(ABC):
    """alpha_t and beta_t with their rates; beta enters through its square, whose rate is finite."""

    name: ClassVar[str]

    @abstractmethod
    def signal(self, t: float) -> float:
        """alpha_t."""

    @abstractmethod
    def signal_rate(self, t: float) -> float:
        """d alpha_t / dt."""

    @abstractmethod
    def noise_power(self, t: float) -> float:
        """beta_t^2."""

    @abstractmethod
    def noise_power_rate(self, t: float) -> float:
        """d beta_t^2 / dt."""


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """alpha = t, beta = 1 - t."""

    name: ClassVar[str] = "RectifiedFlow"

    def signal(self, t: float) -> float:
        return t

    def signal_rate(self, t: float) -> float:
        return 1.0

    def noise_power(self, t: float) -> float:
        return (1 - t) ** 2

    def noise_power_rate(self, t: float) -> float:
        return -2 * (1 - t)


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    """DDPM with linear gamma: alpha = exp(-1/2 int_t^1 gamma), beta^2 = 1 - alpha^2.

    gamma falls from gamma_noise at t = 0 to gamma_data at t = 1.  Memoryless up to alpha_0:
    0.0066 at the default (arXiv 2006.11239 in continuous time, 2011.13456)."""

    name: ClassVar[str] = "VariancePreserving"
    gamma_noise: float = 20.0
    gamma_data: float = 0.1

    def __post_init__(self) -> None:
        if not (self.gamma_noise > 0 and self.gamma_data > 0):
            raise ValueError(
                f"gamma_noise is {self.gamma_noise} and gamma_data {self.gamma_data}; "
                "both must be positive"
            )

    def _gamma(self, t: float) -> float:
        return self.gamma_noise + (self.gamma_data - self.gamma_noise) * t

    def signal(self, t: float) -> float:
        return math.exp(-(1 - t) * (self._gamma(t) + self._gamma(1.0)) / 4)

    def signal_rate(self, t: float) -> float:
        return self._gamma(t) * self.signal(t) / 2

    def noise_power(self, t: float) -> float:
        return -math.expm1(-(1 - t) * (self._gamma(t) + self._gamma(1.0)) / 2)

    def noise_power_rate(self, t: float) -> float:
        return -self._gamma(t) * self.signal(t) ** 2


@dataclass(frozen=True)
class Trigonometric(Schedule):
    """alpha = sin(pi t / 2), beta = cos(pi t / 2)."""

    name: ClassVar[str] = "Trigonometric"

    def signal(self, t: float) -> float:
        return math.sin(math.pi * t / 2)

    def signal_rate(self, t: float) -> float:
        return math.pi / 2 * math.cos(math.pi * t / 2)

    def noise_power(self, t: float) -> float:
        return math.sin(math.pi * (1 - t) / 2) ** 2  # a sine of what is left: exactly 0 at t = 1

    def noise_power_rate(self, t: float) -> float:
        return -math.pi / 2 * math.sin(math.pi * t)


@dataclass(frozen=True)
class Foellmer(Schedule):
    """alpha = t, beta^2 = t (1 - t): the bridge of Brownian motion from the origin."""

    name: ClassVar[str] = "Foellmer"

    def signal(self, t: float) -> float:
        return t

    def signal_rate(self, t: float) -> float:
        return 1.0

    def noise_power(self, t: float) -> float:
        return t * (1 - t)

    def noise_power_rate(self, t: float) -> float:
        return 1 - 2 * t
