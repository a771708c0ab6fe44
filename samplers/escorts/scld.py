"""Sequential controlled Langevin diffusions (SCLD, arXiv 2412.07081): CMCD resampled on its way.

The divergence of a whole path is replaced by those of its segments between two resamplings,

    sum_s Var( A_{b_s} - A_{a_s} ),

each over the population that enters segment s, detached: whatever law it has, a segment's variance
is zero iff its part of A is the same for all, log Z_{b_s} / Z_{a_s}.  One segment is log-variance.
What a step gets wrong is then learned from that step, and not from the noise of all others.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import DEEP, Batch, Loss, batch_path, path_batch
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.recipes.resampled import Resampled
from tiltbench.samplers.recipes.resampling import ResampledPath, Resampling, felt, gone_on
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Path, Process, along
from tiltbench.targets.bases.references import Stationary
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """The population, and by how much segments are lifted or lowered that lie more than DEEP nats
    from the median of theirs."""
    if not isinstance(problem.base, Resampling) or not isinstance(path, ResampledPath):
        raise Unsupported("segments need a chain that is resampled: use recipe=Resampled")
    walls = [felt(tall, 1) for tall in path.height.double()]
    path = replace(path, height=torch.stack(walls))
    gained = segments(problem.base, path)
    middle = gained.median(1, keepdim=True).values
    lift = torch.minimum(torch.maximum(gained, middle - DEEP), middle + DEEP) - gained
    return {**path_batch(path, path.height[-1]), "lift": lift}


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    """The sum of the segments' variances."""
    assert isinstance(process, Resampling)
    path = batch_path(process, batch)
    assert isinstance(path, ResampledPath)
    gained = segments(process, replace(path, u=along(model, path)))
    return (gained + batch["lift"]).var(1).sum()


def segments(process: Resampling, path: ResampledPath) -> Float[Tensor, "s n"]:
    """A_{b} - A_{a} of every segment, differentiable in path.u."""
    edges = [0, *process.boundaries, process.steps]
    sizes = [b - a for a, b in zip(edges, edges[1:], strict=False)]
    carried = torch.stack([part.sum(0) for part in process.steps_of(path).split(sizes)])
    # stacked, for a list of indices would have to be brought to a GPU
    left = gone_on(_at(path.height, edges[:-1]), _at(path.ancestor, edges[:-1]))
    return carried + _at(path.height, edges[1:]) - left


def _at(part: Float[Tensor, "k1 n"], times: list[int]) -> Float[Tensor, "s n"]:
    return torch.stack([part[k] for k in times])


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost()


divergence = Loss("scld", label, value, price)

scld = Preset(
    "scld",
    Diffusion(
        divergence,
        reference=Stationary(),
        recipe=Resampled(),
        paths=256,
        repeats=4,
        memory=4,
        lr=5e-3,
    ),
)
"""SCLD: log-variance of the segments between resamplings, drawn by sequential Monte Carlo."""
