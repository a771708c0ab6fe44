"""The contract of a loss where its optimum is known: what `label` and `value` hand over and pay,
and that the gradient of the loss vanishes at the optimal control and points back to it beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import scipy.stats
import torch
from torch import Generator, Tensor

from tiltbench.check.findings import RARE, Finding, Snapshot, expect, format_estimate, until_broken
from tiltbench.estimators import average
from tiltbench.run.meter import Meter
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.loss import Batch
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.recipes.recipe import Base
from tiltbench.samplers.sampler import Unsupported
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.bases.process import Path
from tiltbench.targets.bases.references import Stationary
from tiltbench.targets.constants import constant
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

PATHS, BATCHES, MORE = 384, 16, 48
ENOUGH = Cost(10**9, 10**9)
SLOPE = (0.6, -0.3)
BASE = Stationary(steps=8)
SQUARE = sum(c * c for c in SLOPE)
LOG_Z = SQUARE * BASE.spread**2 / 2


class Displaced(Control):
    """u* + theta (1/2 + sin x) for r = c . x on a stationary base, where u* = sigma gain c is exact
    on any grid: log w = log Z on every path at theta = 0."""

    def __init__(self, theta: float) -> None:
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor(float(theta)))

    def control(self, x: Tensor, t: Tensor, hint: Tensor | None = None) -> Tensor:
        k = (t * BASE.steps).round().long().expand(x.shape[:-1])
        best = BASE.pull(k, x.new_tensor(SLOPE).expand_as(x))
        return best + self.theta * (0.5 + torch.sin(x))


class EndScore(torch.nn.Module):
    """The corrector, exact on a memoryless base: the score of its end."""

    def forward(self, x: Tensor) -> Tensor:
        return BASE.score(x, BASE.steps)


class FlowOfTarget(torch.nn.Module):
    """The flow, exact: log E_base[exp r(X_1) | X_t = x] - log Z of a linear r."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        k = (t * BASE.steps).round().long().expand(x.shape[:-1])
        gain, var = (constant(row, x)[k] for row in zip(*BASE.ahead, strict=True))
        return gain * (x * x.new_tensor(SLOPE)).sum(-1) + SQUARE / 2 * var - LOG_Z


def displaced(theta: float) -> Model:
    """The displaced control, with log Z, the corrector and the flow exact."""
    model = Model(Displaced(theta), EndScore(), flow=FlowOfTarget())
    with torch.no_grad():
        model.log_Z.fill_(LOG_Z)
    return model


def _problem(meter: Meter) -> Problem:
    return Problem(2, BASE, meter.watch(lambda x: (x * x.new_tensor(SLOPE)).sum(-1)))


def check(sampler: Diffusion) -> list[Finding]:
    """Of losses that steer the base's own chain towards a fixed optimum; others are let pass."""
    if sampler.recipe != Base():
        return [Finding(True, "its optimum was not tried: it steers a chain of its own")]
    if sampler.loss.biased:
        return [Finding(True, "its optimum was not tried: it claims another fixed point than u*")]
    if sampler.loss.staged:
        return [Finding(True, "its optimum was not tried: it moves from stage to stage")]
    try:
        _batch(sampler, displaced(0.0), Meter(ENOUGH), 0)
    except Unsupported as error:
        return [Finding(True, f"its optimum was not tried: {error}")]
    except Exception:  # the first step below reports it
        pass
    return until_broken(
        [
            ("label and value", partial(_functions, sampler)),
            ("the gradient of the loss", partial(_optimum, sampler)),
        ]
    )


def _batch(sampler: Diffusion, model: Model, meter: Meter, seed: int) -> Batch:
    standard = Diffusion(sampler.loss, paths=PATHS)
    return standard.batch(_problem(meter), model, 0.5, Generator().manual_seed(seed))


