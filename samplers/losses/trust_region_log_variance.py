"""Log-variance towards a target within reach (trust regions for measures, arXiv 2508.12511).

For each batch of paths of a control v the next target is the tempered law

    dP' / dP^v proportional to (dP* / dP^v)^beta,

beta <= 1 the largest with KL(P' | P^v) <= RADIUS: the KL of the self-normalised weights of the
batch, which grows with beta; its root by bisection.

The loss is Var log dP'/dP^u over the batch.  With beta = 1 it is log-variance; beta rises to 1 as v
nears the optimum, which stays stationary.  A kept batch keeps its own target.
"""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, floored, hints, log_weight, path_batch
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.weights import largest
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

RADIUS = 0.1  # nats a batch


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """The path, with log dP'/dP^base up to a constant in the place of its reward."""
    with torch.no_grad():
        ratio = problem.base.log_ratio(path)
        log_w = floored(problem.reward(path.x[-1]).double() - ratio, problem.checks)
        batch = path_batch(path, exponent(log_w, RADIUS) * log_w + ratio)
        return batch


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    return log_weight(model, process, batch).var()


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost(values=paths).plus(hints(paths, steps, guided))


def exponent(log_w: Float[Tensor, " n"], radius: float) -> Float[Tensor, ""]:
    """The largest beta in [0, 1] with divergence(beta log_w) <= radius."""
    return largest(lambda betas: divergence(betas * log_w) <= radius, 1.0, log_w)


def divergence(log_w: Float[Tensor, "*b n"]) -> Float[Tensor, " *b"]:
    """KL of the self-normalised weights from equal ones, nats: 0 to log n."""
    entropy = torch.special.entr(torch.softmax(log_w, -1)).sum(-1)
    return math.log(log_w.shape[-1]) - entropy


trust_region_log_variance = Loss("trust_region_log_variance", label, value, price, by_weights=True)
