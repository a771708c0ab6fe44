"""Score matching on noised end points: what its losses share (math.md 3).

An end point X_1 ~ p*, noised to X_t = alpha X_1 + beta xi, estimates E*[X_1 | X_t] without bias by

    T_omega = X_1 + omega [ (X_t - alpha X_1) / alpha + (beta / alpha)^2 g ],   g = grad log p*(X_1)
                                                              = score of p_base + grad r,

for any omega(t): given X_t the bracket is (beta / alpha)^2 times the gradient in X_1 of log p*(X_1)
+ log N(X_t; alpha X_1, beta^2), whose conditional mean is 0.  A control is regressed on
lift_k (T_omega - denoise(X_t, k)), so its minimiser is u* for any weights lambda(t) > 0 as well.
X_1 ~ p* come from the present control by the weights of its own paths (math.md 5.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, floored, hints, regress_on_grid, reward_and_grad
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.sampler import Unsupported
from tiltbench.samplers.weights import resample, temper
from tiltbench.targets.bases.noising import Noising, pick
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.checks import Checks, Diverged
from tiltbench.targets.constants import constant
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

POINTS = 4  # noised points (x_t, t) an end point serves: drawn anew at every use, or once if guided
LEAST_ESS = 0.8  # of tempered weights


class Blend(NamedTuple):
    """omega and lambda at the K steps of a grid, in forms that stay finite where alpha = 0."""

    move: list[float]  # omega / alpha
    slope: list[float]  # omega (beta / alpha)^2
    emphasis: list[float]  # lambda: time k is drawn with probability lambda_k / sum lambda


def share_of_signal(base: Noising) -> list[float]:
    """w = alpha^2 s^2 / D at the K steps, D = alpha^2 s^2 + beta^2 and s = base.spread; 0 at a
    point start, where X_t says nothing of X_1."""
    powers = [
        ((alpha * base.spread) ** 2, beta**2)
        for alpha, beta in zip(base.signals[:-1], base.noises[:-1], strict=True)
    ]
    return [signal / (signal + noise) if signal else 0.0 for signal, noise in powers]


def quiet_end(base: Noising) -> list[float]:
    """lambda = sqrt(1 - w), for targets whose variance grows like 1 / (1 - t) as t -> 1."""
    return [math.sqrt(1 - w) for w in share_of_signal(base)]


def target(
    base: Noising,
    blend: Blend,
    x: Float[Tensor, "*b d"],
    k: Int[Tensor, " *b"],
    x1: Float[Tensor, "*b d"],
    g: Float[Tensor, "*b d"],
) -> Float[Tensor, "*b d"]:
    """lift_k (T_omega - denoise(x, k)), the conditional mean of which is u*."""
    away = x - pick(base.signals, k, x) * x1
    conditional = x1 + pick(blend.move, k, x) * away + pick(blend.slope, k, x) * g
    return pick(base.lifts, k, x) * (conditional - base.denoise(x, k))


class Evaluation(NamedTuple):
    """What is bought at an end point: pay(problem, x1) -> (r, g), for `price` a point."""

    pay: Callable[[Problem, Tensor], tuple[Tensor, Tensor]]
    price: Cost


def _value(problem: Problem, x1: Tensor) -> tuple[Tensor, Tensor]:
    return problem.reward(x1).detach(), torch.zeros_like(x1)


def _value_and_slope(problem: Problem, x1: Tensor) -> tuple[Tensor, Tensor]:
    base = noising(problem.base)
    r, g = reward_and_grad(problem, x1)
    return r, g + base.score(x1, base.steps)


VALUES = Evaluation(_value, Cost(1, 0))  # g is not used, and left at 0
SLOPES = Evaluation(_value_and_slope, Cost(1, 1))

Selection = Callable[[Tensor, Generator, Checks], Tensor]  # log_w (n,) -> indices of end points


def plain(log_w: Float[Tensor, " n"], generator: Generator, checks: Checks) -> Int[Tensor, " n"]:
    """n indices by self-normalised weights: p* up to O(1/n), however few points carry it."""
    return resample(log_w, len(log_w), generator, checks)


def tempered(log_w: Float[Tensor, " n"], generator: Generator, checks: Checks) -> Int[Tensor, " n"]:
    """By w^beta, beta the largest exponent in [0, 1] that keeps the ESS at LEAST_ESS.

    The end points then lie between the control's law and p*; as the control improves, beta
    reaches 1."""
    return resample(temper(log_w, LEAST_ESS) * log_w, len(log_w), generator, checks)


def unweighted(
    log_w: Float[Tensor, " n"], generator: Generator, checks: Checks
) -> Int[Tensor, " n"]:
    """Every end point once: the control's own law, not p*."""
    return torch.arange(len(log_w), device=log_w.device)