def _functions(sampler: Diffusion) -> Iterator[Finding]:
    model, meter = displaced(0.3), Meter(ENOUGH)
    snapshots: list[Snapshot] = []

    def label(problem: Problem, model: Model, path: Path, share: float, g: Generator) -> Batch:
        snapshots.append(Snapshot(*(v for v in vars(path).values() if isinstance(v, Tensor))))
        return sampler.loss.label(problem, model, path, share, g)

    watched = replace(sampler, loss=sampler.loss._replace(label=label))
    batch = _batch(watched, model, meter, 0)
    mend = "make new tensors: no += and no functions that end in _"
    yield expect(
        not any(snapshot.changed for snapshot in snapshots),
        "label leaves the path as it is",
        "label changes the path in place, and with it the draws",
        mend,
    )
    attached = [
        key for key, v in batch.items() if not isinstance(v, Tensor) or v.grad_fn is not None
    ]
    yield expect(
        sampler.loss.through_path or not attached,
        f"label hands over {len(batch)} tensors without a graph",
        f"label hands over {', '.join(attached)} with a graph, or no tensor",
        "return a dict of detached tensors, or state through_path=True",
    )
    before, snapshot = meter.spent, Snapshot(*batch.values())
    values = [sampler.loss.value(model, BASE, batch, Generator().manual_seed(s)) for s in (1, 1)]
    yield expect(
        not snapshot.changed,
        "value leaves the batch as it is",
        "value changes the batch in place, which is used again",
        mend,
    )
    yield expect(
        values[0].shape == () and math.isfinite(values[0].detach()),
        "value is one finite number",
        f"value has shape {tuple(values[0].shape)}, not one finite number",
        "return the mean over the batch, shape ()",
    )
    yield expect(
        torch.equal(*values),
        "value follows the generator's seed",
        "value differs between two calls with one seed",
        "draw all randomness from the generator",
    )
    yield expect(
        values[0].requires_grad,
        "value is differentiable in the model",
        "value has no gradient with respect to the model",
        "call model.control in `value` with gradients on: no detach, no .data, no no_grad",
    )
    torch.autograd.grad(values[0], list(model.network.parameters()), allow_unused=True)
    yield expect(
        meter.spent == before,
        "value evaluates no energies",
        f"value and its gradient cost {tuple(meter.spent.minus(before))} (values, gradients)",
        "evaluate the reward in `label` only, and pass on what value needs",
    )


def _slopes(sampler: Diffusion, theta: float, batches: int) -> Estimate:
    """d loss / d theta, by independent batches."""
    model, slopes = displaced(theta), []
    for seed in range(batches):
        batch = _batch(sampler, model, Meter(ENOUGH), seed)
        source = Generator().manual_seed(1000 + seed)
        value = sampler.loss.value(model, BASE, batch, source)
        (slope,) = torch.autograd.grad(value, list(model.network.parameters()), allow_unused=True)
        slopes.append(torch.zeros(()) if slope is None else slope)
    return average(torch.stack(slopes))


def _optimum(sampler: Diffusion) -> Iterator[Finding]:
    for batches in (BATCHES, MORE):  # the noisiest need more to be seen
        right, left = (_slopes(sampler, theta, batches) for theta in (0.3, -0.3))
        if right.value > 5 * right.se and -left.value > 5 * left.se:
            break
    yield expect(
        right.value > 5 * right.se and -left.value > 5 * left.se,
        f"beside the optimum its slope points back: {format_estimate(left)} and "
        f"{format_estimate(right)}",
        f"beside the optimum its slope is {format_estimate(left)} on one side and "
        f"{format_estimate(right)} on the other: it does not draw the control to the optimum "
        "of r = c . x",
        "a loss must be least at the control whose weights all agree",
    )
    at = _slopes(sampler, 0.0, batches)
    # O(1/K) of the slope beside it is the time grid's
    allowed = _rare(at) * at.se + 0.04 * (right.value - left.value)
    yield expect(
        abs(at.value) < allowed,
        f"at the optimum its slope is {format_estimate(at)} for 0",
        f"at the optimum its slope is {format_estimate(at)}, not 0",
        "the least value is beside the optimum: compare signs, weights and the time grid",
    )


def _rare(estimate: Estimate) -> float:
    return float(scipy.stats.t.isf(RARE / 2, estimate.n - 1))
