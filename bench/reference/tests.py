"""What chains must pass before they may serve as a truth, every test a sentence with figures.

Chains are (chains, states) arrays of one statistic, independent over the first dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from scipy.special import ndtr, ndtri
from scipy.stats import t as student

from tiltbench.estimators import average
from tiltbench.rhat import Chains, rank_rhat
from tiltbench.samplers.weights import Estimate

MIXED = 1.01  # largest R-hat (Vehtari et al. 2021)
SIGMAS = 3.0  # for one comparison
ROUNDING = 1e-9  # of a sum: differences below it are none
PRECISE = 0.05  # nats: the largest standard error of log Z


class Test(NamedTuple):
    passed: bool
    sentence: str
    figures: Mapping[str, Any]


def estimate(chains: Chains) -> Estimate:
    """Mean and its error by chains."""
    group = torch.arange(len(chains)).repeat_interleave(chains.shape[1])
    return average(chains.flatten().cpu(), group)


def z_in_time(chains: Chains) -> float:
    """Mean difference of a chain's first and second half, in standard errors by chains."""
    half = chains.shape[1] // 2
    difference = estimate(chains[:, :half].mean(1, keepdim=True) - chains[:, -half:].mean(1, True))
    return _z(difference.value, difference.se, difference.n - 1)


def z_of_starts(chains: Chains) -> float:
    """Difference of the first and the second half of the chains, in standard errors."""
    half = len(chains) // 2
    one, two = estimate(chains[:half]), estimate(chains[half:])
    se = math.hypot(one.se, two.se)
    freedom = se**4 / (one.se**4 / (one.n - 1) + two.se**4 / (two.n - 1)) if se > 0 else 1.0
    return _z(one.value - two.value, se, freedom)  # Welch (1947)


def _z(difference: float, se: float, freedom: float = math.inf) -> float:
    """The normal score of difference / se, se from `freedom` degrees of freedom: few chains know
    their own error badly."""
    if abs(difference) < ROUNDING or math.isnan(difference):
        return 0.0 * difference
    if not se > 0:
        return math.inf
    tail = float(student.sf(abs(difference) / se, freedom))
    return math.copysign(-float(ndtri(tail)), difference)


def bound(count: int) -> float:
    """The z that the largest of `count` normal ones passes as often as one passes 3."""
    return float(-ndtri(ndtr(-SIGMAS) / max(count, 1)))


def mixing(watched: Mapping[str, Chains]) -> Test:
    """R-hat of every statistic below 1.01."""
    rhat = {name: rank_rhat(chains) for name, chains in watched.items()}
    stuck = [name for name, value in rhat.items() if not value < MIXED]
    still = [name for name in stuck if math.isnan(rhat[name])]
    if still:
        message = f"no state differs from another in {', '.join(still)}: a basin was never visited"
        return Test(False, message, rhat)
    if stuck:
        message = ", ".join(f"{name} {rhat[name]:.4f}" for name in stuck)
        return Test(False, f"R-hat must be below {MIXED}: {message}", rhat)
    message = f"R-hat of {len(rhat)} statistics is at most {max(rhat.values()):.4f}"
    return Test(True, message, rhat)


def virial(chains: Chains, rank: int) -> Test:
    """E[x . grad log rho] = -rank, by partial integration."""
    mean = estimate(-chains)
    z = _z(mean.value - rank, mean.se, mean.n - 1)
    message = f"-E[x . grad log rho] is {mean.value:.4f} +- {mean.se:.4f} for {rank} (z {z:.2f})"
    figures = {"mean": mean.value, "se": mean.se, "rank": rank, "z": z}
    return Test(abs(z) < SIGMAS, message, figures)


def halves(watched: Mapping[str, Chains]) -> Test:
    """The halves in time, and those of chains with narrow and with wide starts, agree."""
    z = {f"{name} in time": z_in_time(chains) for name, chains in watched.items()}
    z |= {f"{name} by start": z_of_starts(chains) for name, chains in watched.items()}
    return _all_agree(z, "the halves agree", "the halves disagree")


def against(truth: Mapping[str, tuple[float, float]], estimates: Mapping[str, Estimate]) -> Test:
    """Estimates beside what is known, (value, se) by name."""
    z = {
        name: _z(
            estimates[name].value - value, math.hypot(estimates[name].se, se), estimates[name].n - 1
        )
        for name, (value, se) in truth.items()
    }
    return _all_agree(z, "the known truth is met", "the known truth is missed")


def _all_agree(z: Mapping[str, float], good: str, bad: str) -> Test:
    most = bound(len(z))
    wrong = [name for name, value in z.items() if not abs(value) < most]
    if wrong:
        message = ", ".join(f"{name} z {z[name]:.2f}" for name in wrong)
        return Test(False, f"{bad} (bound {most:.2f} for the largest of {len(z)}): {message}", z)
    largest = max(z, key=lambda name: abs(z[name]))
    return Test(
        True,
        f"{good}: the largest of {len(z)} z is {z[largest]:.2f}, {largest} (bound {most:.2f})",
        z,
    )


def two_ways(one: Estimate, two: Estimate) -> Test:
    """log Z by tempering and by SMC: each precise, and the two within 3 combined errors."""
    z = _z(one.value - two.value, math.hypot(one.se, two.se))
    message = (
        f"log Z is {one.value:.4f} +- {one.se:.4f} by tempering and "
        f"{two.value:.4f} +- {two.se:.4f} by SMC (z {z:.2f})"
    )
    precise = max(one.se, two.se) < PRECISE
    if not precise:
        message += f"; both errors must be below {PRECISE}"
    if not abs(z) < SIGMAS:
        message += f"; they must agree within {SIGMAS:.0f} errors"
    figures = {"tempering": one._asdict(), "smc": two._asdict(), "z": z}
    return Test(precise and abs(z) < SIGMAS, message, figures)


def combined(one: Estimate, two: Estimate) -> tuple[float, float]:
    """The mean with weights 1/se^2, and its error."""
    a, b = (max(estimate.se, ROUNDING) ** -2 for estimate in (one, two))
    return (a * one.value + b * two.value) / (a + b), (a + b) ** -0.5
