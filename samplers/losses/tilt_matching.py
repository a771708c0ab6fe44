"""Tilt matching: from the model at tilt a to the one at tilt a + h, by values of the reward.

Implicit form (arXiv 2512.21829; math.md 3).  X_1 are samples of a frozen model u_a, whose law is
p_base exp(a r); with X_t their noised selves and steer(X_t, X_1) the control that leads to X_1,

    y = u_a + (C e^{h r(X_1)} - 1) (steer(X_t, X_1) - stopgrad u(X_t)),      C = 1 / mean e^{h r}.

E[y | X_t] - u = C E[e^{h r} | X_t] (u_{a+h} - u): the fixed point is u_{a+h} exactly, for any h and
any C > 0, and it attracts.  The tilt climbs from 0 to 1 in STAGES equal stages by the share of the
budget spent; the last of them, 1 - 1/STAGES -> 1, has the part LAST of it.  At the end of a
stage the model becomes the frozen one; what it had still to learn stays in its samples, for nothing
weighs them.  A path serves POINTS noised points, drawn once beside their u_a, so that kept batches
stay true to their own stage.  Times as in conditional score matching.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, floored
from tiltbench.samplers.losses._forward_process import (
    before,
    control,
    points,
    price,
    relative_weights,
    stage,
)
from tiltbench.samplers.losses._matching import POINTS
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.problem import Problem

STAGES = 4
LAST = 0.5


def goal(share: float) -> float:
    """The tilt that is trained for when `share` of the budget is spent."""
    before = STAGES - 1
    return (min(int(share / (1 - LAST) * before), before) + 1) / STAGES


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    with torch.no_grad(), stage(model, goal(share)) as now:
        batch = points(problem, model, path, generator)
        r = floored(problem.reward(path.x[-1]), problem.checks)
        batch["factor"] = relative_weights((now.goal - now.tilt) * r).repeat(POINTS) - 1
        batch["u"] = control(now.model, problem.base, batch)
    return batch


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    u = control(model, process, batch)
    y = batch["u"] + batch["factor"][:, None] * (batch["steer"] - u.detach())
    return (u - y).square().sum(-1).mean()


tilt_matching = Loss("tilt_matching", label, value, price, behaviour=before, staged=True)
