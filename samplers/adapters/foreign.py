"""A sampler that is somebody else's code: it owns its loop, the suite owns the meter.

Sampler is `init`, `step`, `draw`; foreign code is one call that runs to its end.  It becomes steps
by being an iterator over what it hands over: a step goes on to the next hand-over, and what was
handed over last is what is drawn from when the budget is spent.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Generator, Tensor, randint

from tiltbench.samplers.adapters.density import LogDensity, Misuse
from tiltbench.samplers.adapters.handed import Handed
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.samplers.search import Search
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import BudgetExceeded, Cost
from tiltbench.targets.problem import Problem
from tiltbench.targets.settings import GENERATORS, SETTINGS, Setting, preserved, standard


class Running:
    """Foreign code in the midst of its work, with the settings and global generators it left.

    It draws from `random`, `numpy.random` and `torch` as it likes: these start from the run's own
    seed, and nobody else sees what it does to them.  A copy of a state shares it."""

    def __init__(self, work: Iterator[Handed], density: LogDensity, seed: int) -> None:
        self.work, self.density, self.seed = work, density, seed
        self.over = False
        self.settings: list[tuple[Setting, Any]] | None = None  # as it left them

    def __deepcopy__(self, memo: Any) -> Running:
        return self

    def advance(self) -> Handed | None:
        """What is handed over next; None at the end, or where the budget stopped it and it had
        nothing more to say.  Raises what an evaluation raised, whatever was made of it."""
        density = self.density
        try:
            handed = self._next()
        except Exception as error:
            self.over = True
            if density.trouble is not None and error is not density.trouble:
                raise density.trouble from error
            raise
        trouble = density.trouble
        if trouble is not None and not isinstance(trouble, BudgetExceeded):
            raise trouble  # the target's own fault, which the code kept to itself
        return handed

    def _next(self) -> Handed | None:
        with standard(self.seed) if self.settings is None else preserved():
            for setting, value in self.settings or ():
                setting.write(value)
            try:
                return next(self.work, None)
            finally:
                self.settings = [(s, s.read()) for s in (*SETTINGS, *GENERATORS)]

    def close(self) -> None:
        """Ends the code where it is."""
        if not self.over:
            self.over = True
            self.work.close()  # type: ignore[attr-defined]  # a generator


class State(NamedTuple):
    running: Running
    handed: Handed | None  # last
    over: bool


@dataclass(frozen=True)
class Foreign(Sampler[State]):
    """The part that functions and programs share; `begin` is theirs.

    All that it hands over is paid for in training, evaluations for weights included; drawing picks
    from it and costs nothing.  Operations are counted as far as they are PyTorch's, in the thread
    that runs the code.  A run cannot be resumed."""

    reference: ClassVar[Linear] = Brownian()  # type: ignore[misc]
    law: ClassVar[Search] = {}  # what `tune` may vary

    @abstractmethod
    def begin(self, density: LogDensity, generator: Generator) -> Iterator[Handed]:
        """A generator over what is handed over; it may raise BudgetExceeded out of `density`."""

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> State:
        density = LogDensity(self.name, problem, budget, generator)
        return State(Running(self.begin(density, generator), density, seed(generator)), None, False)

    def step(self, problem: Problem, state: State, generator: Generator) -> State:
        handed = state.running.advance()
        return State(state.running, handed or state.handed, handed is None)

    def done(self, state: State) -> bool:
        return state.over

    def draw(self, problem: Problem, state: State, n: int, generator: Generator) -> Draws:
        state.running.close()
        if state.handed is None:
            budget = state.running.density.budget
            raise Misuse(
                f"{self.name} had handed over no draws when its budget of {budget:,} calls was "
                "spent, or when it ended: spend no more than `budget`, or hand over draws on the "
                "way (a function yields them, a program sends them)"
            )
        draws = state.handed.draws(n, generator)
        return draws._replace(x=problem.base.project(draws.x))

    def search(self) -> Search:
        return self.law

    def tensors(self, state: State) -> dict[str, Tensor]:
        if state.handed is None:
            return {}
        x, log_w, _ = state.handed
        return {"x": x} if log_w is None else {"x": x, "log_w": log_w}


def seed(generator: Generator) -> int:
    """A seed for another library's generator."""
    return int(randint(2**31 - 1, (), generator=generator, device=generator.device))
