"""Closed forms of math.md 7 beside which the measured integrals are put."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.integrate import quad

from tiltbench.studies.integrated_variance.integrated import at_log_odds, log_odds
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.schedules import Schedule

EDGE = 34.0  # log-odds beyond which float64 has no times left below 1


def eta(schedule: Schedule, t: float) -> float:
    """alpha'/alpha beta^2 - (beta^2)'/2 = sigma^2 / 2."""
    rate = schedule.signal_rate(t) / schedule.signal(t)
    return rate * schedule.noise_power(t) - schedule.noise_power_rate(t) / 2


def gaussian_variance(loss: str, schedule: Schedule, t: float, var: float, s: float) -> float:
    """sigma^2 Var(T | X_t) of a coordinate, base N(0, s^2), target N(m, var): CSM, TSM, and NSM,
    which AM and AS equal."""
    alpha, power = schedule.signal(t), schedule.noise_power(t)
    within = var * power / (power + alpha**2 * var)
    if loss == "CSM":
        factor = alpha / power
    elif loss == "TSM":
        factor = 1 / (alpha * var)
    else:
        factor = pull(alpha, power, s) * (1 / s**2 - 1 / var)
    return 2 * eta(schedule, t) * factor**2 * within


def pull(alpha: float, power: float, s: float) -> float:
    """c = alpha s^2 / (alpha^2 s^2 + beta^2), power = beta^2."""
    return alpha * s**2 / (alpha**2 * s**2 + power)


class Pull(NamedTuple):
    """int_0^1 sigma^2 c^2 dt = s^2 (1 - alpha_0^2 s^2 / D_0), D = alpha^2 s^2 + beta^2."""

    name: str
    integrand: Callable[[float], float]
    expected: float


def of_schedule(schedule: Schedule, s: float) -> Pull:
    """sigma^2 = 2 eta."""
    first, noise = schedule.signal(0.0) ** 2 * s**2, schedule.noise_power(0.0)
    return Pull(
        f"{schedule!r}, s = {s:g}",
        lambda t: 2 * eta(schedule, t) * pull(schedule.signal(t), schedule.noise_power(t), s) ** 2,
        s**2 * (1 - _share(first, noise)),
    )


def of_reference(base: Linear) -> Pull:
    """sigma that the process itself states; s = base.spread, whose square is nu_1 for Brownian."""
    s = base.spread
    first, noise = base.signal(0.0) ** 2 * s**2, base.noise(0.0) ** 2
    return Pull(
        repr(base),
        lambda t: base.sigma(t) ** 2 * pull(base.signal(t), base.noise(t) ** 2, s) ** 2,
        s**2 * (1 - _share(first, noise)),
    )


def _share(signal: float, noise: float) -> float:
    """alpha_0^2 s^2 / D_0; 0 at a point start, X_0 = 0, where it is 0/0."""
    return signal / (signal + noise) if signal else 0.0


def integral(f: Callable[[float], float], low: float = 0.0, high: float = 1.0) -> float:
    """int f dt by adaptive quadrature in log-odds, where powers at the ends are exponentials."""
    first, last = (
        float(log_odds(np.array(t))) if 0 < t < 1 else math.copysign(EDGE, t - 0.5)
        for t in (low, high)
    )

    def moved(place: float) -> float:
        t = float(at_log_odds(np.array(place)))
        return f(t) * t * (1 - t)

    breaks = np.linspace(first, last, 1 + math.ceil((last - first) / 4))
    pieces = zip(breaks, breaks[1:], strict=False)
    return float(sum(quad(moved, a, b, epsabs=1e-13, epsrel=1e-10)[0] for a, b in pieces))
