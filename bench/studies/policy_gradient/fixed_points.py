"""Where policy gradients end on a Gaussian base with a quadratic reward (math.md 3.1).

The base is a chain x_{k+1} = gain_k x_k + std_k (sqrt(dt_k) u_k + z_k) from N(0, v_0), and r(x) =
linear x - curvature / 2 x^2, in every coordinate by itself.  All controls here are u_k(x) = shift_k
- pull_k x, and all laws Gaussian, exactly at any number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from tiltbench.targets.bases.linear import Linear


class Reward(NamedTuple):
    """r(x) = linear x - curvature / 2 x^2 of a coordinate, but for a constant; curvature >= 0."""

    linear: float
    curvature: float


class Law(NamedTuple):
    """N(mean, variance) of a coordinate."""

    mean: float
    variance: float


class Affine(NamedTuple):
    """u_k(x) = shift_k - pull_k x at every step k."""

    shift: tuple[float, ...]
    pull: tuple[float, ...]


class Step(NamedTuple):
    """A step of the chain, and the control there."""

    gain: float
    std: float
    dt: float
    shift: float
    pull: float

    @property
    def slope(self) -> float:
        """E[x_{k+1} | x_k = x] = slope x + add."""
        return self.gain - self.std * math.sqrt(self.dt) * self.pull

    @property
    def add(self) -> float:
        return self.std * math.sqrt(self.dt) * self.shift


def in_reward(base: Linear, reward: Reward, kl: float) -> Affine:
    """The optimum of E[r] - kl KL(P^u | P_base): of the tilt p_base exp(r / kl), exactly where r is
    linear and as dt -> 0 elsewhere, for a control moves means only.

    Its value function is kl log E_base[exp(r / kl) | x_k] but for a constant, a quadratic whose
    curvature and slope shrink by 1 + std_k^2 H / kl a step."""

    def before(ahead: Reward, step: Step) -> Reward:
        left = 1 + step.std**2 * ahead.curvature / kl
        return Reward(step.gain * ahead.linear / left, step.gain**2 * ahead.curvature / left)

    return _backward(base, reward, kl, before)


def fixed_states(base: Linear, reward: Reward, kl: float) -> Affine:
    """Where the gradient of E[r] and that of kl sum_k dt_k / 2 |u(x_k)|^2 at fixed states cancel.

    The value function is E^u[r | x_k] alone; as dt -> 0 it is kl / 2 times that of the tilt by
    2 r / kl, and u half of the control of that tilt."""

    def before(ahead: Reward, step: Step) -> Reward:
        linear = step.slope * (ahead.linear - ahead.curvature * step.add)
        return Reward(linear, step.slope**2 * ahead.curvature)

    return _backward(base, reward, kl, before)


def _backward(
    base: Linear, reward: Reward, kl: float, before: Callable[[Reward, Step], Reward]
) -> Affine:
    """The control that is best at every step against a quadratic value function V ahead,
    max_u E[V(x_{k+1})] - kl dt / 2 u^2, and how V goes on backward."""
    ahead, steps = reward, []
    for (gain, std), s, t in reversed(_steps(base)):
        push = std / (math.sqrt(t - s) * (kl + std * std * ahead.curvature))
        step = Step(gain, std, t - s, push * ahead.linear, push * ahead.curvature * gain)
        steps.append(step)
        ahead = before(ahead, step)
    return Affine(tuple(s.shift for s in steps[::-1]), tuple(s.pull for s in steps[::-1]))


def _steps(base: Linear) -> list[tuple[tuple[float, float], float, float]]:
    return list(zip(base.kernels, base.times[:-1], base.times[1:], strict=True))


def end(base: Linear, u: Affine) -> Law:
    """The law of x_K under a control."""
    mean, variance = 0.0, base.start_var
    for ((gain, std), s, t), shift, pull in zip(_steps(base), u.shift, u.pull, strict=True):
        step = Step(gain, std, t - s, shift, pull)
        mean, variance = step.slope * mean + step.add, step.slope**2 * variance + std**2
    return Law(mean, variance)


def tilt(base: Linear, reward: Reward, kl: float) -> Law:
    """p_base exp(r / kl)."""
    precision = 1 / base.spread**2 + reward.curvature / kl
    return Law(reward.linear / kl / precision, 1 / precision)


def spread_of_reward(law: Law, reward: Reward, dim: int) -> float:
    """The standard deviation of the sum of r over `dim` coordinates."""
    slope = reward.linear - reward.curvature * law.mean
    each = reward.curvature**2 * law.variance**2 / 2 + law.variance * slope**2
    return math.sqrt(dim * each)


FixedPoint = Callable[[Linear, Reward, float], Affine]


def standardised(
    base: Linear, reward: Reward, kl: float, fixed_point: FixedPoint, dim: int = 1
) -> float:
    """The KL weight that r without standardising would have at the fixed point: kl s, s the
    standard deviation of r under the law that kl s leads to, by bisection.

    Near the greatest reward a law of temperature T has s = T sqrt(dim / 2): for kl < sqrt(2 / dim)
    s falls until only the noise of the last step is left."""
    low, high = 1e-9, spread_of_reward(Law(0.0, base.spread**2), reward, dim) + 1e3

    def excess(s: float) -> float:
        law = end(base, fixed_point(base, reward, kl * s))
        return spread_of_reward(law, reward, dim) - s

    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return kl * math.sqrt(low * high)
