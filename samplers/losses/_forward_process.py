"""What losses on the forward process share: end points of the model, noised (math.md 3.1).

X_1 ends a path of a control, X_t = alpha X_1 + beta xi, and steer(X_t, X_1) leads to X_1.  Where
E[steer | X_t] is the control's own u, weights A of mean 0 say where to go:

    E[A (steer - u) | X_t] = Cov(A, steer | X_t) = sigma grad E[A | X_t],

the first order of sigma grad log E[exp A | X_t].  With A = log w less its mean, the log-weight of
the path that led to X_1, it is 0 at u* on every path; at u* + e it is -e to first order in the
directions that move the terminal law, and 0 in those that do not.  A weight that is equal for all
paths takes u to E[steer | X_t], and so moves in the latter alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, reward_and_grad
from tiltbench.samplers.losses._matching import POINTS, noising, point_hints, quiet_end, times
from tiltbench.samplers.networks.model import Earlier, Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

PUBLISHED_LR = 5e-4  # of published forms, where nothing damps the noise of the steps


def noised(
    problem: Problem,
    model: Model,
    x1: Float[Tensor, "n d"],
    k: Int[Tensor, " n"],
    generator: Generator,
) -> Batch:
    """`x` (n, d) at the steps k, with `steer` there, and the hints of a guided model, which are
    paid."""
    base = noising(problem.base)
    x = base.renoise(x1, k, generator)
    batch = {"x": x, "k": k, "steer": base.steer(x, k, x1)}
    if model.guided:
        batch["hint"] = reward_and_grad(problem, x)[1]
    return batch


def points(problem: Problem, model: Model, path: Path, generator: Generator) -> Batch:
    """`noised` at POINTS times an end point, path by path in each of POINTS blocks."""
    x1 = path.x[-1].repeat(POINTS, 1)
    k = times(quiet_end(noising(problem.base)), len(x1), generator)
    return noised(problem, model, x1, k, generator)


def control(model: Model, base: Process, batch: Batch) -> Float[Tensor, "n d"]:
    """u at the points of a batch."""
    x = batch["x"]
    return model.on_grid(base.grid(x)[:-1])(x, batch["k"], batch.get("hint"))


def weighed_points(
    problem: Problem, model: Model, path: Path, weight: Float[Tensor, " n"], generator: Generator
) -> Batch:
    """`points`, each with the `weight` of its path, and with `u` as it is now."""
    batch = points(problem, model, path, generator)
    batch["u"] = control(model, problem.base, batch)
    batch["weight"] = weight.to(batch["u"]).repeat(POINTS)
    return batch


@contextlib.contextmanager
def stage(model: Model, goal: float) -> Iterator[Earlier]:
    """The frozen stage that a batch is labelled by; after it the next one, where the `goal` (the
    tilt that is trained for) has risen: the model as it is then becomes the frozen one."""
    now = model.earlier = model.earlier or Earlier(model.frozen(), 0.0, goal)
    yield now
    # points at which the frozen copy was evaluated are the method's own
    model.network.forward_points += now.model.forward_points
    now.model.network.forward_points = 0
    if goal > now.goal:
        model.earlier = Earlier(model.frozen(), now.goal, goal)


def before(model: Model) -> Model:
    """The frozen stage of a model, which simulates; one that has none is still the base itself, u =
    0."""
    return model.earlier.model if model.earlier else model


def relative_weights(log_w: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """exp log_w over its mean."""
    return torch.softmax(log_w, 0) * len(log_w)


def check_match(match: float) -> None:
    """Raises ValueError."""
    if not 0 <= match <= 1:
        raise ValueError(f"match is {match}; it must be from 0 to 1")


def price(paths: int, steps: int, guided: bool) -> Cost:
    """A value a path."""
    return Cost(values=paths).plus(point_hints(paths, steps, guided))
