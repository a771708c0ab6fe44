"""Log-variance towards a target within reach (trust regions for measures, arXiv 2508.12511).

The loss is Var log dP'/dP^u over the batch, P' the law of `_trust_region` with KL(P' | P^v) <=
RADIUS, v the control that drew the batch.  With beta = 1 it is log-variance; beta rises to 1 as v
nears the optimum, which stays stationary.  A kept batch keeps its own target.
"""

import torch
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, floored, hints, log_weight, path_batch
from tiltbench.samplers.losses._trust_region import RADIUS, exponent
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """The path, with log dP'/dP^base up to a constant in the place of its reward."""
    with torch.no_grad():
        ratio = problem.base.log_ratio(path)
        log_w = floored(problem.reward(path.x[-1]).double() - ratio, problem.checks)
        log_q = None if path.excess is None else -path.excess
        return path_batch(path, exponent(log_w, RADIUS, log_q) * log_w + ratio)


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    return log_weight(model, process, batch).var()


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost(values=paths).plus(hints(paths, steps, guided))


trust_region_log_variance = Loss(
    "trust_region_log_variance", label, value, price, any_law=True, by_weights=True
)
