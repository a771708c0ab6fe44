"""Draws that fail in one known way, and what would hand them over."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metric import Outcome
from tiltbench.plan.spec import build_sampler
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Target, Truth

SHRINK = 0.9
SHARE = 0.02  # of the draws that are spoilt
NATS = 5.0  # by which wrong weights are off
EXACT = "exact draws"
Draw = Float[Tensor, "n d"]


class World(NamedTuple):
    """A target, its truth, n exact draws and a source of noise."""

    target: Target
    truth: Truth
    exact: Draw
    source: Generator

    @property
    def log_Z(self) -> float:
        assert self.truth.log_Z is not None
        return self.truth.log_Z

    def fresh(self) -> Draw:
        """As many others."""
        assert self.truth.sample is not None
        return self.truth.sample(len(self.exact), self.source).double()

    def modes(self, x: Draw) -> Tensor:
        assert self.truth.modes is not None
        return self.truth.modes.assign(x).long()


def exact(world: World) -> Outcome:
    """Exact draws with exact weights."""
    flat = torch.full((len(world.exact),), world.log_Z, dtype=torch.float64)
    return Outcome(Draws(world.exact, flat), flat, {})


def lost_mode(world: World) -> Outcome:
    """p* without its largest mode; the weights are right where it goes, Z (1 - the mode's mass),
    and the reverse ones of draws of the lost mode are infinite, here exp 30."""
    modes = world.truth.modes
    assert modes is not None
    lost = int(modes.weight.argmax())
    share = float(modes.weight[lost])
    pool = torch.cat([world.exact, world.fresh()])
    kept = pool[world.modes(pool) != lost][: len(world.exact)]
    inside = world.log_Z + math.log1p(-share)
    flat = torch.full((len(kept),), inside, dtype=torch.float64)
    away = (world.modes(world.fresh()) == lost).double()
    return Outcome(Draws(kept, flat), inside + 30 * away, {})


def blob(world: World) -> Outcome:
    """A Gaussian with the mean and covariance of exact draws, without weights."""
    x = world.fresh()
    mean, cov = x.mean(0), x.T.cov()
    size, axes = torch.linalg.eigh(cov)
    noise = torch.randn(x.shape, generator=world.source, dtype=torch.float64)
    return _plain(mean + (noise * size.clamp(min=0).sqrt()) @ axes.T)


def contracted(world: World) -> Outcome:
    """All draws drawn in by a tenth about their mean."""
    x = world.exact
    return _plain(x.mean(0) + SHRINK * (x - x.mean(0)))


def contracted_modes(world: World) -> Outcome:
    """Every mode's draws drawn in by a tenth about that mode's mean."""
    x, mode = world.exact.clone(), world.modes(world.exact)
    for m in mode.unique():
        inside = mode == m
        x[inside] = x[inside].mean(0) + SHRINK * (x[inside] - x[inside].mean(0))
    return _plain(x)


def outliers(world: World) -> Outcome:
    """One draw in fifty ten times as far out."""
    x = world.exact.clone()
    few = int(SHARE * len(x))
    x[:few] = x.mean(0) + 10 * (x[:few] - x.mean(0))
    return _plain(x)


def overlapping(world: World) -> Outcome:
    """In one draw in fifty the second particle sits on the first, a hundredth of their distance
    away."""
    assert world.target.particles is not None
    k, d = world.target.particles
    x = world.exact.clone().unflatten(-1, (k, d))
    few = int(SHARE * len(x))
    x[:few, 1] = x[:few, 0] + 0.01 * (x[:few, 1] - x[:few, 0])
    x = x - x.mean(1, keepdim=True)
    return _plain(x.flatten(1))


def noisy(world: World) -> Outcome:
    """Exact draws with noise of a fifth of the rms coordinate and weights to match: the distance
    hardly sees it, energies and log Z do."""
    x = world.exact
    scale = 0.2 * float((x - x.mean(0)).square().mean().sqrt())
    wide = x + scale * torch.randn(x.shape, generator=world.source, dtype=torch.float64)
    low = torch.full((len(x),), world.log_Z - 27.0, dtype=torch.float64)
    return Outcome(Draws(world.target.project(wide), low), low + 48.0, {})


def shifted_weights(world: World) -> Outcome:
    """Exact draws, every weight e^5 too large."""
    flat = torch.full((len(world.exact),), world.log_Z + NATS, dtype=torch.float64)
    return Outcome(Draws(world.exact, flat), flat, {})


def heavy_weights(world: World) -> Outcome:
    """Exact draws, log-weights with Student's noise of two degrees of freedom, times 3."""
    n = len(world.exact)
    a, b, c = torch.randn(3, n, generator=world.source, dtype=torch.float64)
    noise = 3 * a / ((b**2 + c**2) / 2).sqrt()
    return Outcome(Draws(world.exact, world.log_Z + noise), None, {})


def base(world: World) -> Outcome:
    """The untrained base itself."""
    sampler = build_sampler({"name": "untrained", "params": {}})
    problem = pose(world.target, sampler.reference)
    draws = sampler.draw(problem, None, len(world.exact), world.source)
    reverse = sampler.reverse(problem, None, world.fresh(), world.source)
    assert reverse is not None
    return Outcome(draws._replace(x=draws.x.double()), reverse.log_w, {})


def _plain(x: Draw) -> Outcome:
    """Draws of a method without weights."""
    return Outcome(Draws(x), None, {})


CASES: dict[str, Callable[[World], Outcome]] = {
    EXACT: exact,
    "one mode lost": lost_mode,
    "Gaussian blob": blob,
    "contracted": contracted,
    "contracted modes": contracted_modes,
    "outliers": outliers,
    "overlapping particles": overlapping,
    "noise, log Z off by 27": noisy,
    "weights off by 5 nats": shifted_weights,
    "heavy-tailed weights": heavy_weights,
    "untrained": base,
}


def planted(target: Target, n: int, seed: int) -> dict[str, Outcome]:
    """Every case that the target admits, of n draws each."""
    truth = target.truth()
    assert truth.sample is not None
    outcomes = {}
    for number, (name, plant) in enumerate(CASES.items()):
        if plant in (lost_mode, contracted_modes) and truth.modes is None:
            continue
        if plant is overlapping and target.particles is None:
            continue
        source = Generator().manual_seed(1000 * seed + number)
        outcomes[name] = plant(World(target, truth, truth.sample(n, source).double(), source))
    return outcomes
