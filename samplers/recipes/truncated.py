"""The base itself, with gradients through the last steps of a path only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.loss import Loss
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.recipes.recipe import Base, Recipe, guide
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import (
    Additive,
    Controlled,
    Path,
    Process,
    Stepper,
    simulate,
)
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, Reward


@dataclass(frozen=True)
class Truncated(Recipe):
    """The base itself, with gradients through the last `last` steps of a path only.

    For losses that differentiate through the path: the memory of the graph is that of `last` steps,
    and the price a bias, for controls at earlier times are neither asked for nor charged (DRaFT-K,
    arXiv 2309.17400).  `last` at or above the number of steps is `Base`.  Weights and draws are
    those of `Base`.  Raises Unsupported for losses that do not differentiate through the path.
    """

    name: ClassVar[str] = "Truncated"
    last: int = 10

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ValueError(f"last is {self.last}; it must be 1 or more")

    def process(self, problem: Problem, tamed: Reward) -> Process:
        return problem.base

    def simulate(self, problem: Problem, model: Model, n: int, generator: Generator) -> Path:
        assert isinstance(problem.base, Additive)
        from_step = max(problem.base.steps - self.last, 0)
        late = _Late(model, from_step)
        return simulate(problem.base, late, (n, problem.dim), generator, guide(problem, model))

    def retrace(
        self, problem: Problem, model: Model, x: Float[Tensor, "n d"], generator: Generator
    ) -> Path:
        return Base().retrace(problem, model, x, generator)

    def passing(self, problem: Problem, model: Model, x: Float[Tensor, "k1 n d"]) -> Path:
        return Base().passing(problem, model, x)

    def price(self, loss: Loss, paths: int, steps: int, guided: bool) -> Cost:
        if not loss.through_path:
            raise Unsupported(
                f"{loss.name} does not differentiate through the path, so there is nothing to "
                "truncate: leave recipe=Base"
            )
        return loss.price(paths, steps, guided)


class _Late(Controlled):
    """The model's control, a constant before step `from_step`."""

    def __init__(self, model: Model, from_step: int) -> None:
        self.model, self.from_step = model, from_step

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        return self.model.control(x, t, hint)

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        step = self.model.on_grid(t)

        def late(x: Tensor, k: int | Tensor, hint: Tensor | None) -> Tensor:
            assert isinstance(k, int)
            with torch.set_grad_enabled(torch.is_grad_enabled() and k >= self.from_step):
                return step(x, k, hint)

        return late
