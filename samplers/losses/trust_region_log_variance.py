"""Log-variance towards a target within reach (trust regions for measures, arXiv 2508.12511).

For each batch of paths of a control v the next target is the tempered law

    dP' / dP^v proportional to (dP* / dP^v)^beta,

beta <= 1 the largest with KL(P' | P^v) <= RADIUS: the KL of the self-normalised weights of the
batch, which grows with beta; its root by bisection.  Paths of another law than P^v are weighed to
it first.

The loss is Var log dP'/dP^u over the batch.  With beta = 1 it is log-variance; beta rises to 1 as v
nears the optimum, which stays stationary.  A kept batch keeps its own target.
"""

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
        log_q = None if path.excess is None else -path.excess
        return path_batch(path, exponent(log_w, RADIUS, log_q) * log_w + ratio)


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    return log_weight(model, process, batch).var()


def price(paths: int, steps: int, guided: bool) -> Cost:
    return Cost(values=paths).plus(hints(paths, steps, guided))


def exponent(
    log_w: Float[Tensor, " n"], radius: float, log_q: Float[Tensor, " n"] | None = None
) -> Float[Tensor, ""]:
    """The largest beta in [0, 1] with divergence(beta log_w, log_q) <= radius."""
    return largest(lambda betas: divergence(betas * log_w, log_q) <= radius, 1.0, log_w)


def divergence(
    log_w: Float[Tensor, "*b n"], log_q: Float[Tensor, " n"] | None = None
) -> Float[Tensor, " *b"]:
    """KL(p | q) of p proportional to q exp log_w, nats; q of unnormalised logarithms, or even."""
    log_q = torch.log_softmax(torch.zeros_like(log_w) if log_q is None else log_q, -1)
    p = torch.softmax(log_w + log_q, -1)
    return -(torch.special.entr(p) + p * log_q).sum(-1)


trust_region_log_variance = Loss(
    "trust_region_log_variance", label, value, price, any_law=True, by_weights=True
)
