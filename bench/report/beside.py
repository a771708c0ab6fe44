"""Samplers of a target whose truth is unknown, side by side: means and quantiles of its named
statistics, how far their draws are from each other, and which is nearer to the target where
`tiltbench versus` has compared them.

Made from the draws on disk, all seeds of a sampler together; of a published set it is what was
published, as the draws are not there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import torch
from torch import Tensor

from tiltbench.estimators import average
from tiltbench.metrics._pairs import two_sample
from tiltbench.records.files import strict
from tiltbench.records.record import Record, read_outcome
from tiltbench.records.store import warn
from tiltbench.report.nearer import Ahead, nearer
from tiltbench.report.targets import targets_of
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.target import Target

if TYPE_CHECKING:
    from tiltbench.report.board import Board
    from tiltbench.report.frame import Frames

QUANTILES = (0.05, 0.5, 0.95)
MOST = 1000  # draws of a run that are compared with those of others


@dataclass(frozen=True)
class StatisticSummary:
    """A statistic over the draws of one sampler; `error` is None where it cannot be estimated."""

    mean: float
    error: float | None
    quantiles: tuple[float, float, float]  # QUANTILES


@dataclass(frozen=True)
class Beside:
    """Samplers of one target beside each other."""

    samplers: tuple[str, ...]  # those whose draws are there
    statistics: dict[str, tuple[StatisticSummary | None, ...]]  # by name, one a sampler
    distances: tuple[tuple[float | None, ...], ...] = ()  # energy distance of every two of them
    nearer: tuple[tuple[Ahead | None, ...], ...] = ()  # of the row than of the column
    apart: dict[str, str] = field(default_factory=dict)  # why others were not compared so

    @property
    def compared(self) -> tuple[tuple[str, ...], tuple[tuple[Ahead | None, ...], ...]]:
        """The samplers that some other could be compared with, and `nearer` of these."""
        indices = [i for i, row in enumerate(self.nearer) if any(row)]
        rows = tuple(tuple(self.nearer[i][j] for j in indices) for i in indices)
        return tuple(self.samplers[i] for i in indices), rows


class Seed(NamedTuple):
    """The finite draws of one run."""

    x: Tensor  # (n, D) float64
    weight: Tensor  # (n,), sums to 1
    group: Tensor | None


def with_beside(boards: Sequence[Board], frames: Frames, folder: Path) -> list[Board]:
    """The boards, those of unknown truths with what their samplers say beside each other."""
    stored = {} if frames.beside is None else read_beside(frames.beside)
    result = []
    for board in boards:
        if not board.unknown:
            result.append(board)
        elif frames.beside is not None:
            result.append(board._replace(beside=stored.get(_key(board))))
        else:
            result.append(board._replace(beside=_of_board(board, frames, folder)))
    return result


def _of_board(board: Board, frames: Frames, folder: Path) -> Beside | None:
    mine = set(board.of(frames.runs)["id"])
    records = [record for record in frames.records if record.id in mine]
    target = targets_of(records[:1], folder / "runs").get(board.target)
    if target is None:
        return None
    comparison = beside(target, seeds_of(folder / "runs", records, target.dim))
    pairs, why = nearer(board, folder)
    if comparison is None or not (pairs or why):
        return comparison
    rows = tuple(tuple(pairs.get((a, b)) for b in comparison.samplers) for a in comparison.samplers)
    return replace(comparison, nearer=rows if pairs else (), apart=dict(why))


def written(boards: Sequence[Board]) -> list[dict[str, Any]]:
    """JSON of what the boards have beside each other, for `read_beside`."""
    return [
        strict({"board": _key(board), **msgspec.to_builtins(board.beside)})
        for board in boards
        if board.beside is not None
    ]


def read_beside(rows: Sequence[Any]) -> dict[tuple[str, int, str], Beside]:
    """By board.  What is not as it was written is left out, with a warning."""
    comparisons = {}
    for row in rows:
        try:
            target, budget, limits = row["board"]
            comparisons[str(target), int(budget), str(limits)] = msgspec.convert(row, Beside)
        except (TypeError, ValueError, KeyError, msgspec.ValidationError) as error:
            warn(f"what samplers say beside each other cannot be read ({error}): it is left out")
    return comparisons


def _key(board: Board) -> tuple[str, int, str]:
    return board.target, board.budget, board.limits


def seeds_of(runs: Path, records: Sequence[Record], dim: int) -> dict[str, list[Seed]]:
    """By sampler: its finished runs, in the order of seeds.  Runs without draws here are left out,
    and named where their file cannot be read."""
    seeds: dict[str, list[Seed]] = {}
    for record in sorted(records, key=lambda r: (r.labels["sampler"], r.spec["seed"])):
        if not record.status.finished or not (runs / f"{record.id}.npz").exists():
            continue
        try:
            seed = _seed(read_outcome(runs, record.id).draws, dim)
        except Exception as error:
            warn(f"{record.id}.npz is in no table ({type(error).__name__}: {error})")
            continue
        if seed is not None:
            seeds.setdefault(record.labels["sampler"], []).append(seed)
    return seeds


def _seed(draws: Draws, dim: int) -> Seed | None:
    """None where nothing is left: draws of another dimension, none finite, or no weight."""
    if draws.x.shape[1:] != (dim,):
        return None
    finite = draws.x.isfinite().all(-1)
    log_w = torch.zeros(len(draws.x)) if draws.log_w is None else draws.log_w
    log_w = torch.where(finite, log_w.double(), -torch.inf)[finite]
    weight = torch.softmax(log_w, 0)
    if len(log_w) < 2 or not bool(weight.isfinite().all()):
        return None
    return Seed(
        draws.x[finite].double(), weight, None if draws.group is None else draws.group[finite]
    )


def beside(target: Target, seeds: Mapping[str, Sequence[Seed]]) -> Beside | None:
    """None where nobody has draws."""
    if not seeds:
        return None
    statistics = {
        name: tuple(_summarise(target, name, f, runs) for runs in seeds.values())
        for name, f in target.statistics().items()
    }
    return Beside(tuple(seeds), statistics, _distances(target, seeds))


def _summarise(target: Target, name: str, f: Any, runs: Sequence[Seed]) -> StatisticSummary | None:
    """None, with a warning, where the statistic of a plug-in fails."""
    try:
        values = [(f(seed.x).double(), seed) for seed in runs]
    except Exception as error:
        warn(f"no {name} of {target.name}: {type(error).__name__}: {error}")
        return None
    means, errors = zip(*(_mean(y, seed) for y, seed in values), strict=True)
    y = torch.cat([y for y, _ in values])
    weight = torch.cat([seed.weight for _, seed in values]) / len(values)
    se = _error(means, errors)
    mean, quantiles = sum(means) / len(means), _quantiles(y, weight)
    if not all(map(math.isfinite, (mean, *quantiles))):
        return None
    return StatisticSummary(mean, se if math.isfinite(se) else None, quantiles)


def _mean(y: Tensor, seed: Seed) -> tuple[float, float]:
    """The weighted mean and its error by the delta method: that of the mean of n w (y - mean)."""
    mean = float((seed.weight * y).sum())
    return mean, average(len(y) * seed.weight * (y - mean), seed.group).se


def _error(means: Sequence[float], errors: Sequence[float]) -> float:
    """Of the mean over runs: the larger of what they state and of their spread; NaN for neither."""
    n, stated = len(means), [e for e in errors if e == e]
    within = math.sqrt(sum(e**2 for e in stated)) / n if stated else math.nan
    spread = float(torch.tensor(means, dtype=torch.float64).std()) / math.sqrt(n) if n > 1 else 0.0
    return max(within, spread) if stated else spread or math.nan


def _quantiles(y: Tensor, weight: Tensor) -> tuple[float, float, float]:
    """The smallest value below which the share of the weight lies."""
    order = y.argsort()
    below = weight[order].cumsum(0)
    at = torch.searchsorted(below, torch.tensor(QUANTILES, dtype=below.dtype) * below[-1])
    low, middle, high = y[order][at.clamp(max=len(y) - 1)].tolist()
    return low, middle, high


def _distances(
    target: Target, seeds: Mapping[str, Sequence[Seed]]
) -> tuple[tuple[float | None, ...], ...]:
    """The energy distance between draws as they are, a median over pairs of runs; on the diagonal
    that of two runs of one sampler.  () where there is nothing to compare."""
    names = list(seeds)
    if len(names) < 2 and all(len(runs) < 2 for runs in seeds.values()):
        return ()
    source = torch.Generator().manual_seed(0)
    sets = {name: [_thinned(target, seed, source) for seed in runs] for name, runs in seeds.items()}
    distances: dict[tuple[str, str], float | None] = {}
    for i, name in enumerate(names):
        for other in names[i:]:
            distances[name, other] = distances[other, name] = _between(
                sets[name], sets[other], name == other
            )
    return tuple(tuple(distances[name, other] for other in names) for name in names)


def _thinned(target: Target, seed: Seed, source: torch.Generator) -> Tensor:
    indices = torch.linspace(0, len(seed.x) - 1, min(len(seed.x), MOST)).round().long()
    return target.posed(target.project(seed.x[indices]), source)


def _between(one: Sequence[Tensor], two: Sequence[Tensor], same: bool) -> float | None:
    """The median; None where a sampler has one run to compare with itself."""
    pairs = [(x, y) for i, x in enumerate(one) for j, y in enumerate(two) if not same or i < j]
    if not pairs:
        return None
    distances = [_distance(x, y) for x, y in pairs]
    return float(torch.tensor(distances, dtype=torch.float64).median())


def _distance(x: Tensor, y: Tensor) -> float:
    middle = y.mean(0)  # far from the origin the squared norms inside a distance would cancel
    return two_sample(lambda distance: distance, x - middle, y - middle, None).value
