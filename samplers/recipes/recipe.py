"""Which chain a control steers: the base itself, or one made from the base and the reward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.loss import Loss, reward_and_grad
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.reference import Reference
from tiltbench.targets.bases.process import (
    Additive,
    Guide,
    Path,
    Process,
    passing,
    retrace,
    simulate,
)
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, Reward


class Recipe(ABC):
    """How paths are drawn, retraced and paid for; a frozen dataclass, `name` registers it."""

    name: ClassVar[str]

    @abstractmethod
    def process(self, problem: Problem, tamed: Reward) -> Process:
        """The chain to be weighed: E_u[exp(r(x_K) - log_ratio)] = Z.  `tamed` is the problem's own
        reward with its gradient clipped, for stability.  Raises Unsupported where the base does not
        serve."""

    def learned(self, loss: Loss, chain: Process, dim: int) -> Reference | None:
        """What is trained of the reference beside the control: nothing, as a rule.  Raises
        Unsupported for a loss that cannot train it."""
        return None

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates of its groups of parameters (`Model.reference_parameters`)."""
        return ()

    @abstractmethod
    def simulate(self, problem: Problem, model: Model, n: int, generator: Generator) -> Path:
        """n paths of the model; problem.base is the chain."""

    @abstractmethod
    def retrace(
        self, problem: Problem, model: Model, x: Float[Tensor, "n d"], generator: Generator
    ) -> Path | None:
        """Paths that end at x.  None: a path alone does not tell its weight."""

    def passing(self, problem: Problem, model: Model, x: Float[Tensor, "k1 n d"]) -> Path | None:
        """The given paths of the base's chain.  None: the model steers another chain."""
        return None

    def weighed(self, problem: Problem, model: Model, path: Path) -> Path:
        """The path with what its weight, and training on it as a rule not, has to be told besides
        what simulating finds: nothing, as a rule."""
        return path

    def groups(self, problem: Problem, path: Path) -> Int[Tensor, " n"] | None:
        """Which paths depend on one another.  None: none do."""
        return None

    @abstractmethod
    def price(self, loss: Loss, paths: int, steps: int, guided: bool) -> Cost:
        """Simulating and labelling, in all."""


@dataclass(frozen=True)
class Base(Recipe):
    """The problem's own base process."""

    name: ClassVar[str] = "Base"

    def process(self, problem: Problem, tamed: Reward) -> Process:
        return problem.base

    def simulate(self, problem: Problem, model: Model, n: int, generator: Generator) -> Path:
        assert isinstance(problem.base, Additive)
        return simulate(problem.base, model, (n, problem.dim), generator, guide(problem, model))

    def retrace(
        self, problem: Problem, model: Model, x: Float[Tensor, "n d"], generator: Generator
    ) -> Path:
        assert isinstance(problem.base, Additive)
        return retrace(problem.base, model, x, generator, guide(problem, model))

    def passing(self, problem: Problem, model: Model, x: Float[Tensor, "k1 n d"]) -> Path:
        return passing(problem.base, model, x, guide(problem, model))

    def price(self, loss: Loss, paths: int, steps: int, guided: bool) -> Cost:
        return loss.price(paths, steps, guided)


def guide(problem: Problem, model: Model) -> Guide | None:
    """The paid hint grad r(x) of a guided model."""
    return (lambda x: reward_and_grad(problem, x)[1]) if model.guided else None
