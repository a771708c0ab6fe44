"""Flows and diffusions stepped on a grid: any denoiser, any schedule, any noise.

The noise of the process is free: every sigma shares the marginals p_t, but only the memoryless one
lets a control reach the tilt of p_base (math.md 2).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.bases.process import Kernel
from tiltbench.targets.bases.schedules import RectifiedFlow, Schedule


class Mix(NamedTuple):
    """What a step's mean adds up from: a part of each of these."""

    x: float
    end: float = 0.0  # E[X_1 | x]
    velocity: float = 0.0
    score: float = 0.0


class Interpolant(Noising):
    """A base given by its denoiser; a concrete one has fields `schedule`, `stepping`, `steps`.

    X_0 ~ N(0, alpha_0^2 spread^2 + beta_0^2), the noised law itself where alpha_0 = 0.
    """

    schedule: Schedule
    stepping: Stepping

    @property
    @abstractmethod
    def uncertainty(self) -> list[float]:
        """sqrt(E tr Cov(X_1 | X_{t_k}) / d) for k < K under the base."""

    @cached_property
    def doubtful(self) -> list[float]:
        """`uncertainty` as a share of that of N(0, spread^2 I) for the base."""
        levels = zip(self.uncertainty, self.signals, self.noises, strict=False)
        return [tau / _gaussian(self.spread, a, b) for tau, a, b in levels]

    @cached_property
    def times(self) -> tuple[float, ...]:  # type: ignore[override]
        return tuple(k / self.steps for k in range(self.steps + 1))

    def signal(self, t: float) -> float:
        return self.schedule.signal(t)

    def noise(self, t: float) -> float:
        return math.sqrt(self.schedule.noise_power(t))

    @cached_property
    def rates(self) -> list[tuple[float, float]]:
        return [
            (self.schedule.signal_rate(t), self.schedule.noise_power_rate(t)) for t in self.times
        ]

    @cached_property
    def start_std(self) -> float:
        return math.hypot(self.signals[0] * self.spread, self.noises[0])

    @property
    def memory(self) -> float:
        return self.stepping.memory(self)

    @cached_property
    def stds(self) -> list[float]:
        return [self.stepping.std(self, k) for k in range(self.steps)]

    @cached_property
    def lifts(self) -> list[float]:
        return [self.stepping.lift(self, k) for k in range(self.steps)]

    def reach(self, t: float) -> float:
        """See `Continuous.reach`."""
        return self.stepping.reach(self, t)

    @cached_property
    def mixes(self) -> list[Mix]:
        """That of the mean of every step k < K."""
        return [self.stepping.mix(self, k) for k in range(self.steps)]

    def mixed(self, x: Float[Tensor, "*b d"], k: int, mix: Mix) -> Float[Tensor, "*b d"]:
        """The sum of x, E[X_1 | X_{t_k} = x], velocity and score by the parts of `mix`."""
        total = mix.x * x
        if mix.end:
            total = total + mix.end * self.denoise(x, k)
        if mix.velocity or mix.score:
            velocity, score = self.current(x, k)
            total = total + (mix.velocity * velocity + mix.score * score)
        return total

    def start(self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype) -> Tensor:
        return self.start_std * self.normal(shape, generator, dtype)

    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        return Kernel(self.mixed(x, k, self.mixes[k]), self.stds[k])

    def backward(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        return self.stepping.reversal(self, x, k)


def _gaussian(spread: float, signal: float, noise: float) -> float:
    """The sd of X_1 ~ N(0, spread^2) given signal X_1 + noise xi; of a point start it is all."""
    power = (signal * spread) ** 2 + noise**2
    return spread * noise / math.sqrt(power) if power else spread


class Stepping(ABC):
    """The noise of a process along an interpolant, and how one step of the grid is taken."""

    name: ClassVar[str]

    @abstractmethod
    def mix(self, base: Interpolant, k: int) -> Mix:
        """What E[X_{k+1} | X_k = x] adds up from: see `Interpolant.mixed`."""

    @abstractmethod
    def std(self, base: Interpolant, k: int) -> float: ...

    @abstractmethod
    def reversal(self, base: Interpolant, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        """X_k | X_{k+1} = x."""

    @abstractmethod
    def lift(self, base: Interpolant, k: int) -> float:
        """See Noising.lifts."""

    def reach(self, base: Interpolant, t: float) -> float:
        """See `Continuous.reach`: here by linear interpolation between the times of the grid."""
        known = [1 / lift if lift else 0.0 for lift in base.lifts]
        return float(np.interp(t, base.times, [*known, 0.0]))

    @abstractmethod
    def memory(self, base: Interpolant) -> float: ...

    @abstractmethod
    def check(self, schedule: Schedule) -> None:
        """Raises ValueError where this noise is meant for another schedule."""


@dataclass(frozen=True)
class Ancestral(Stepping):
    """The memoryless noise sigma^2 = 2 eta by DDPM's ancestral step (arXiv 2006.11239).

    X_{k+1} | X_k, X_1 is Gaussian, A x + B X_1 + sqrt(var) xi; X_1 is replaced by its mean given x,
    and its uncertainty tau^2 = E tr Cov(X_1 | X_k) / d is added to the noise, var + B^2 tau^2, the
    isotropic variance nearest in KL (Analytic-DPM, arXiv 2201.06503).  Finite at t = 0, exact for a
    Gaussian base, and the last step has noise, so that path weights exist at every step.  The
    reversal is the noising chain, exact for the base itself.
    """

    name: ClassVar[str] = "Ancestral"

    def check(self, schedule: Schedule) -> None:
        """Any schedule will do."""

    def parts(self, base: Interpolant, k: int) -> tuple[float, float, float]:
        """(A, B, var) of step k."""
        return self.between(*base.signals[k : k + 2], *base.noises[k : k + 2])

    @staticmethod
    def between(a0: float, a1: float, b0: float, b1: float) -> tuple[float, float, float]:
        """(A, B, var) of a step from the levels a0, b0 to a1, b1."""
        ratio = a0 / a1
        if b0 == 0:  # a point start: X_0 = 0 says nothing of X_1
            return 0.0, a1, b1 * b1
        fresh = 1 - (ratio * b1 / b0) ** 2
        return ratio * (b1 / b0) ** 2, fresh * a1, fresh * b1 * b1

    def mix(self, base: Interpolant, k: int) -> Mix:
        gain, pull, _ = self.parts(base, k)
        return Mix(gain, end=pull)

    def std(self, base: Interpolant, k: int) -> float:
        _, pull, var = self.parts(base, k)
        return math.hypot(math.sqrt(var), pull * base.uncertainty[k])

    def reversal(self, base: Interpolant, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        ratio = base.signals[k] / base.signals[k + 1]
        var = base.noises[k] ** 2 - (ratio * base.noises[k + 1]) ** 2
        return Kernel(ratio * x, math.sqrt(max(var, 0.0)))

    def lift(self, base: Interpolant, k: int) -> float:
        dt = base.times[k + 1] - base.times[k]
        return self.parts(base, k)[1] / (self.std(base, k) * math.sqrt(dt))

    def reach(self, base: Interpolant, t: float) -> float:
        """The uncertainty is interpolated as a share of that of a Gaussian base."""
        after = min(t + 1 / base.steps, 1.0)
        if after <= t or not base.noise(t):
            return 0.0
        levels = base.signal(t), base.signal(after), base.noise(t), base.noise(after)
        _, pull, var = self.between(*levels)
        share = float(np.interp(t, base.times[:-1], base.doubtful))
        std = math.hypot(math.sqrt(var), pull * share * _gaussian(base.spread, *levels[::2]))
        return std * math.sqrt(after - t) / pull

    def memory(self, base: Interpolant) -> float:
        return base.signals[0] * base.spread / base.start_std if base.signals[0] else 0.0


class Euler(Stepping):
    """A stated sigma(t) by Euler-Maruyama: drift v + sigma^2/2 score, reversed with v - sigma^2/2
    score taken at the later end.  The chain has the law of its own, O(dt) from the base's."""

    @abstractmethod
    def sigma(self, t: float) -> float: ...

    def mix(self, base: Interpolant, k: int) -> Mix:
        dt = base.times[k + 1] - base.times[k]
        return Mix(1.0, velocity=dt, score=dt * self.sigma(base.times[k]) ** 2 / 2)

    def std(self, base: Interpolant, k: int) -> float:
        return self.sigma(base.times[k]) * math.sqrt(base.times[k + 1] - base.times[k])

    def reversal(self, base: Interpolant, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        dt = base.times[k + 1] - base.times[k]
        mix = Mix(1.0, velocity=-dt, score=dt * self.sigma(base.times[k]) ** 2 / 2)
        return Kernel(base.mixed(x, k + 1, mix), self.std(base, k))

    def lift(self, base: Interpolant, k: int) -> float:
        return self.sigma(base.times[k]) * base.signals[k] / base.noises[k] ** 2

    def memory(self, base: Interpolant) -> float:
        """exp(-int sigma^2 / (2 D)), D = alpha^2 spread^2 + beta^2, by the midpoint rule."""
        total, n = 0.0, 20_000
        for i in range(n):
            t = (i + 0.5) / n
            d = (base.signal(t) * base.spread) ** 2 + base.noise(t) ** 2
            total += self.sigma(t) ** 2 / (2 * d) / n
        return math.exp(-total)


@dataclass(frozen=True)
class Regularised(Euler):
    """sigma^2 = 2 (1 - t + h) / (t + h): rectified flow's memoryless noise made finite at t = 0
    (arXiv 2409.08861).  Memoryless up to a correlation of about h."""

    name: ClassVar[str] = "Regularised"
    h: float = 0.02

    def __post_init__(self) -> None:
        if not self.h > 0:
            raise ValueError(f"h is {self.h}; it must be positive")

    def check(self, schedule: Schedule) -> None:
        if not isinstance(schedule, RectifiedFlow):
            raise ValueError(
                "Regularised is the noise of a rectified flow: use schedule=RectifiedFlow, or "
                "stepping=Ancestral, which is finite on every schedule"
            )

    def sigma(self, t: float) -> float:
        return math.sqrt(2 * (1 - t + self.h) / (t + self.h))


@dataclass(frozen=True)
class Converted(Euler):
    """A rectified flow's ODE turned into an SDE as Flow-GRPO does: sigma = level sqrt((1 - t) / t),
    with h in the place of a smaller t (arXiv 2505.05470; public code has the first step there).

    level = sqrt(2) is the memoryless noise.  Any level is memoryless as h -> 0, but corr(X_0, X_1)
    falls like h^(level^2 / 2) only: at the published level of 0.7, and at any number of steps in
    use, X_1 remembers X_0, which no control can move (math.md 2)."""

    name: ClassVar[str] = "Converted"
    level: float = 0.7
    h: float = 0.02

    def __post_init__(self) -> None:
        for field in ("level", "h"):
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(
                    f"{field} is {getattr(self, field)}; it must be positive and finite"
                )

    def check(self, schedule: Schedule) -> None:
        if not isinstance(schedule, RectifiedFlow):
            raise ValueError(
                "Converted is the noise of a rectified flow: use schedule=RectifiedFlow, or "
                "stepping=Ancestral, which is finite on every schedule"
            )

    def sigma(self, t: float) -> float:
        return self.level * math.sqrt((1 - t) / max(t, self.h))


@dataclass(frozen=True)
class Constant(Euler):
    """sigma(t) = level: *not* memoryless, a negative control.  X_1 remembers X_0, which no control
    can move, and the optimum of the control problem ends elsewhere than in the tilt (math.md 2)."""

    name: ClassVar[str] = "Constant"
    level: float = 1.0

    def __post_init__(self) -> None:
        if not self.level > 0:
            raise ValueError(f"level is {self.level}; it must be positive")

    def check(self, schedule: Schedule) -> None:
        """Any schedule will do."""

    def sigma(self, t: float) -> float:
        return self.level
