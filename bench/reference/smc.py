"""A second log Z, from a seed and an estimator of its own: annealed islands of HMC moves."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from tiltbench.reference.resume import Keeper
from tiltbench.samplers.classical._anneal import Schedule, log_mean_weight
from tiltbench.samplers.classical._leapfrog import DTYPE, Points, evaluate, known_base, move
from tiltbench.samplers.classical._replicas import between
from tiltbench.samplers.weights import Estimate, ess, log_mean_exp, resample
from tiltbench.targets.problem import Problem

ISLANDS = 32
RATIO = 4  # particles, of all islands, for each temperature
LEAST = 0.5  # ess below which an island is resampled


class Flow(NamedTuple):
    """All islands between two temperatures."""

    at: Points
    log_w: Tensor  # (ISLANDS, particles)
    step: int  # temperatures passed


def islands(
    problem: Problem,
    ladder: Schedule,
    points: int,
    leaps: int,
    generator: Generator,
    keeper: Keeper,
) -> Estimate:
    """log Z as the log-mean-exp of the weights of 32 islands of SMC (Del Moral, Doucet and Jasra
    2006), with the error of their spread.

    As samplers.classical.smc, but with trajectories for the single leaps, whose particles lag
    behind in a cluster.  The temperatures refine a ladder that other chains have tuned,
    so that E[w] = Z holds exactly.  All islands move in one batch.  What is `keeper` of
    them goes on."""
    temperatures = max(1, math.isqrt(points // (RATIO * leaps)))
    each = max(2, points // (ISLANDS * (1 + leaps * temperatures)))
    rungs = len(ladder.betas)
    schedule = between(
        ladder, torch.arange(1, temperatures + 1, dtype=DTYPE) * (rungs / temperatures)
    )
    at = evaluate(problem, known_base(problem).end((ISLANDS * each, problem.dim), generator, DTYPE))
    log_w = torch.zeros((ISLANDS, each), dtype=DTYPE, device=at.r.device)
    flow = keeper.begun("SMC", Flow(at, log_w, 0), generator)
    rises = schedule.betas.diff(prepend=torch.zeros(1, dtype=DTYPE)).tolist()
    betas, sizes = schedule.betas.tolist(), schedule.log_sizes.exp().tolist()
    for step in range(flow.step, temperatures):
        log_w = flow.log_w + (rises[step] * flow.at.r).unflatten(0, (ISLANDS, each))
        log_w, index = _resampled(log_w, generator)
        at, _ = move(problem, flow.at.at(index), betas[step], sizes[step], leaps, generator)
        flow = Flow(at, log_w, step + 1)
        keeper.watch("SMC", flow, generator)
    return log_mean_weight(torch.logsumexp(flow.log_w, 1) - math.log(each))


def _resampled(log_w: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Log-weights (islands, particles) after resampling where an island's ess is low, and the
    flat index of the particle that stands in each place."""
    each = log_w.shape[1]
    rows, index = log_w.unbind(0), []
    new = []
    for k, row in enumerate(rows):
        if 0 < ess(row) < LEAST:
            index.append(k * each + resample(row, each, generator))
            new.append(torch.full_like(row, log_mean_exp(row)))
        else:
            index.append(k * each + torch.arange(each, device=row.device))
            new.append(row)
    return torch.stack(new), torch.cat(index)
