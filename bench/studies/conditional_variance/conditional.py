"""E tr Cov(T_t | X_t) of the regression targets T of a control, in control units (math.md 7).

T are those of `_regression.targets`, and for adjoint matching T = sigma(t_k) a_k with a_k the lean
adjoint of the chain: continuous time, where the losses themselves use the chain's own units.  The
gradient of r is not clipped, as it is in training.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.estimators import average
from tiltbench.samplers.loss import reward_and_grad
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.common.regression import optimum, sigmas, targets
from tiltbench.studies.conditional_variance.noised import World
from tiltbench.targets.bases.process import Controlled, Stepper, normal

LOSSES = ("CSM", "TSM", "NSM", "AM", "AS")
Variances = dict[tuple[str, float], Estimate]  # (loss, t): the variance, with its standard error


def under_optimum(world: World, times: tuple[float, ...], n: int, source: Generator) -> Variances:
    """E |T - u*|^2 under P*, where E[T | X_t] = u*.

    n paths end in exact draws of p* and are drawn backward with the base's noising kernels, which
    is P* on the grid.  The law of (X_t, X_1), so CSM, TSM, NSM and AS, is exact at any number of
    steps K; the lean adjoint of a base that is not Gaussian is O(1/K) from its limit."""
    base, variances = world.base, {}
    marks = _marks(base.steps, times)
    end = world.sample(n, source)
    slope = reward_and_grad(world.problem, end)[1]
    x, a = end, slope
    for k in reversed(range(min(marks), base.steps)):
        mean, std = base.backward(x, k)
        x = mean + std * normal(tuple(x.shape), source, x.dtype)
        a = base.pull_back(x, k, a)
        if k in marks:
            best = optimum(base, world.noised_score, k, x)
            for loss, aim in _aims(world, k, x, end, slope, a).items():
                variances[loss, marks[k]] = average((aim - best).square().sum(-1).cpu())
    return variances


@torch.no_grad()
def under_control(
    world: World, model: Controlled, times: tuple[float, ...], n: int, source: Generator
) -> Variances:
    """E |T - T'|^2 / 2 under P^u, T and T' of two continuations from the same X_t, independent of
    each other: E tr Cov(T | X_t) of the chain without bias, whatever the mean.

    X_t and the first continuation are one simulated path; the second forks off at every time.
    Adjoint matching is trained on these pairs (X_t, X_1).  The other losses re-noise X_1 with the
    base's kernel: that is this law at u* only."""
    base, variances = world.base, {}
    start = base.start((n, world.problem.dim), source, torch.float32)
    steer = model.on_grid(base.grid(start)[:-1])
    path = _onward(world, steer, start, 0, source)
    pulled = _adjoints(world, path, 0)
    for k, t in _marks(base.steps, times).items():
        fork = _onward(world, steer, path[k], k, source)
        first = path[k], path[-1], pulled[-1], pulled[k]
        other = _adjoints(world, fork, k)
        second = path[k], fork[-1], other[-1], other[0]
        one, two = (_aims(world, k, *(v.double() for v in each)) for each in (first, second))
        for loss in one:
            variances[loss, t] = average((one[loss] - two[loss]).square().sum(-1).cpu() / 2)
    return variances


def closed_forms(world: World, t: float, tau2: float, law: float) -> dict[str, float]:
    """The variances for a target N(m, tau2) and a base N(0, s^2) in one dimension, where X_1 has
    variance `law` and X_t is X_1 noised: tau2 under P*, s^2 at u = 0 (math.md 7)."""
    base, k = world.base, round(t * world.base.steps)
    alpha, beta, s2 = base.signals[k], base.noises[k], base.spread**2
    left = sigmas(base)[k] ** 2 / (1 / law + (alpha / beta) ** 2)
    pull = alpha * s2 / (alpha**2 * s2 + beta**2)
    shared = (pull * (1 / s2 - 1 / tau2)) ** 2 * left
    csm, tsm = (alpha / beta**2) ** 2 * left, left / (alpha * tau2) ** 2
    return dict(zip(LOSSES, (csm, tsm, shared, shared, shared), strict=True))


def _marks(steps: int, times: tuple[float, ...]) -> dict[int, float]:
    return {round(t * steps): t for t in times}


def _aims(
    world: World,
    k: int,
    x: Float[Tensor, "n d"],
    end: Float[Tensor, "n d"],
    slope: Float[Tensor, "n d"],
    a: Float[Tensor, "n d"],
) -> dict[str, Float[Tensor, "n d"]]:
    """The targets of all losses that the base admits."""
    aims = targets(world.base, k, x, end, slope) | {"AM": sigmas(world.base)[k] * a}
    return {loss: aims[loss] for loss in LOSSES if world.linear or loss != "AS"}


def _onward(world: World, steer: Stepper, x: Tensor, k: int, source: Generator) -> list[Tensor]:
    """X_k = x, ..., X_K of the controlled chain."""
    base, xs = world.base, [x]
    for j in range(k, base.steps):
        mean, std = base.base(xs[-1], j)
        u = (base.times[j + 1] - base.times[j]) ** 0.5 * steer(xs[-1], j, None)
        xs.append(mean + std * (u + normal(tuple(x.shape), source, x.dtype)))
    return xs


def _adjoints(world: World, xs: list[Tensor], k: int) -> list[Tensor]:
    """a_k, ..., a_K = grad r along xs = X_k, ..., X_K."""
    adjoints = [reward_and_grad(world.problem, xs[-1])[1]]
    for j in reversed(range(k, world.base.steps)):
        adjoints.append(world.base.pull_back(xs[j - k], j, adjoints[-1]))
    return adjoints[::-1]
