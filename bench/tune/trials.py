"""The same random search for every method, scored without the truth (docs/tuning.md).

Trial 0 is the method as the suite has it.  The other trials draw every searched parameter from its
law by a stream of the search's seed, the trial's number and the parameter's name: methods that
share a parameter meet the same values, and more trials extend a search without changing it.
A trial is a cell with the suite's budget, a seed that is not the suite's, and no budget to
measure, so that a run asks nobody for the truth.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata

from tiltbench.estimators import elbo
from tiltbench.plan.budget import Budget
from tiltbench.plan.cell import Cell
from tiltbench.plan.spec import build_sampler, build_target, spec
from tiltbench.plan.suite import Choice, Suite, overlaid
from tiltbench.records.record import Record, read_outcome
from tiltbench.rhat import split_rhat
from tiltbench.run.meter import Meter
from tiltbench.samplers.search import Search
from tiltbench.targets.bases.noising import Known
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose
from tiltbench.targets.settings import standard

SEED = 10**6  # seeds of trials count from here, past those of any suite
DRAWS = 1_000  # at least, so that chains are long enough to be compared


class TrialScore(NamedTuple):
    """Of one trial on one target; `better` is the larger the better, -inf for a failed run, and
    `calls` what the score itself cost."""

    better: float
    text: str
    calls: int = 0


def draw_params(laws: Search, trial: int, seed: int) -> dict[str, Any]:
    """The parameters of a trial, parts by a dot; none for trial 0."""
    if trial == 0:
        return {}
    return {key: law.at(_share(seed, trial, key)) for key, law in laws.items()}


def _share(seed: int, trial: int, key: str) -> float:
    stream = np.random.SeedSequence(seed, spawn_key=(trial, zlib.crc32(key.encode())))
    return float(np.random.default_rng(stream).random())


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """{"reference.steps": 32} -> {"reference": {"steps": 32}}."""
    tree: dict[str, Any] = {}
    for key, value in params.items():
        *parts, last = key.split(".")
        inner = tree
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return tree


@standard()
def trial_cell(
    suite: Suite,
    target: Choice,
    sampler: Choice,
    params: Mapping[str, Any],
    trial: int,
    seed: int,
    device: str,
    tf32: bool = False,
) -> Cell:
    """Raises BadSpec where the sampler cannot be built with these parameters."""
    built = build_target(target.spec)
    chosen = overlaid(suite.varied(target, sampler), nested(params), build_sampler)
    draws = max(suite.draws, DRAWS)
    allowed = suite.budget(target, sampler)
    budget = replace(allowed, draw=Budget.of(0, draws).draw, measure=Cost())
    labels = {"target": target.label, "sampler": f"{sampler.label} · trial {trial}"}
    trial_seed = next(n for n in range(SEED + seed, 2 * SEED) if n not in suite.seeds)
    cell = Cell(
        spec(built),
        built.version,
        spec(build_sampler(chosen)),
        budget,
        trial_seed,
        device,
        draws,
        0,
        labels,
    )
    return cell.rounded() if tf32 else cell


@standard()
def score(cell: Cell, record: Record, runs: Path) -> TrialScore:
    """ELBO, the mean log_w of the method's own paths (nats, <= log Z); without weights minus the
    split R-hat of log p* over its chains.  Neither needs the truth."""
    if not record.status.finished:
        return TrialScore(-math.inf, f"{record.status}: {record.reason}")
    draws = read_outcome(runs, cell.id).draws
    if draws.log_w is not None:
        bound = elbo(draws.log_w, draws.group)
        return TrialScore(_known(bound.value), f"ELBO {bound.value:.4g} ± {bound.se:.2g}")
    if draws.group is None:
        return TrialScore(-math.inf, "neither weights nor chains to judge it by")
    meter = Meter(Cost(len(draws.x), 0))
    problem = pose(build_target(cell.target), build_sampler(cell.sampler).reference, meter.watch)
    if not isinstance(problem.base, Known):
        return TrialScore(-math.inf, "no weights, and a base whose density is not known")
    with torch.no_grad():
        log_p = problem.base.log_end(draws.x) + problem.reward(draws.x)
    rhat = split_rhat(log_p.double(), draws.group)
    return TrialScore(_known(-rhat), f"R-hat {rhat:.4g}", meter.spent.calls)


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def mean_ranks(better: Sequence[Sequence[float]]) -> list[float] | None:
    """`better[target][trial]` -> the mean over targets of a trial's rank, 1 the best; ties share.

    A target on which no trial has a score says nothing; None where that is every target."""
    rows = [-np.asarray(row) for row in better if max(row) > -math.inf]
    if not rows:
        return None
    return [float(rank) for rank in np.mean([rankdata(row) for row in rows], axis=0)]