def matching(
    name: str,
    blend: Callable[[Noising], Blend],
    ends: Evaluation,
    select: Selection,
    shrink: float = 0.0,
) -> Loss:
    """The regression on `target` at selected end points, on any Noising base.

    sum_k lambda_k E |u - y|^2 / sum lambda + shrink E |u|^2, the times being drawn by lambda.
    Raises Unsupported on any other base."""

    def label(
        problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        base = noising(problem.base)
        r, g = ends.pay(problem, path.x[-1])
        chosen = select(path_log_w(base, path, r, problem.checks), generator, problem.checks)
        rows = {"x1": path.x[-1][chosen], "g": g[chosen]}
        if not model.guided:
            return rows
        # points where each costs a hint: paid for every path, whatever the selection
        rows = {key: _refilled(value, len(r)) for key, value in rows.items()}
        x, k, y = points(base, blend(base), rows, generator)
        return {"x": x, "k": k, "y": y, "hint": reward_and_grad(problem, x)[1]}

    def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        if model.guided:
            x, k, y, hint = (batch[key] for key in ("x", "k", "y", "hint"))
        else:
            base = noising(process)
            (x, k, y), hint = points(base, blend(base), batch, generator), None
        if not shrink:
            return regress_on_grid(model, process, x, k, y, hint)
        u = model.on_grid(process.grid(x)[:-1])(x, k, hint)
        return (u - y).square().sum(-1).mean() + shrink * u.square().sum(-1).mean()

    def price(paths: int, steps: int, guided: bool) -> Cost:
        return ends.price.times(paths).plus(point_hints(paths, steps, guided))

    alone = select is unweighted  # no signal: any control of that terminal law is a fixed point
    return Loss(name, label, value, price, any_law=not alone, biased=alone)


def points(
    base: Noising, blend: Blend, rows: Batch, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(x_t, k, target of u) at POINTS grid times t_k a row."""
    x1, g = (rows[key].repeat(POINTS, 1) for key in ("x1", "g"))
    k = times(blend.emphasis, len(x1), generator)
    x = base.renoise(x1, k, generator)
    return x, k, target(base, blend, x, k, x1, g)


def times(emphasis: list[float], n: int, generator: Generator) -> Int[Tensor, " n"]:
    """n steps of the grid with probabilities in proportion to `emphasis`, stratified: together they
    cover the grid as evenly as n points can, in random order."""
    order = torch.randperm(n, generator=generator, device=generator.device)
    within = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
    ladder = constant(_ladder(tuple(emphasis)), within)
    return torch.searchsorted(ladder, (order + within) / n).clamp_(max=len(emphasis) - 1)


@lru_cache(maxsize=64)
def _ladder(emphasis: tuple[float, ...]) -> tuple[float, ...]:
    """The cumulative probabilities."""
    share = torch.tensor(emphasis, dtype=torch.float64)
    return tuple((share / share.sum()).cumsum(0).tolist())


def path_log_w(
    base: Noising, path: Path, r: Float[Tensor, " b"], checks: Checks
) -> Float[Tensor, " b"]:
    """r - log dP^sim/dP^base, P^sim the law that simulated, floored; raises Diverged where it is
    undefined."""
    ratio = base.log_ratio(path)
    log_w = floored(r.double() - (ratio if path.excess is None else ratio + path.excess), checks)
    lost = (~log_w.isfinite()).sum()
    checks.never(
        lost > 0,
        lambda: Diverged(
            f"the weights of {int(lost)} of {len(r)} paths are not finite; try a smaller lr"
        ),
    )
    return log_w


def point_hints(paths: int, steps: int, guided: bool) -> Cost:
    """What a guided control pays while simulating and at the noised points."""
    noised = Cost(POINTS * paths, POINTS * paths) if guided else Cost()
    return noised.plus(hints(paths, steps, guided))


def _refilled(rows: Tensor, n: int) -> Tensor:
    """n rows: the given ones over and over."""
    return rows.repeat(-(-n // len(rows)), 1)[:n]


def noising(process: Process) -> Noising:
    if not isinstance(process, Noising):
        raise Unsupported("score matching needs a base with a known noising kernel and denoiser")
    return process
