"""Tilt matching: from the model at tilt a to the one at tilt a + h, by values of the reward.

Implicit form (arXiv 2512.21829; math.md 3).  X_1 are samples of a frozen model u_a, whose law is
p_base exp(a r); with X_t their noised selves and steer(X_t, X_1) the control that leads to X_1,

    y = u_a + (C e^{h r(X_1)} - 1) (steer(X_t, X_1) - stopgrad u(X_t)),      C = 1 / mean e^{h r}.

E[y | X_t] - u = C E[e^{h r} | X_t] (u_{a+h} - u): the fixed point is u_{a+h} exactly, for any h and
any C > 0, and it attracts.  The tilt climbs from 0 to 1 in STAGES equal stages by the share of the
allowance spent; the last of them, 1 - 1/STAGES -> 1, has the part LAST of it.  At the end of a
stage the model becomes the frozen one; what it had still to learn stays in its samples, for nothing
weighs them.  A path serves POINTS noised points, drawn once beside their u_a, so that kept batches
stay true to their own stage.  Times as in conditional score matching.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, floored, reward_and_grad
from tiltbench.samplers.losses._matching import POINTS, noising, point_hints, quiet_end, times
from tiltbench.samplers.networks.model import Earlier, Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

STAGES = 4
LAST = 0.5


def goal(share: float) -> float:
    """The tilt that is trained for when `share` of the allowance is spent."""
    before = STAGES - 1
    return (min(int(share / (1 - LAST) * before), before) + 1) / STAGES


def behaviour(model: Model) -> Model:
    """The frozen model; a model that has none is still the base itself, u_0 = 0."""
    return model.earlier.model if model.earlier else model


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    base = noising(problem.base)
    if model.earlier is None:
        model.earlier = Earlier(model.frozen(), 0.0, goal(share))
    x1 = path.x[-1].repeat(POINTS, 1)
    k = times(quiet_end(base), len(x1), generator)
    x = base.renoise(x1, k, generator)
    with torch.no_grad():
        r = floored(problem.reward(path.x[-1]), problem.checks)
        tempered = (model.earlier.goal - model.earlier.tilt) * r
        factor = torch.softmax(tempered, 0) * len(tempered) - 1
        batch = {"x": x, "k": k, "factor": factor.repeat(POINTS), "steer": base.steer(x, k, x1)}
        if model.guided:
            batch["hint"] = reward_and_grad(problem, x)[1]
        before = model.earlier.model.on_grid(base.grid(x)[:-1])
        batch["u"] = before(x, k, batch.get("hint"))
    count(model, model.earlier.model)
    if goal(share) > model.earlier.goal:
        model.earlier = Earlier(model.frozen(), model.earlier.goal, goal(share))
    return batch


def count(model: Model, twin: Model) -> None:
    """Points at which the frozen copy was evaluated are the method's own."""
    model.network.forward_points += twin.forward_points
    twin.network.forward_points = 0


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    control = model.on_grid(process.grid(batch["x"])[:-1])
    u = control(batch["x"], batch["k"], batch.get("hint"))
    y = batch["u"] + batch["factor"][:, None] * (batch["steer"] - u.detach())
    return (u - y).square().sum(-1).mean()


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost(values=paths).plus(point_hints(paths, steps, guided))


tilt_matching = Loss("tilt_matching", label, value, price, behaviour=behaviour, staged=True)
