"""The one training loop: any loss, any process.

A step simulates and labels paths, then learns from them (`samplers.learning`); draws are those of
the control that was learned (`samplers.drawing`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.behaviour.exploration import Exploration, OwnNoise
from tiltbench.samplers.behaviour.replay import EndPoints, NoReplay, Replay, Turn
from tiltbench.samplers.drawing import sample, traced
from tiltbench.samplers.flows.probability_flow import ProbabilityFlow
from tiltbench.samplers.learning import Learning, Trained
from tiltbench.samplers.loss import Batch, Loss
from tiltbench.samplers.networks.model import Model, Network
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.recipes.recipe import Base, Recipe
from tiltbench.samplers.recipes.tamed import tamed
from tiltbench.samplers.recipes.truncated import Truncated
from tiltbench.samplers.sampler import Draws, Sampler, Traced
from tiltbench.samplers.search import LogUniform, Search
from tiltbench.samplers.tempering import growing, marked, present
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Path
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

FULL_TILT = 0.5
LEAST_TILT = 1e-6  # of rewards in float32
FASTEST = 1e6  # a learning rate: what no parameter of order one survives


@dataclass(frozen=True)
class Diffusion(Sampler[Trained]):
    """A control trained with `loss` on paths simulated by itself, along the chain of `recipe`.

    Every step simulates and labels `paths` paths (paying loss.price), keeps the last `memory`
    batches, and takes `repeats` optimiser steps, each on a batch drawn from the kept ones.  Adam,
    learning rate lr cos(pi/2 share) with `share` the part of the training done: of `batches`
    steps, after which training ends, or of the budget, whichever is further.  `explore` widens
    the noise of these paths, and `replay` traces others back from where earlier ones have ended,
    for further steps of the optimiser; both need a loss that takes paths of any law.  Gradients are
    clipped to norm `clip`.  grad r is clipped to length `steepest` sqrt(D) / spread wherever a loss
    or a guided control sees it: one point far out must not throw the control out after it.

    With `average` > 0 what is drawn from, retraced, stored and probed is the exponential moving
    average of the weights, of that decay a step of the optimiser; training paths are simulated by
    the weights themselves (`Average`).

    With `start_tilt` < 1 training sees the tilt lambda r, lambda growing linearly from `start_tilt`
    to 1 when the part `full_tilt` of it is done: values, gradients, hints and weights are those of
    p_base exp(lambda r).  Kept batches of path weights are taken to the present lambda; what a
    regression has resampled or regressed on stays at its own, at most `memory` steps old.  Draws,
    retraced paths and probes are of r.
    """

    name: ClassVar[str] = "diffusion"
    loss: Loss
    reference: Linear = Brownian()  # the base process of a density; a tilt brings its own
    recipe: Recipe = Base()  # the chain that paths follow
    model: Network = Mlp()  # the control
    paths: int = 128  # simulated and labelled in a step
    batches: int = 0  # steps of training, for its learning rate; 0: as many as can be paid
    repeats: int = 1  # optimiser steps after each batch, each on one of the kept batches
    memory: int = 1  # batches kept
    explore: Exploration = OwnNoise()  # the noise of simulated paths
    replay: Replay = NoReplay()  # what of the past is trained on again
    lr: float = 3e-3  # of Adam, falling as a cosine
    lr_log_Z: float = 0.05  # of log Z where a loss learns it
    clip: float = 1.0
    steepest: float = 20.0
    average: float = 0.0  # decay of the averaged weights a step of the optimiser; 0: not averaged
    start_tilt: float = 1.0  # lambda at the start of training; 1: all of r from the start
    full_tilt: float = FULL_TILT  # the part of the training after which it is 1

    def __post_init__(self) -> None:
        for name in ("paths", "repeats", "memory", "lr", "clip", "steepest"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive and finite")
        if self.paths < 2:
            raise ValueError("paths is 1; a batch needs two or more")
        if self.batches < 0:
            raise ValueError(f"batches is {self.batches}; write 0 for as many as can be paid")
        if not 0 <= self.average < 1:
            raise ValueError(
                f"average is {self.average}; it is a decay, such as 0.99, below 1, or 0 for none"
            )
        for name, least in (("lr", "above"), ("lr_log_Z", "at least")):
            if not 0 <= getattr(self, name) <= FASTEST:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be {least} 0 and at most {FASTEST:g}"
                )
        for name in ("start_tilt", "full_tilt"):
            if not LEAST_TILT <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be from {LEAST_TILT:g} to 1"
                )
        if self.start_tilt == 1 and self.full_tilt != FULL_TILT:
            raise ValueError(
                f"full_tilt is {self.full_tilt}, but training sees all of r from the start: "
                "set start_tilt below 1, or leave full_tilt out"
            )
        self._suits()
        if self.loss.staged and self.start_tilt < 1:
            raise ValueError(
                f"{self.loss.name} climbs a ladder of tilts of its own: leave start_tilt at 1"
            )
        if self.loss.through_path and (self.repeats, self.memory) != (1, 1):
            raise ValueError(
                f"{self.loss.name} differentiates through the simulation, whose graph serves once: "
                "leave repeats and memory at 1"
            )

    def init(self, problem: Problem, budget: Cost, generator: Generator) -> Trained:
        posed, device = self.posed(problem), generator.device
        model = self.model.build(problem.dim, posed.base, generator)
        model.reference = self.recipe.learned(self.loss, posed.base, problem.dim)
        if self.loss.needs:
            model.part(self.loss.needs)  # raises where there is none
        model.to(device)
        store = self.replay.begin(posed, self.paths, device)
        return self.learning.begin(model, budget, store)

    def _suits(self) -> None:
        """Raises ValueError where the loss or the recipe takes none but the model's own paths, and
        where a flow would be built that nothing trains."""
        remedy = "leave explore and replay out"
        if (self.explore.explores or self.replay.updates) and not isinstance(self.recipe, Base):
            raise ValueError(f"explore and replay follow the base's own chain: {remedy}")
        if self.explore.explores and not self.loss.any_law:
            raise ValueError(f"{self.loss.name} is right for the model's own paths only: {remedy}")
        if self.replay.updates and self.loss.given is None:
            raise ValueError(f"{self.loss.name} cannot train on replayed paths: {remedy}")
        if self.model.flows and self.loss.needs != "flow":
            raise ValueError(
                f"{self.loss.name} learns no flow, which model={self.model.name} has beside its "
                "control: use model=Mlp or another control alone"
            )

    @property
    def learning(self) -> Learning:
        return Learning((self.lr, self.lr_log_Z, *self.recipe.rates), self.clip, self.average)

    def posed(self, problem: Problem, tilt: float = 1.0) -> Problem:
        """The problem of tilt r on the recipe's chain, with grad r clipped."""
        return tamed(problem, self.recipe, tilt, self.steepest)

    def step(self, problem: Problem, state: Trained, generator: Generator) -> Trained:
        share, steps_done = self.share(problem, state), self.steps_done(state)
        tilt = self.tilt(share)
        posed = self.posed(problem, tilt)
        with posed.checks.together():  # raises before anything changes
            batch, ends = self._fresh(problem, posed, state, share, generator)
            turn, replayed = self._replayed(problem, posed, state, share, generator)
            if self.start_tilt < 1:
                batch = marked(batch, tilt)
            ring = [*state.ring, batch][-self.memory :]
            fresh_updates = self._each - len(replayed)  # at first there is nothing to replay
            chosen: Sequence[int] = [0] * fresh_updates
            if len(ring) > 1:
                choice = torch.randint(
                    len(ring), (fresh_updates,), generator=generator, device=generator.device
                )
                chosen = posed.checks.also(choice)
        self.learning.slow_down(state, share)
        with posed.checks.together():
            for batch in (*(ring[i] for i in chosen), *replayed):
                now = present(self.loss, posed.base, batch, tilt)
                self.learning.step(state, self.loss, posed, now, generator)
        self.replay.keep(state.store, turn, ends)
        state.ring, state.paid = ring, state.paid.plus(self.price(problem, state.model, steps_done))
        return state

    def _fresh(
        self, problem: Problem, posed: Problem, state: Trained, share: float, generator: Generator
    ) -> tuple[Batch, EndPoints | None]:
        """A batch of fresh paths, with where they end if that is kept."""
        if self.loss.given is None or state.store is None:
            return self.bought(posed, state.model, share, generator), None
        path = self._path(posed, state.model, share, generator)
        with torch.no_grad():
            r = problem.reward(path.x[-1])  # the buffers are of r, whatever its share by now
        batch = self.loss.given(posed, state.model, path, self.tilt(share) * r, share)
        return batch, (path.x[-1], r)

    @torch.no_grad()
    def _replayed(
        self, problem: Problem, posed: Problem, state: Trained, share: float, generator: Generator
    ) -> tuple[Turn, list[Batch]]:
        """What is bought for the buffers, and batches of reverse paths from them."""
        store, steps_done, batches = state.store, self.steps_done(state), []
        if store is None or self.loss.given is None:
            return Turn(), []
        whole = self.posed(problem)
        turn = self.replay.buy(whole, store, steps_done, generator)
        for _ in range(self.replay.updates if steps_done else 0):
            x, r = self.replay.ends(whole, store, self.paths, generator)
            path = self.recipe.retrace(posed, state.model, x, generator)
            assert path is not None  # a replay is of the base's own chain
            batches.append(self.loss.given(posed, state.model, path, self.tilt(share) * r, share))
        return turn, batches

    def batch(self, problem: Problem, model: Model, share: float, generator: Generator) -> Batch:
        """Fresh paths of the model on a problem as it is given, simulated and labelled."""
        return self.bought(self.posed(problem, self.tilt(share)), model, share, generator)

    def bought(self, posed: Problem, model: Model, share: float, generator: Generator) -> Batch:
        """The same on a problem that is `posed` already."""
        if self.loss.pulls_back:
            posed = replace(posed, base=posed.base.remembering())
        path = self._path(posed, model, share, generator)
        return self.loss.label(posed, model, path, share, generator)

    def _path(self, posed: Problem, model: Model, share: float, generator: Generator) -> Path:
        """Fresh paths, with more noise than the model's own while it explores."""
        behaviour = self.loss.behaviour(model)
        with torch.set_grad_enabled(self.loss.through_path):
            return self.explore.simulate(
                self.recipe, posed, behaviour, self.paths, share, generator
            )

    def tilt(self, share: float) -> float:
        """lambda when `share` of the training is done."""
        return growing(share, self.start_tilt, self.full_tilt)

    def share(self, problem: Problem, state: Trained) -> float:
        """The part of the training that is done, in [0, 1]: by its steps where `batches` says how
        many there are, or by what is spent, whichever is further."""
        paid = 0.0 if self.batches else state.paid.share(state.budget)
        return min(max(self.completed(state), paid, problem.share()), 1.0)

    def done(self, state: Trained) -> bool:
        return self.completed(state) >= 1

    def completed(self, state: Trained) -> float:
        return state.iteration / (self._each * self.batches) if self.batches else 0.0

    @property
    def _each(self) -> int:
        """Steps of the optimiser in a step."""
        return self.repeats + self.replay.updates

    def steps_done(self, state: Trained) -> int:
        """Steps that have been made."""
        return state.iteration // self._each

    def price(self, problem: Problem, model: Model, steps_done: int = 0) -> Cost:
        """Of the step after `steps_done` others."""
        steps = problem.base.steps
        fresh = self.recipe.price(self.loss, self.paths, steps, model.guided)
        return fresh.plus(self.replay.price(self.paths, steps, model.guided, steps_done))

    def draw(self, problem: Problem, state: Trained, n: int, generator: Generator) -> Draws:
        model = state.shown()
        draws = sample(self.posed(problem), self.recipe, model, n, generator)
        if not self.loss.learns_log_Z:
            return draws
        log_Z = float(model.log_Z.detach())  # a parameter comes with no standard error
        return draws._replace(log_Z=Estimate(log_Z, math.nan, state.iteration))

    def reverse(
        self, problem: Problem, state: Trained, x: Float[Tensor, "n d"], generator: Generator
    ) -> Traced | None:
        posed, model = self.posed(problem), state.shown()

        def paths(x: Tensor) -> Path | None:
            return self.recipe.retrace(posed, model, x, generator)

        return traced(posed, self.recipe, model, x, paths)

    def along(
        self, problem: Problem, state: Trained, x: Float[Tensor, "k1 n d"], generator: Generator
    ) -> Traced | None:
        posed, model = self.posed(problem), state.shown()

        def paths(x: Tensor) -> Path | None:
            return self.recipe.passing(posed, model, x)

        return traced(posed, self.recipe, model, x, paths)

    def flow(self, problem: Problem, state: Trained) -> ProbabilityFlow | None:
        """That of the base displaced by the control.  None where the control steers another chain
        than the base's own."""
        if not isinstance(self.recipe, Base | Truncated):
            return None
        return state.shown().network.probability_flow(problem.base, problem.dim)

    def probe(self, problem: Problem, state: Trained, generator: Generator) -> dict[str, Tensor]:
        """`gradient_gram`: (M, M), the Gram matrix of M = 32 fresh mini-batch gradients."""
        posed, model = self.posed(problem), state.shown()
        rows = [self.gradient(posed, model, 1.0, generator) for _ in range(GRADIENTS)]
        matrix = torch.stack(rows)
        return {"gradient_gram": matrix @ matrix.T}

    def gradient(
        self, posed: Problem, model: Model, share: float, generator: Generator
    ) -> Float[Tensor, " p"]:
        """The gradient of a fresh mini-batch by the parameters that the loss and the control share,
        float64; what only F(t) depends on is left out."""
        batch = self.bought(posed, model, share, generator)
        value = self.loss.value(model, posed.base, batch, generator)
        parameters = list(model.control_parameters())
        grads = torch.autograd.grad(value, parameters, allow_unused=True)
        return torch.cat([g.flatten().double() for g in grads if g is not None])

    def search(self) -> Search:
        """On a tilt, whose base brings its own steps, those of the reference change nothing."""
        laws: dict[str, LogUniform] = {"lr": LogUniform(3e-4, 3e-2), "paths": LogUniform(32, 512)}
        if not self.loss.through_path:
            laws |= {"repeats": LogUniform(1, 16), "memory": LogUniform(1, 32)}
        if any(part.name == "steps" for part in fields(cast(Any, self.reference))):
            laws["reference.steps"] = LogUniform(16, 64)
        return laws

    def diagnostics(self, state: Trained) -> dict[str, Tensor]:
        """`loss` of the last step of the optimiser, `lr` and `log_Z` as the model holds it."""
        lr = torch.as_tensor(state.optimizer.param_groups[0]["lr"])
        numbers = {"loss": state.loss, "lr": lr, "log_Z": state.model.log_Z.detach()}
        return {name: value for name, value in numbers.items() if value is not None}

    def tensors(self, state: Trained) -> dict[str, Tensor]:
        state_dict = state.shown().state_dict()  # with what is no tensor: the model's extra state
        return {key: value for key, value in state_dict.items() if isinstance(value, Tensor)}


class Preset(NamedTuple):
    """A sampler under a name of its own; parameters given to the name vary it."""

    name: str
    sampler: Diffusion


GRADIENTS = 32  # mini-batches of the gradient-variance probe
