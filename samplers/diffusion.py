"""The one training loop: any loss, any process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.average import Average
from tiltbench.samplers.behaviour.exploration import Exploration, OwnNoise, wider_paths
from tiltbench.samplers.behaviour.replay import Ends, NoReplay, Replay, Store, Turn, keep
from tiltbench.samplers.loss import Batch, Loss
from tiltbench.samplers.networks.model import Model, Network
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.recipes.recipe import Base, Recipe
from tiltbench.samplers.sampler import Draws, Sampler, Traced, Unsupported
from tiltbench.samplers.search import LogUniform, Search
from tiltbench.samplers.tempering import growing, marked, present, tempered
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Path
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.checks import Diverged
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Graded, Problem, graded, log_weight
from tiltbench.targets.purity import unchanged

CHUNK = 2048  # paths simulated `at_once` when drawing: bounds the memory


@dataclass
class Trained:
    """Parameters, optimiser moments, the ring of labelled batches, what has been paid, and the
    buffers of a replay where there is one."""

    model: Model
    optimizer: torch.optim.Optimizer
    allowance: Cost
    ring: list[Batch] = field(default_factory=list)
    paid: Cost = Cost()
    iteration: int = 0  # of the optimiser
    store: Store | None = None
    average: Average | None = None  # of the weights, where there is one
    loss: Tensor | None = None  # () of the last step of the optimiser


@dataclass(frozen=True)
class Diffusion(Sampler[Trained]):
    """A control trained with `loss` on paths simulated by itself, along the chain of `recipe`.

    Every step simulates and labels `paths` paths (paying loss.price), keeps the last `memory`
    batches, and takes `repeats` optimiser steps, each on a batch drawn from the kept ones.  Adam,
    learning rate lr cos(pi/2 share) with `share` the part of the training done: of `batches`
    steps, after which training ends, or of the allowance, whichever is further.  `explore` widens
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
    full_tilt: float = 0.5  # the part of the training after which it is 1

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
        for name in ("start_tilt", "full_tilt"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0, at most 1")
        if self.loss.staged and self.start_tilt < 1:
            raise ValueError(
                f"{self.loss.name} climbs a ladder of tilts of its own: leave start_tilt at 1"
            )
        if self.loss.through_path and (self.repeats, self.memory) != (1, 1):
            raise ValueError(
                f"{self.loss.name} differentiates through the simulation, whose graph serves once: "
                "leave repeats and memory at 1"
            )

    def init(self, problem: Problem, allowance: Cost, generator: Generator) -> Trained:
        self._suits()
        posed, device = self.posed(problem), generator.device
        model = self.model.build(problem.dim, posed.base, generator)
        model.reference = self.recipe.learned(self.loss, posed.base, problem.dim)
        model.to(device)
        groups = zip(
            (
                model.control_parameters(),
                model.free_energy_parameters(),
                *model.reference_parameters(),
            ),
            self.rates,
            strict=True,
        )
        # on a GPU the rate of every step must reach a captured graph
        optimizer = torch.optim.Adam(
            [{"params": list(ps), "lr": torch.tensor(lr, device=device)} for ps, lr in groups],
            fused=True,
            capturable=device.type == "cuda",
        )
        store = self.replay.begin(posed, self.paths, device)
        average = Average(model) if self.average else None
        return Trained(model, optimizer, allowance, store=store, average=average)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates of the optimiser's groups, at the start of training."""
        return self.lr, self.lr_log_Z, *self.recipe.rates

    def _suits(self) -> None:
        """Raises Unsupported where the loss or the recipe takes none but the model's own paths."""
        own = "leave explore and replay out"
        if (self.explore.explores or self.replay.updates) and not isinstance(self.recipe, Base):
            raise Unsupported(f"explore and replay follow the base's own chain: {own}")
        if self.explore.explores and not self.loss.any_law:
            raise Unsupported(f"{self.loss.name} is right for the model's own paths only: {own}")
        if self.replay.updates and self.loss.given is None:
            raise Unsupported(f"{self.loss.name} cannot train on replayed paths: {own}")

    def step(self, problem: Problem, state: Trained, generator: Generator) -> Trained:
        share = self.share(problem, state)
        tilt = self.tilt(share)
        posed = self.posed(problem, tilt)
        made = self.made(state)
        kept = min(len(state.ring) + 1, self.memory)
        with posed.checks.together():  # raises before anything changes
            batch, ends = self._fresh(posed, state, share, generator)
            turn, replayed = self._replayed(problem, state, share, generator)
            own = self._each - len(replayed)  # at first there is nothing to replay
            choices = posed.checks.also(_choices(own, kept, generator)) if kept > 1 else None
        if self.start_tilt < 1:
            batch = marked(batch, tilt)
        ring = [*state.ring, batch][-self.memory :]
        for group, lr in zip(state.optimizer.param_groups, self.rates, strict=True):
            group["lr"].fill_(lr * math.cos(math.pi / 2 * share))
        with posed.checks.together():
            for choice in choices or [0] * own:
                now = present(self.loss, posed.base, ring[choice], tilt)
                self._improve(state, posed, now, generator)
            for other in replayed:
                self._improve(state, posed, other, generator)
        if state.store is not None and ends is not None:
            keep(state.store, turn, ends)
        state.ring, state.paid = ring, state.paid.plus(self.price(problem, state.model, made))
        return state

    def _fresh(
        self, posed: Problem, state: Trained, share: float, generator: Generator
    ) -> tuple[Batch, Ends | None]:
        """A batch of fresh paths, with where they end if that is kept."""
        if self.loss.given is None or state.store is None:
            return self.bought(posed, state.model, share, generator), None
        path = self._path(posed, state.model, share, generator)
        with torch.no_grad():
            r = posed.reward(path.x[-1])
        ends = path.x[-1], r / self.tilt(share)  # the buffers are of r, whatever its share by now
        return self.loss.given(posed, state.model, path, r, share), ends

    @torch.no_grad()
    def _replayed(
        self, problem: Problem, state: Trained, share: float, generator: Generator
    ) -> tuple[Turn, list[Batch]]:
        """What is bought for the buffers, and batches of paths traced back from them; nothing of
        either in the first step."""
        store, made, batches = state.store, self.made(state), []
        if store is None or self.loss.given is None or made == 0:
            return Turn(store.walk if store else None), []
        tilt, whole = self.tilt(share), self.posed(problem)
        posed = self.posed(problem, tilt)
        turn = self.replay.buy(whole, store, made - 1, generator)
        for _ in range(self.replay.updates):
            x, r = self.replay.ends(whole, store, self.paths, generator)
            path = self.recipe.retrace(posed, state.model, x, generator)
            assert path is not None  # a replay is of the base's own chain
            batches.append(self.loss.given(posed, state.model, path, tilt * r, share))
        return turn, batches

    def _improve(self, state: Trained, posed: Problem, batch: Batch, generator: Generator) -> None:
        """One step of the optimiser."""
        with unchanged(f"the loss {self.loss.name}", batch):  # it is asked again of kept batches
            value = self.loss.value(state.model, posed.base, batch, generator)
        state.optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), self.clip)
        value, iteration = value.detach(), state.iteration
        posed.checks.finite(
            norm,
            lambda: Diverged(
                f"the loss is {float(value):.4g} and its gradient norm {float(norm):.4g} "
                f"at iteration {iteration}; a smaller lr than {self.lr:g} may help"
            ),
        )
        state.optimizer.step()
        state.iteration += 1
        state.loss = value
        if state.average is not None:
            state.average.add(state.model, self.average, state.iteration)

    def shown(self, state: Trained) -> Trained:
        """The state with the model that is drawn from in the place of the one that trains."""
        if state.average is None:
            return state
        return replace(state, model=state.average.of(state.model))

    def tilt(self, share: float) -> float:
        """lambda when `share` of the training is done."""
        return growing(share, self.start_tilt, self.full_tilt)

    def share(self, problem: Problem, state: Trained) -> float:
        """The part of the training that is done, in [0, 1]: by its steps where `batches` says how
        many there are, or by what is spent, whichever is further."""
        made = state.iteration / (self._each * self.batches) if self.batches else 0.0
        paid = 0.0 if self.batches else state.paid.share(state.allowance)
        return min(max(made, paid, problem.share()), 1.0)

    def done(self, state: Trained) -> bool:
        return self.batches > 0 and state.iteration >= self._each * self.batches

    @property
    def _each(self) -> int:
        """Steps of the optimiser in a step."""
        return self.repeats + self.replay.updates

    def made(self, state: Trained) -> int:
        """Steps that have been made."""
        return state.iteration // self._each

    def price(self, problem: Problem, model: Model, made: int = 0) -> Cost:
        """Of the step after `made` others."""
        steps = problem.base.steps
        fresh = self.recipe.price(self.loss, self.paths, steps, model.guided)
        if made == 0:
            return fresh
        return fresh.plus(self.replay.price(self.paths, steps, model.guided, made - 1))

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
        with torch.set_grad_enabled(self.loss.through_path):
            behaviour, extra = self.loss.behaviour(model), self.explore.at(share)
            if extra:
                return wider_paths(posed, behaviour, self.paths, extra, generator)
            return self.recipe.simulate(posed, behaviour, self.paths, generator)

    def posed(self, problem: Problem, tilt: float = 1.0) -> Problem:
        """The problem of tilt r on the recipe's chain, with grad r clipped; r itself is left as it
        is."""
        most = tilt * self.steepest * math.sqrt(problem.dim) / problem.base.spread

        bare = tempered(graded(problem.reward, problem.checks), tilt)
        if tilt < 1:
            problem = replace(problem, reward=bare)

        def reward(x: Tensor) -> Tensor:
            return bare.value(_ClippedGrad.apply(x, most) if torch.is_grad_enabled() else x)

        def with_grad(x: Tensor) -> tuple[Tensor, Tensor]:
            r, g = bare.value_and_grad(x)
            return r, clipped(g, most)

        tamed = Graded(reward, with_grad, problem.checks)
        return Problem(problem.dim, self.recipe.process(problem, tamed), tamed, problem.checks)

    @torch.no_grad()
    def draw(self, problem: Problem, state: Trained, n: int, generator: Generator) -> Draws:
        state = self.shown(state)
        problem, xs, log_ws, groups = self.posed(problem), [], [], []
        most = at_once(CHUNK, problem.dim, generator.device)
        for start in range(0, n, most):
            with problem.checks.together():
                path = self.recipe.simulate(problem, state.model, min(most, n - start), generator)
                path = self.recipe.weighed(problem, state.model, path)
                x = path.x[-1]
                problem.checks.never(~x.isfinite().all(), _lost)
                xs.append(x)
                log_ws.append(log_weight(problem, path))
                if (group := self.recipe.groups(problem, path)) is not None:
                    groups.append(start + group)
        own = None
        if self.loss.learns_log_Z:  # a parameter comes with no standard error
            own = Estimate(float(state.model.log_Z), math.nan, state.iteration)
        group = torch.cat(groups) if groups else None
        return Draws(torch.cat(xs), torch.cat(log_ws), group, own)

    @torch.no_grad()
    def reverse(
        self, problem: Problem, state: Trained, x: Float[Tensor, "n d"], generator: Generator
    ) -> Traced | None:
        state, posed = self.shown(state), self.posed(problem)
        parts = x.float().split(at_once(CHUNK, problem.dim, x.device))
        return self._weighed(
            posed, state, parts, lambda x: self.recipe.retrace(posed, state.model, x, generator)
        )

    @torch.no_grad()
    def along(
        self, problem: Problem, state: Trained, x: Float[Tensor, "k1 n d"], generator: Generator
    ) -> Traced | None:
        state, posed = self.shown(state), self.posed(problem)
        parts = x.float().split(at_once(CHUNK, problem.dim, x.device), dim=1)
        return self._weighed(
            posed, state, parts, lambda x: self.recipe.passing(posed, state.model, x)
        )

    def _weighed(
        self,
        posed: Problem,
        state: Trained,
        parts: Sequence[Tensor],
        paths: Callable[[Tensor], Path | None],
    ) -> Traced | None:
        log_ws, xs, us, t = [], [], [], None
        for part in parts:
            with posed.checks.together():
                path = paths(part)
                if path is None:
                    return None
                path = self.recipe.weighed(posed, state.model, path)
                log_ws.append(log_weight(posed, path))
            xs.append(path.x)
            us.append(path.u)
            t = path.t
        return Traced(torch.cat(log_ws), t, torch.cat(xs, 1), torch.cat(us, 1))

    def probe(self, problem: Problem, state: Trained, generator: Generator) -> dict[str, Tensor]:
        """`gradient_gram`: (M, M), the Gram matrix of M = 32 fresh mini-batch gradients."""
        state, posed = self.shown(state), self.posed(problem)
        rows = [self.gradient(posed, state.model, 1.0, generator) for _ in range(GRADIENTS)]
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

    def told(self, state: Trained) -> dict[str, Tensor]:
        """`loss` of the last step of the optimiser, `lr` and `log_Z` as the model holds it."""
        lr = torch.as_tensor(state.optimizer.param_groups[0]["lr"])
        found = {"loss": state.loss, "lr": lr, "log_Z": state.model.log_Z.detach()}
        return {name: value for name, value in found.items() if value is not None}

    def tensors(self, state: Trained) -> dict[str, Tensor]:
        shown = self.shown(state).model
        found = shown.state_dict()  # with what is no tensor: the model's extra state
        return {key: value for key, value in found.items() if isinstance(value, Tensor)}


def _choices(n: int, kept: int, generator: Generator) -> Int[Tensor, " n"]:
    """Which of the kept batches serve n steps of the optimiser."""
    return torch.randint(kept, (n,), generator=generator, device=generator.device)


class Preset(NamedTuple):
    """A sampler under a name of its own; parameters given to the name vary it."""

    name: str
    sampler: Diffusion


class _ClippedGrad(torch.autograd.Function):
    """Identity whose gradient is shortened to length `most` at each point."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float) -> Tensor:
        ctx.most = most
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return clipped(grad[0], ctx.most), None


def clipped(g: Float[Tensor, "*b d"], most: float) -> Float[Tensor, "*b d"]:
    """g shortened to length `most` at each point."""
    # in float64, or the squares of g may overflow
    length = torch.linalg.vector_norm(g, dim=-1, keepdim=True, dtype=torch.float64)
    return g / (length / most).clamp(min=1).to(g)


def _lost() -> Diverged:
    return Diverged("the trained control leads to infinite or undefined points")


GRADIENTS = 32  # mini-batches of the gradient-variance probe
