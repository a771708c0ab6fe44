"""Exploration: training paths whose noise is wider than the model's own.

A path of the control u is simulated by X_{k+1} | X_k ~ N(mean_k, (1 + e) std_k^2 I), the mean being
that of u and e >= 0 falling as the training goes on (arXiv 2402.05098).  Functionals that hold for
any law take such paths as they are.  Whatever weighs them needs the law P^sim that simulated, which
they carry as

    excess = log dP^sim/dP^u = sum_k e / (2 (1 + e)) |a_k|^2 - n K / 2 log(1 + e),
    a_k = (x_{k+1} - mean_k) / std_k in n dimensions,

so that E_sim[exp(r - log dP^u/dP^base - excess)] = Z exactly, at any number of steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.recipes.recipe import Recipe, guide
from tiltbench.targets.bases.process import Path, Process, simulate
from tiltbench.targets.problem import Problem


class Exploration(ABC):
    """How much wider the noise of training paths is; a frozen dataclass, `name` registers it."""

    name: ClassVar[str]

    @abstractmethod
    def at(self, share: float) -> float:
        """e >= 0 at the share of the training that is done."""

    @property
    @abstractmethod
    def explores(self) -> bool:
        """Whether e is ever above 0."""

    def simulate(
        self,
        recipe: Recipe,
        problem: Problem,
        model: Model,
        n: int,
        share: float,
        generator: Generator,
    ) -> Path:
        """n paths of the model along the recipe's chain, their noise wider while e is above 0."""
        if extra := self.at(share):
            return wider_paths(problem, model, n, extra, generator)
        return recipe.simulate(problem, model, n, generator)


MOST = 1e6  # a thousand times the model's own noise: squares of what lies farther overflow


@dataclass(frozen=True)
class OwnNoise(Exploration):
    """The model's own noise: paths are its own."""

    name: ClassVar[str] = "OwnNoise"

    def at(self, share: float) -> float:
        return 0.0

    @property
    def explores(self) -> bool:
        return False


@dataclass(frozen=True)
class Wider(Exploration):
    """Noise of variance std_k^2 (1 + e), e falling linearly from `extra` to 0.

    Where every step of the base has variance spread^2 / K, as Brownian[ratio=1] has, an `extra` of
    v K / spread^2 adds the variance v to each step at first."""

    name: ClassVar[str] = "Wider"
    extra: float = 0.5  # e at first
    until: float = 0.5  # the share of the training at which e has become 0

    def __post_init__(self) -> None:
        if not 0 < self.extra <= MOST:
            raise ValueError(f"extra is {self.extra}; it must be above 0 and at most {MOST:g}")
        if not 0 < self.until <= 1:
            raise ValueError(f"until is {self.until}; it must be above 0 and at most 1")

    def at(self, share: float) -> float:
        return self.extra * max(1 - share / self.until, 0.0)

    @property
    def explores(self) -> bool:
        return True


def wider_paths(problem: Problem, model: Model, n: int, extra: float, generator: Generator) -> Path:
    """n paths of the model on the base's own chain, its noise wider by `extra`, with `excess`."""
    shape, hint = (n, problem.dim), guide(problem, model)
    widened = math.sqrt(1 + extra)
    path = simulate(problem.base, model, shape, generator, hint, widened=widened)
    return replace(path, excess=excess(problem.base, path, extra))


@torch.no_grad()
def excess(process: Process, path: Path, extra: float) -> Float[Tensor, " *b"]:
    """log dP^sim/dP^u of each path, float64; u is `path.u` and P^sim its chain with noise of
    variance (1 + extra) std_k^2."""
    steps, dim = len(path.u), path.x.shape[-1] - process.removed
    lead = (-1, *[1] * (path.x.dim() - 1))
    std, root = path.std.reshape(lead), path.dt.sqrt().reshape(lead)
    away = (path.x[1:] - path.mean) / std - root * path.u
    squares = away.double().square().sum((0, -1))
    return extra / (2 * (1 + extra)) * squares - steps * dim / 2 * math.log1p(extra)
