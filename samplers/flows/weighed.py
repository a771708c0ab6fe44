"""Importance weights of a flow's draws: from densities, and not from paths."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.flows.divergence import Divergence
from tiltbench.samplers.flows.probability_flow import ProbabilityFlow
from tiltbench.targets.bases.noising import Known
from tiltbench.targets.problem import Problem


class Weighed(NamedTuple):
    """Points, the flow's log q there, and log w = log p_base + r - log q, float64.

    Over draws of q E[exp log_w] = Z, over draws of p* E[log_w] - log Z = KL(p* | q)."""

    x: Float[Tensor, "n d"]
    log_q: Float[Tensor, " n"]
    log_w: Float[Tensor, " n"]
    noise: Float[Tensor, " n"]  # the variance of log_w by random directions; 0: exact
    evaluations: int  # of the flow's velocity


@torch.no_grad()
def sample(
    flow: ProbabilityFlow, problem: Problem, n: int, divergence: Divergence, generator: Generator
) -> Weighed:
    """n draws of the flow."""
    solved = flow.draw(n, divergence, generator)
    log_w, noise = _above(flow, problem, solved.x, divergence, generator)
    return Weighed(
        solved.x, solved.log_q, log_w - solved.log_q, noise + solved.noise, solved.evaluations
    )


@torch.no_grad()
def given(
    flow: ProbabilityFlow,
    problem: Problem,
    x: Float[Tensor, "n d"],
    divergence: Divergence,
    generator: Generator,
) -> Weighed:
    """Points of anybody's, such as exact draws of p*."""
    solved = flow.log_density(x, divergence, generator)
    log_w, noise = _above(flow, problem, x.double(), divergence, generator)
    return Weighed(x, solved.log_q, log_w - solved.log_q, noise + solved.noise, solved.evaluations)


def _above(
    flow: ProbabilityFlow,
    problem: Problem,
    x: Float[Tensor, "n d"],
    divergence: Divergence,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """log p_base(x) + r(x), a value each, and the variance of it.

    The density of a pretrained base is that of its own flow, of which its chain of K noisy steps
    is O(1/K) off: p* is then the tilt of the flow's law, and so is Z."""
    with problem.checks.together():
        r = problem.reward(x).double()
    if isinstance(problem.base, Known):
        return r + problem.base.log_end(x).double(), torch.zeros_like(r)
    base = ProbabilityFlow(problem.base, problem.dim, solver=flow.solver)
    solved = base.log_density(x, divergence, generator)
    return r + solved.log_q, solved.noise
