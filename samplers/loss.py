"""A loss is two functions: `label` pays for energies once, `value` never sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.utils.checkpoint import checkpoint

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.networks.model import Model, Part
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.checks import Checks, Diverged
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, graded

Batch = dict[str, Tensor]  # whatever `label` bought and `value` needs


Given = Callable[[Problem, Model, Path, Tensor, float], Batch]  # (..., path, r(x_K), share)


class Loss(NamedTuple):
    """A file in samplers/losses offers `name = Loss("name", ...)`; it trains a Diffusion.

    label(problem, model, path, share, generator): the model is detached, `share` in [0, 1] is the
    part of the budget spent.  value(model, process, batch, generator): a scalar, differentiable
    in the model, free of charge, so a batch may be used again.  price(paths, steps, guided): what
    simulating and labelling cost in all.  behaviour(model): the control that simulates, the model
    itself but where a loss keeps a frozen one.  given(problem, model, path, r, share): what `label`
    makes of a path of any law, and of its rewards r, which are not paid for again.
    """

    name: str
    label: Callable[[Problem, Model, Path, float, Generator], Batch]
    value: Callable[[Model, Process, Batch, Generator], Tensor]
    price: Callable[[int, int, bool], Cost]
    through_path: bool = False  # value needs the simulation's graph
    pulls_back: bool = False  # label pulls gradients back along the path it is given
    needs: Part | None = None  # what it trains of the model beside the control
    learns_log_Z: bool = False  # value trains the model's log Z, the method's own estimate
    tempered: Callable[[Process, Batch, Tensor], Batch] | None = None  # a kept batch, its r scaled
    by_weights: bool = False  # value knows the model by the weights it gives to paths, and no more
    staged: bool = False  # its fixed point depends on a frozen stage of the model, Model.earlier
    biased: bool = False  # its fixed point is not u*, or there is none; weights of paths stay exact
    any_law: bool = False  # right for paths of any law, by their `excess` where it needs weights
    given: Given | None = None  # `label` where r is known; None: it takes fresh paths only
    behaviour: Callable[[Model], Model] = lambda model: model
    options: Options | None = None  # what it was made with, where it can be varied

    def __repr__(self) -> str:
        return self.name


class Options(ABC):
    """The numbers a loss is made with: a frozen dataclass.

    `Preset("name", Diffusion(build_loss(MyOptions())))` offers the loss; a spec states its fields
    beside those of the Diffusion."""

    @abstractmethod
    def loss(self) -> Loss:
        """The loss, with options=self."""


@lru_cache(maxsize=256)
def build_loss(options: Options) -> Loss:
    """`options.loss()`, one and the same loss for equal options."""
    return options.loss()


def reward_and_grad(
    problem: Problem, x: Float[Tensor, "*b d"]
) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
    """r(x) and grad r(x) for one value and one gradient a point, without a graph.

    The gradient is 0 where r = -inf.  Raises Diverged where it is not finite at a finite r."""
    return graded(problem.reward, problem.checks).value_and_grad(x)


def regress(
    model: Model, x: Tensor, t: Tensor, y: Tensor, hint: Tensor | None = None
) -> Float[Tensor, ""]:
    """E |u(x, t) - y|^2, the mean over points of the sum over coordinates."""
    return squared_errors(model, x, t, y, hint).mean()


def squared_errors(
    model: Model,
    x: Float[Tensor, "n *b d"],
    t: Tensor,
    y: Float[Tensor, "n *b d"],
    hint: Tensor | None = None,
) -> Float[Tensor, " n *b"]:
    """|u(x, t) - y|^2, t (n, ...) broadcastable to x.shape[:-1].

    Above AT_ONCE points (more on a GPU: `at_once`) the network is evaluated in parts, and again in
    the backward pass: the graph of one part is held at a time, whatever the number of steps."""

    def of(x: Tensor, t: Tensor, y: Tensor, hint: Tensor | None) -> Tensor:
        return (model.control(x, t, hint) - y).square().sum(-1)

    return _in_parts(of, x, t, y, hint)


def _in_parts(
    of: Callable[..., Tensor], x: Tensor, t: Tensor, y: Tensor, hint: Tensor | None
) -> Tensor:
    """of(x, t, y, hint), in parts of rows as `squared_errors` says."""
    most = at_once(AT_ONCE, x.shape[-1], x.device)
    rows = max(most * len(x) // max(x.shape[:-1].numel(), 1), 1)
    if rows >= len(x) or not torch.is_grad_enabled():
        return of(x, t, y, hint)
    hints = [None] * len(x) if hint is None else hint.split(rows)
    parts = zip(x.split(rows), t.split(rows), y.split(rows), hints, strict=False)
    return torch.cat(
        [checkpoint(of, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    )


AT_ONCE = 2**15  # points of a regression whose graph is held


def regress_on_grid(
    model: Model, process: Process, x: Tensor, k: Tensor, y: Tensor, hint: Tensor | None = None
) -> Float[Tensor, ""]:
    """`regress` at grid times t_k, k (n,): every time is embedded once, not once a point, which for
    a small network is most of its work.  In parts as there."""
    control = model.on_grid(process.grid(x)[:-1])

    def of(x: Tensor, k: Tensor, y: Tensor, hint: Tensor | None) -> Tensor:
        return (control(x, k, hint) - y).square().sum(-1)

    return _in_parts(of, x, k, y, hint).mean()


def path_batch(path: Path, r: Tensor) -> Batch:
    """A path and its rewards as a batch."""
    named = {part.name: getattr(path, part.name) for part in fields(path)}
    return {**{key: value for key, value in named.items() if value is not None}, "r": r}


def floored(r: Float[Tensor, " *b"], checks: Checks | None = None) -> Float[Tensor, " *b"]:
    """Rewards for training, no lower than DEEP nats below the best of the batch.

    -inf (zero density) would make every functional infinite, and one path at the foot of a cliff
    of 10^17 nats overflows its gradient.  Raises Diverged where no path has density."""
    best = r.max()
    (checks or Checks()).never(
        best == -torch.inf,
        lambda: Diverged(f"all {r.numel()} paths end where the density is zero"),
    )
    return torch.maximum(r, best - DEEP)


DEEP = 200.0


def grounded(
    r: Float[Tensor, " b"], log_ratio: Float[Tensor, " b"], checks: Checks | None = None
) -> Float[Tensor, " b"]:
    """Rewards with r - log_ratio `floored`, float64: where all weights agree nothing is changed."""
    log_ratio = log_ratio.double()
    return floored(r.double() - log_ratio, checks) + log_ratio


def batch_path(process: Process, batch: Batch) -> Path:
    """The path of a `path_batch` of this process."""
    names = [part.name for part in fields(process.path)]
    return process.path(**{name: batch[name] for name in names if name in batch})


def log_weight(model: Model, process: Process, batch: Batch) -> Float[Tensor, " b"]:
    """log_w = r(x_K) - log dP^u/dP^base of stored paths under the present control, float64."""
    path = process.under(model, batch_path(process, batch))
    return batch["r"].double() - process.log_ratio(path)


def path_space(
    name: str, divergence: Callable[[Tensor, Model], Tensor], learns_log_Z: bool = False
) -> Loss:
    """The loss divergence(log_w, model), valid for paths of any control with full support."""

    def label(
        problem: Problem, model: Model, path: Path, share: float, generator: Generator
    ) -> Batch:
        with torch.no_grad():
            return given(problem, model, path, problem.reward(path.x[-1]), share)

    def given(problem: Problem, model: Model, path: Path, r: Tensor, share: float) -> Batch:
        with torch.no_grad():
            ratio, whole = problem.base.log_ratio(path), r
            r = grounded(whole, ratio, problem.checks)
            batch = {**path_batch(path, r), "whole": whole}
            if share == 0.0:  # start F where the first batch says: log Z may be hundreds of nats
                model.log_Z.copy_((r - ratio).mean())
        return batch

    def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
        return divergence(log_weight(model, process, batch), model)

    def price(paths: int, steps: int, guided: bool) -> Cost:
        return Cost(values=paths).plus(hints(paths, steps, guided))

    return Loss(
        name,
        label,
        value,
        price,
        learns_log_Z=learns_log_Z,
        tempered=tempered,
        by_weights=True,
        any_law=True,
        given=given,
    )


def tempered(process: Process, batch: Batch, factor: Tensor) -> Batch:
    """A batch of `path_space` as it would be had r been larger by `factor`: grounded anew."""
    path, whole = process.tempered(batch_path(process, batch), factor), factor * batch["whole"]
    log_ratio = process.log_ratio(path)
    log_w = whole.double() - log_ratio
    r = torch.maximum(log_w, log_w.max() - DEEP) + log_ratio
    return {**path_batch(path, r), "whole": whole}


def hints(paths: int, steps: int, guided: bool) -> Cost:
    """What a guided simulation pays: a value and a gradient at every point it leaves."""
    return Cost(paths * steps, paths * steps) if guided else Cost()
