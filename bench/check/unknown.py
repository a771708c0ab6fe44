"""A target whose truth has no exact draws: what can be tried of it all the same.

Points come from a few thousand steps of HMC (densities) or from the base, weighted by exp r
(tilts).  They are no truth: what is asked of them is coarse, and left out where they disagree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from tiltbench.check.findings import Finding, expect
from tiltbench.check.symmetries import Function
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.samplers.classical.hmc import Hmc
from tiltbench.samplers.weights import ess, resample
from tiltbench.targets.bases.noising import Known
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Density, Target, Tilt, Truth

POINTS = Cost(20_000, 20_000)
N = 2000
FEW = 100  # effective draws below which a weighted set says nothing of a spread
WITHIN = 1.3  # of each other: the rms coordinates of the parts of a set that agree
OFF = 2.0  # times: a scale that is further off than this is wrong


def without_draws(target: Target, f: Function) -> Iterator[Finding]:
    """Its statements, its scale and its score against f, log rho or the reward."""
    truth = target.truth()
    if truth.sample is not None:
        return
    x = _points(target)
    if x is None:
        yield Finding(True, "scale was not tried: no simple method reaches the target")
        x = target.scale * torch.randn(N, target.dim, generator=_source(2), dtype=torch.float64)
    else:
        yield _scale(target, x)
    yield from _observables(truth, x)
    yield from _modes(truth, x)
    if truth.noised_score is not None and isinstance(target, Density):
        few = x[:50].detach().requires_grad_()
        score = truth.noised_score(few.detach(), torch.ones(50), torch.zeros(50))
        yield expect(
            torch.allclose(
                score,
                torch.autograd.grad(f(few).sum(), few)[0],
                rtol=1e-5,
                atol=1e-5 / target.scale,
            ),
            "noised_score without noise is the score",
            "noised_score at signal 1, noise 0 is not the gradient of log p*",
            "it is grad log of the law of signal X + noise xi",
        )


def _points(target: Target) -> Tensor | None:
    """(N, dim), in an order in which any part is like any other where the method has mixed."""
    match target:
        case Density():
            return _chains(target)
        case Tilt(base=Known() as base):
            x = base.end((20 * N, target.dim), _source(3), torch.float64)
            log_w = target.reward(x).double()
            enough = bool(log_w.isfinite().any()) and ess(log_w) * len(x) > FEW
            return x[resample(log_w, N, _source(4))] if enough else None
    return None


def _chains(target: Density) -> Tensor | None:
    sampler, meter, g = Hmc(), Meter(POINTS), _source(5)
    problem = pose(target, sampler.reference, meter.watch)
    state = sampler.init(problem, POINTS, g)
    try:
        while not sampler.done(state):
            state = sampler.step(problem, state, g)
    except BudgetExceeded:
        pass
    x = sampler.draw(problem, state, N, g).x.double()
    return x if len(x) >= FEW and bool(x.isfinite().all()) else None


def _source(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _scale(target: Target, x: Tensor) -> Finding:
    parts = [_rms(target, part) for part in (*x.chunk(2), x[::2], x[1::2])]
    if max(parts) > WITHIN * min(parts):
        return Finding(True, "scale was not tried: trial draws do not agree on the rms coordinate")
    rms = _rms(target, x)
    return expect(
        rms / OFF <= target.scale <= rms * OFF,
        f"the rms coordinate of trial draws is {rms:.3g}, scale says {target.scale:.3g}",
        f"scale is {target.scale:.3g}, the rms coordinate of trial draws is {rms:.3g}",
        f"state scale = {rms:.2g}: references and step sizes start from it",
    )


def _rms(target: Target, x: Tensor) -> float:
    return float((x.square().sum(-1).mean() / target.rank).sqrt())


def _observables(truth: Truth, x: Tensor) -> Iterator[Finding]:
    for name, (f, mean, sd, se) in truth.observables.items():
        y = f(x)
        yield expect(
            y.shape == (len(x),) and bool(y.isfinite().all()),
            f"observable {name} is a number a point",
            f"observable {name} of (B, D) points has shape {tuple(y.shape)}, or is not finite",
            "let f map (B, D) to (B,)",
        )
        yield expect(
            math.isfinite(mean) and sd > 0 and se >= 0,
            f"observable {name} states {mean:.5g}, sd {sd:.3g}",
            f"observable {name} states a mean of {mean}, sd {sd}, se {se}",
            "state a finite mean, a positive sd of f(X), and se 0 where it is exact",
        )


def _modes(truth: Truth, x: Tensor) -> Iterator[Finding]:
    if truth.modes is None:
        return
    weight, cell = truth.modes.weight.double(), truth.modes.assign(x)
    sound = cell.shape == (len(x),) and 0 <= int(cell.min()) <= int(cell.max()) < len(weight)
    yield expect(
        bool(sound) and len(weight) <= 100 and abs(float(weight.sum()) - 1) < 1e-6,
        f"{len(weight)} cells whose masses sum to 1",
        f"{len(weight)} cells with masses that sum to {float(weight.sum()):.6g}, or points in none",
        "state at most 100 masses that sum to 1, and assign indices below their number",
    )
