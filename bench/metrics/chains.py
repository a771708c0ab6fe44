"""Whether chains have mixed, and how many draws they are worth, where the law is not known.

Of every statistic that the target names (`Target.statistics`) and, of a density, of log rho; the
worst counts (arviz-stats)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._given import given
from tiltbench.rhat import bulk_ess, rank_rhat
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Density, Target, Truth

MIXING, SIZE = 4, 10  # states a chain, at least: of R-hat, and of an effective size


def _statistics(
    target: Target, outcome: Outcome, least: int
) -> Iterator[Float[Tensor, "chains states"]]:
    """Each statistic by chain and time, of the last states where chains differ in length.

    Raises Unknown where there are too few states, or a chain never moves."""
    x, group = outcome.draws.x.double(), given(outcome.draws.group)
    chains = [torch.nonzero(group == g)[:, 0] for g in group.unique()]
    states = min(len(chain) for chain in chains)
    if len(chains) < 2 or states < least:
        raise Unknown(
            f"{len(chains)} chains of {states} states: at least 2 of {least} are needed; ask for "
            "more draws"
        )
    index = torch.stack([chain[-states:] for chain in chains])
    still = (x[index] == x[index[:, :1]]).all(-1).all(-1)
    if bool(still.any()):
        raise Unknown(f"{int(still.sum())} of {len(chains)} chains never move")
    functions = dict(target.statistics())
    if isinstance(target, Density):
        functions["log rho"] = target.log_rho
    with torch.no_grad():
        for f in functions.values():
            yield f(x).double()[index]


def _mixing(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    rhat = [rank_rhat(values) for values in _statistics(target, outcome, MIXING)]
    return Estimate(max(rhat, key=_worst), math.nan, _count(outcome))


def _size(target: Target, truth: Truth, outcome: Outcome, generator: Generator) -> Estimate:
    sizes = [bulk_ess(values) for values in _statistics(target, outcome, SIZE)]
    return Estimate(min(sizes, key=lambda value: -_worst(-value)), math.nan, _count(outcome))


def _worst(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _count(outcome: Outcome) -> int:
    return len(given(outcome.draws.group).unique())


_CHAINS = frozenset({"unknown_law", "chains"})

r_hat = Metric("r_hat", _CHAINS, "lower", "1", "", _mixing)
"""largest rank-normalised split R-hat of the chains over all statistics: above 1.01 not mixed"""

ess_chains = Metric("ess_chains", _CHAINS, "higher", "1", "", _size)
"""smallest bulk effective sample size of the chains over all statistics, in draws"""
