"""A sampler is `init`, `step`, `draw`; the harness owns the loop, the clock and the meter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar

from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.search import Search
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

if TYPE_CHECKING:
    from tiltbench.samplers.flows.probability_flow import ProbabilityFlow

State = TypeVar("State")


class Unsupported(Exception):
    """The method does not apply to the problem; one sentence says why."""


class Draws(NamedTuple):
    """What a sampler hands over, on any device; fewer than asked for is allowed and printed."""

    x: Float[Tensor, "n d"]
    log_w: Float[Tensor, " n"] | None = None
    # E[exp(log_w) f(x)] = Z E_p*[f]; None: the method has no weights
    group: Int[Tensor, " n"] | None = None
    # independent chain or island; every standard error resamples groups
    log_Z: Estimate | None = None  # the method's own


class Traced(NamedTuple):
    """Reverse paths, from given ends, and the control along them where there is one."""

    log_w: Float[Tensor, " n"]  # E[exp(-log_w)] = 1/Z from ends x ~ p*
    t: Float[Tensor, " k1"] | None = None
    x: Float[Tensor, "k1 n d"] | None = None
    u: Float[Tensor, "k n d"] | None = None


class Sampler(ABC, Generic[State]):
    """Stateless frozen dataclass; a class line `name = "..."` registers it.

    The harness calls `init` once, `step` until the budget is spent (the reward then raises
    BudgetExceeded, which a sampler lets pass) or `done`, and `draw` once with a fresh budget.
    Tensors live on the generator's device.  A state of plain data, and of records, modules and
    optimisers that `init` makes at the same places, can be saved between two steps, without graphs,
    and resumed; any other starts from the beginning after a kill (docs/running.md).
    """

    name: ClassVar[str]
    reference: Linear  # for densities; a Tilt brings its own base
    consistent: ClassVar[bool] = True
    # whether draws, weighted where they have weights, tend to p* as the budget grows; a baseline
    # that aims at another law says False, and its draws are held against nothing

    @abstractmethod
    def init(self, problem: Problem, budget: Cost, generator: Generator) -> State:
        """`budget` is what `step` may spend in all: to plan schedules and populations.

        Raises Unsupported where the method does not apply."""

    @abstractmethod
    def step(self, problem: Problem, state: State, generator: Generator) -> State:
        """One unit of work; the state handed in stays valid where the reward raises.

        Where operations are limited, a step dearer than any before may be stopped at any of them:
        it is drawn from as it then is."""

    def done(self, state: State) -> bool:
        """Whether more steps would change nothing."""
        return False

    def completed(self, state: State) -> float:
        """The part of the training that is done, in [0, 1], where the method plans its own end; 0
        where the budget alone says how far it is."""
        return 0.0

    @abstractmethod
    def draw(self, problem: Problem, state: State, n: int, generator: Generator) -> Draws: ...

    def reverse(
        self, problem: Problem, state: State, x: Float[Tensor, "n d"], generator: Generator
    ) -> Traced | None:
        """Paths that end at x ~ p*, with their weights.  None: there are no paths."""
        return None

    def along(
        self, problem: Problem, state: State, x: Float[Tensor, "k1 n d"], generator: Generator
    ) -> Traced | None:
        """The weights of given paths of the base's own chain, which end in x_K ~ p*.  None: the
        method moves along no such chain."""
        return None

    def flow(self, problem: Problem, state: State) -> ProbabilityFlow | None:
        """The ODE that carries noise to data by what was learned, whose draws have a density; its
        law is not that of `draw` where the two have other marginals.  None: the method has none."""
        return None

    def probe(self, problem: Problem, state: State, generator: Generator) -> dict[str, Tensor]:
        """Diagnostics on the measuring budget, stored with the draws (e.g. `gradient_gram`)."""
        return {}

    def search(self) -> Search:
        """What `tiltbench tune` may vary, and the law of each; nothing: it is never tuned."""
        return {}

    def diagnostics(self, state: State) -> dict[str, Tensor]:
        """Numbers of the last step for a log of the training, () each; asked for once in a thousand
        steps, where somebody logs."""
        return {}

    def tensors(self, state: State) -> dict[str, Tensor]:
        """What to keep of the final state, as named tensors (written as safetensors)."""
        return {}


class TrainingFree(Sampler[None]):
    """All it does is draw, and it spends nothing in training.  `init` raises Unsupported where the
    method does not apply."""

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> None:
        return None

    def step(self, problem: Problem, state: None, generator: Generator) -> None:
        return None

    def done(self, state: None) -> bool:
        return True
