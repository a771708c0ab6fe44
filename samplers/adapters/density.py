"""The density that foreign code is given: log rho and its gradient at points, under the meter."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.loss import reward_and_grad
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.noising import Known
from tiltbench.targets.cost import BudgetExceeded, Cost
from tiltbench.targets.problem import Problem

FAR = 1e8  # in rms coordinates: p* beyond is taken as zero, so that no trajectory overflows


class Misuse(Exception):
    """Foreign code did not do what was agreed; one sentence says what, and the remedy."""


class LogDensity:
    """log rho(x) of a density, log p_base(x) + r(x) of a tilt, nats; Z is its integral.

    A value costs a value, a gradient a value and a gradient, as everywhere.  Points that are not
    finite, or farther out than 1e8 rms coordinates, have log density -inf and gradient 0, and cost
    the same.  Of particles the law lives on configurations without a centre of mass, Px = x: the
    rest of x is given an independent normal law N(0, scale^2), so that there is a density on R^dim
    with the same Z, whose draws x become draws Px of p*.

    Raises Unsupported where the base of a tilt has no known density.  The first exception of an
    evaluation is kept in `trouble`: the caller may wrap it in another or swallow it."""

    def __init__(self, name: str, problem: Problem, budget: Cost, generator: Generator) -> None:
        if not isinstance(problem.base, Known):
            raise Unsupported(
                f"{name} asks for a density, and {type(problem.base).__name__}, the base of this "
                "target, is known only through its paths: use a learned sampler"
            )
        self.name, self.problem, self.base = name, problem, problem.base
        self.dim, self.budget, self.device = problem.dim, min(budget), generator.device
        self.scale = self.base.spread  # rms coordinate: public, the same for every method
        self.trouble: Exception | None = None
        source = Generator(self.device).manual_seed(0)
        self._somewhere = self.base.end((self.dim,), source, torch.float64)

    def value(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """log rho, differentiable in x where autograd is on."""
        try:
            self._clock()
            inside, at = self._inside(x)
            near = self.base.project(at)
            y = self.problem.reward(near) + self.base.log_end(near)
            return torch.where(inside, y + self._rest(at - near), -torch.inf)
        except Exception as error:
            self._met(error)
            raise

    @torch.no_grad()
    def both(self, x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
        """log rho (*b) and its gradient (*b, d), neither with a graph."""
        try:
            self._clock()
            inside, at = self._inside(x.detach())
            near = self.base.project(at)
            r, g = reward_and_grad(self.problem, near)
            y = r + self.base.log_end(near) + self._rest(at - near)
            g = g + self.base.score(near, self.base.steps) - (at - near) / self.scale**2
            inside = inside & (y > -torch.inf)
            return torch.where(inside, y, -torch.inf), torch.where(inside[..., None], g, 0.0)
        except Exception as error:
            self._met(error)
            raise

    def _inside(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(whether the density is asked there, where it is asked: it is paid for in any case)."""
        inside = x.detach().square().mean(-1) < (FAR * self.scale) ** 2  # False where x is NaN
        return inside, torch.where(inside[..., None], x, self._somewhere.to(x))

    def _rest(self, x: Tensor) -> Tensor | float:
        """log N(x - Px; 0, scale^2) on what the base leaves out; 0 where that is nothing."""
        removed, s = self.base.removed, self.scale
        if not removed:
            return 0.0
        return x.square().sum(-1) / (-2 * s * s) - removed * math.log(s * math.sqrt(2 * math.pi))

    def _clock(self) -> None:
        """Training may end by operations or seconds, which nobody reads within one long step."""
        if self.problem.share() >= 1.0:
            raise BudgetExceeded("training is over: its calls, operations or seconds are spent")

    def _met(self, error: Exception) -> None:
        if self.trouble is None:
            self.trouble = error

    def points(self, x: Any, kind: str) -> None:
        """Raises Misuse unless the array or tensor x, (*b, dim), holds points."""
        shape = tuple(x.shape)
        if not shape or shape[-1] != self.dim:
            raise Misuse(
                f"{self.name} asks for log_prob at x of shape {shape}; it takes points of "
                f"{self.dim} coordinates, ({self.dim},) or (n, {self.dim}): the last dimension is "
                f"that of {kind}"
            )
