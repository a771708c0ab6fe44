"""Replay: training on reverse paths from end points whose rewards are known.

A buffer keeps where paths have ended.  A batch of end points is chosen from it and every one traced
back by the base's own reversal, X_k | X_{k+1} (`Process.backward`): a path of a law that is not the
model's, on which functionals that hold for any law train for free (arXiv 2402.05098).  Modes that
were found once are not forgotten.  A local search may look for end points nearby; what it visits
goes into a buffer of its own, from which reverse paths start as soon as it holds any.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.behaviour.buffer import Buffer, by_rank, empty, evenly
from tiltbench.samplers.behaviour.local_search import LocalSearch, NoSearch, Walk
from tiltbench.samplers.classical._leapfrog import Points
from tiltbench.samplers.loss import hints
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.noising import Known
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

EndPoints = tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]  # points and their rewards


@dataclass
class Store:
    """What is kept from one iteration to the next."""

    seen: Buffer  # where paths have ended
    visited: Buffer | None  # what the local search has visited
    walk: Walk | None  # its chains


class Turn(NamedTuple):
    """What an iteration adds to the buffers: bought, and not yet written."""

    walk: Walk | None = None
    visited: list[Points] = []


class Replay(ABC):
    """What of the past is trained on again; a frozen dataclass, `name` registers it."""

    name: ClassVar[str]
    updates: int  # steps of the optimiser on replayed paths in an iteration; 0: nothing is kept

    @abstractmethod
    def begin(self, problem: Problem, paths: int, device: torch.device) -> Store | None:
        """Empty buffers.  Raises Unsupported where the base does not serve."""

    @abstractmethod
    def buy(self, problem: Problem, store: Store, steps_done: int, generator: Generator) -> Turn:
        """The local search of the iteration after `steps_done` others; nothing is written."""

    @abstractmethod
    def ends(self, problem: Problem, store: Store, n: int, generator: Generator) -> EndPoints:
        """n end points to trace paths back from, for nothing."""

    @abstractmethod
    def keep(self, store: Store | None, turn: Turn, fresh: EndPoints | None) -> None:
        """Writes what an iteration has bought: where its paths ended, what its search visited."""

    @abstractmethod
    def price(self, paths: int, steps: int, guided: bool, steps_done: int) -> Cost:
        """What `buy` pays, and the hints of guided controls along replayed paths: nothing in the
        first iteration, which has no buffer yet."""


@dataclass(frozen=True)
class NoReplay(Replay):
    """Fresh paths only."""

    name: ClassVar[str] = "NoReplay"

    @property
    def updates(self) -> int:  # type: ignore[override]
        return 0

    def begin(self, problem: Problem, paths: int, device: torch.device) -> None:
        return None

    def buy(self, problem: Problem, store: Store, steps_done: int, generator: Generator) -> Turn:
        return Turn()

    def ends(self, problem: Problem, store: Store, n: int, generator: Generator) -> EndPoints:
        raise TypeError("there is nothing to replay")

    def keep(self, store: Store | None, turn: Turn, fresh: EndPoints | None) -> None:
        return None

    def price(self, paths: int, steps: int, guided: bool, steps_done: int) -> Cost:
        return Cost()


@dataclass(frozen=True)
class Buffered(Replay):
    """What all replays share but the choice of end points."""

    capacity: int = 50_000  # end points in a buffer, the last ones
    updates: int = 1  # steps of the optimiser on replayed paths after those on fresh ones
    search: LocalSearch = NoSearch()  # for more end points, near those of paths

    def __post_init__(self) -> None:
        for name in ("capacity", "updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    def begin(self, problem: Problem, paths: int, device: torch.device) -> Store:
        if not isinstance(problem.base, Known):
            self._unknown(problem)
        seen = empty(self.capacity, problem.dim, device)
        if not self.search.searches:
            return Store(seen, None, None)
        visited = empty(self.capacity, problem.dim, device)
        return Store(seen, visited, self.search.begin(paths, problem.dim, device))

    def _unknown(self, problem: Problem) -> None:
        """A base whose density is not known."""
        if self.search.searches:
            raise Unsupported(
                "local search needs a base with a known density; "
                f"{type(problem.base).__name__} has none: leave search out"
            )

    @abstractmethod
    def choose(
        self, problem: Problem, buffer: Buffer, n: int, generator: Generator
    ) -> Int[Tensor, " n"]:
        """n places of the buffer."""

    def buy(self, problem: Problem, store: Store, steps_done: int, generator: Generator) -> Turn:
        if store.walk is None or steps_done == 0:
            return Turn(store.walk)
        chains = len(store.walk.at.r)

        def starts() -> Tensor:
            return store.seen.x[self.choose(problem, store.seen, chains, generator)]

        return Turn(*self.search.advance(problem, store.walk, starts, steps_done - 1, generator))

    def ends(self, problem: Problem, store: Store, n: int, generator: Generator) -> EndPoints:
        visited = store.visited
        buffer = visited if visited is not None and visited.written else store.seen
        return buffer.at(self.choose(problem, buffer, n, generator))

    def keep(self, store: Store | None, turn: Turn, fresh: EndPoints | None) -> None:
        assert store is not None and fresh is not None
        store.seen.write(*fresh)
        if store.visited is not None:
            store.walk = turn.walk
            for at in turn.visited:
                store.visited.write(at.x, at.r)

    def price(self, paths: int, steps: int, guided: bool, steps_done: int) -> Cost:
        if steps_done == 0:
            return Cost()
        traced = hints(self.updates * paths, steps, guided)
        return traced.plus(self.search.price(paths, steps_done - 1))


@dataclass(frozen=True)
class Unranked(Buffered):
    """End points chosen evenly."""

    name: ClassVar[str] = "Unranked"

    def choose(
        self, problem: Problem, buffer: Buffer, n: int, generator: Generator
    ) -> Int[Tensor, " n"]:
        return evenly(buffer, n, generator)


@dataclass(frozen=True)
class Ranked(Buffered):
    """End points of rank i among N by the target's density, with probability ~ 1 / (w0 N + i).

    Raises Unsupported where the base's density, a factor of the target's, is not known."""

    name: ClassVar[str] = "Ranked"
    w0: float = 1e-2  # the smaller, the more the best are preferred

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.w0 < math.inf:
            raise ValueError(
                f"w0 is {self.w0}; it must be positive and finite (replay=Unranked prefers none)"
            )

    def _unknown(self, problem: Problem) -> None:
        raise Unsupported(
            "ranks are those of the target's density, and the density of "
            f"{type(problem.base).__name__} is not known: use replay=Unranked"
        )

    def choose(
        self, problem: Problem, buffer: Buffer, n: int, generator: Generator
    ) -> Int[Tensor, " n"]:
        return by_rank(problem, buffer, self.w0, n, generator)
