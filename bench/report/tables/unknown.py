"""What samplers say of a target whose truth is unknown, side by side: means and quantiles of its
named statistics, and how far their draws are from each other.

Made from the draws on disk, all seeds of a sampler together; nothing where they are not there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tiltbench.estimators import average
from tiltbench.metrics._pairs import two_sample
from tiltbench.records.record import Record, read_outcome
from tiltbench.records.store import warn
from tiltbench.report.tables.grid import code, grid
from tiltbench.report.tables.legend import number
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.target import Target

QUANTILES = (0.05, 0.5, 0.95)
MOST = 1000  # draws of a run that are compared with those of others


class Seed(NamedTuple):
    """The finite draws of one run."""

    x: Tensor  # (n, D) float64
    weight: Tensor  # (n,), sums to 1
    group: Tensor | None


def seeds_of(runs: Path, records: Sequence[Record], dim: int) -> dict[str, list[Seed]]:
    """By sampler: its finished runs, in the order of seeds.  Runs without draws here, as in
    published sets, are left out, and named where their file cannot be read."""
    found: dict[str, list[Seed]] = {}
    for record in sorted(records, key=lambda r: (r.labels["sampler"], r.spec["seed"])):
        if not record.status.finished or not (runs / f"{record.id}.npz").exists():
            continue
        try:
            seed = _seed(read_outcome(runs, record.id).draws, dim)
        except Exception as error:
            warn(f"{record.id}.npz is in no table ({type(error).__name__}: {error})")
            continue
        if seed is not None:
            found.setdefault(record.labels["sampler"], []).append(seed)
    return found


def _seed(draws: Draws, dim: int) -> Seed | None:
    """None where nothing is left: draws of another dimension, none finite, or no weight."""
    if draws.x.shape[1:] != (dim,):
        return None
    kept = draws.x.isfinite().all(-1)
    log_w = torch.zeros(len(draws.x)) if draws.log_w is None else draws.log_w
    log_w = torch.where(kept, log_w.double(), -torch.inf)[kept]
    weight = torch.softmax(log_w, 0)
    if len(log_w) < 2 or not bool(weight.isfinite().all()):
        return None
    return Seed(draws.x[kept].double(), weight, None if draws.group is None else draws.group[kept])


def unknown(target: Target, seeds: Mapping[str, Sequence[Seed]]) -> str:
    """Both tables in Markdown; empty where nobody has draws."""
    parts = [_said(target, seeds), _apart(target, seeds)] if seeds else []
    return "\n\n".join(part for part in parts if part)


def _said(target: Target, seeds: Mapping[str, Sequence[Seed]]) -> str:
    """A row a statistic, a column a sampler: mean ± error, and three quantiles below it."""
    functions = target.statistics()
    rows = []
    for name, f in functions.items():
        cells = [code(name)]
        for own in seeds.values():
            try:
                cells.append(_cell([(f(seed.x).double(), seed) for seed in own]))
            except Exception as error:  # the statistic of a plug-in
                warn(f"no {name} of {target.name}: {type(error).__name__}: {error}")
                cells.append("–")
        rows.append(cells)
    if not rows:
        return ""
    caption = (
        "**What the samplers say: mean ± standard error of each statistic, with the quantiles "
        "5 %, 50 % and 95 %**\n\nWeighted where a sampler has weights. An error is that of the "
        "spread of independent chains, islands or weights within the runs, or of the runs about "
        "each other where that is larger. Agreement is no proof: samplers that miss the same part "
        "agree."
    )
    return f"{caption}\n\n{grid(['statistic', *map(code, seeds)], rows)}"


def _cell(found: Sequence[tuple[Tensor, Seed]]) -> str:
    means, errors = zip(*(_mean(y, seed) for y, seed in found), strict=True)
    mean = sum(means) / len(means)
    y = torch.cat([y for y, _ in found])
    weight = torch.cat([seed.weight for _, seed in found]) / len(found)
    shown = ", ".join(number(q) for q in _quantiles(y, weight))
    return f"{number(mean)} ± {_error(means, errors):.1g}<br>{shown}"


def _mean(y: Tensor, seed: Seed) -> tuple[float, float]:
    """The weighted mean and its error by the delta method: that of the mean of n w (y - mean)."""
    mean = float((seed.weight * y).sum())
    return mean, average(len(y) * seed.weight * (y - mean), seed.group).se


def _error(means: Sequence[float], errors: Sequence[float]) -> float:
    """Of the mean over runs: the larger of what they state and of their spread."""
    n = len(means)
    within = math.sqrt(sum(e**2 for e in errors if e == e)) / n
    spread = float(torch.tensor(means, dtype=torch.float64).std()) / math.sqrt(n) if n > 1 else 0.0
    return max(within, spread)


def _quantiles(y: Tensor, weight: Tensor) -> list[float]:
    """The smallest value below which the share of the weight lies."""
    order = y.argsort()
    below = weight[order].cumsum(0)
    at = torch.searchsorted(below, torch.tensor(QUANTILES, dtype=below.dtype) * below[-1])
    return y[order][at.clamp(max=len(y) - 1)].tolist()


def _apart(target: Target, seeds: Mapping[str, Sequence[Seed]]) -> str:
    """A matrix of energy distances between draws as they are, each a median over pairs of runs."""
    names = list(seeds)
    if len(names) < 2 and all(len(own) < 2 for own in seeds.values()):
        return ""
    source = torch.Generator().manual_seed(0)
    sets = {name: [_thinned(target, seed, source) for seed in own] for name, own in seeds.items()}
    rows = []
    for name in names:
        rows.append([code(name), *(_between(sets[name], sets[o], name == o) for o in names)])
    caption = (
        "**How far samplers are from each other: the energy distance between their draws, before "
        "weighting**\n\nA median over pairs of runs. On the diagonal stand two runs of one sampler "
        "with different seeds: distances of that size say nothing."
    )
    return f"{caption}\n\n{grid(['sampler', *map(code, names)], rows)}"


def _thinned(target: Target, seed: Seed, source: torch.Generator) -> Tensor:
    kept = torch.linspace(0, len(seed.x) - 1, min(len(seed.x), MOST)).round().long()
    return target.posed(target.project(seed.x[kept]), source)


def _between(one: Sequence[Tensor], two: Sequence[Tensor], same: bool) -> str:
    """The median; a dash where a sampler has one run to compare with itself."""
    pairs = [(x, y) for i, x in enumerate(one) for j, y in enumerate(two) if not same or i < j]
    if not pairs:
        return "–"
    found = [_distance(x, y) for x, y in pairs]
    return number(float(torch.tensor(found, dtype=torch.float64).median()))


def _distance(x: Tensor, y: Tensor) -> float:
    middle = y.mean(0)  # far from the origin the squared norms inside a distance would cancel
    return two_sample(lambda distance: distance, x - middle, y - middle, None).value
