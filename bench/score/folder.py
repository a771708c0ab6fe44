"""Scores every run of a folder from disk: what is due, its floors, and the processes that do it.

Nothing is run; `<id>.scores.json` is written beside each record (see `evaluate` for what it holds).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tiltbench.plan.plugins import deciding, metric_hash, metric_modules, truth_hash
from tiltbench.plan.source import package
from tiltbench.plan.spec import METRICS, Spec, build_target
from tiltbench.processes import pool
from tiltbench.records.files import read_json, write_json
from tiltbench.records.located import located
from tiltbench.records.record import Record
from tiltbench.records.store import read_scores, records, warn
from tiltbench.score.curve import DISTANCES, ENERGY
from tiltbench.score.evaluate import evaluate
from tiltbench.score.floor import (
    SHIPPED,
    Floors,
    FloorTable,
    TargetFloors,
    compared,
    entry,
    floors_key,
    measure,
    metric_key,
    read_floors,
    sample_metrics,
    write_floors,
)
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.settings import standard

SCORER = "score.evaluate"
FEW = 4  # runs that are scored in this process: starting others takes seconds

Progress = Callable[[int, int], None]  # (runs scored, runs to score)
Each = Callable[[Callable[[Any], Any], list[Any]], Iterator[Any]]  # map, in order


@dataclass(frozen=True)
class Scored:
    """What came of scoring a folder."""

    done: int  # runs that have new scores
    kept: int  # runs whose targets cannot be built here, which keep the scores they had
    blank: int  # such runs that had none: their scores are nulls with the reason
    reasons: tuple[str, ...]  # why, each once
    stayed: tuple[str, ...] = ()  # of each run some of whose scores failed and stay as they were

    def warning(self, folder: Path) -> str:
        """What could not be scored, a sentence each; empty where all was."""
        return "\n".join(filter(None, (self._unbuilt(folder), self._stayed())))

    def _stayed(self) -> str:
        if not self.stayed:
            return ""
        runs = len(self.stayed)
        return (
            f"scores of {runs} run{'s' if runs > 1 else ''} could not be made again and stay as "
            f"they were ({self.stayed[0].rstrip('.')}); mend that, and score again"
        )

    def _unbuilt(self, folder: Path) -> str:
        if not self.reasons:
            return ""
        keep = f"{self.kept} runs keep the scores they had" if self.kept else ""
        lack = f"{self.blank} runs have no scores" if self.blank else ""
        others = len(self.reasons) - 1
        more = f"; and {others} other reason{'s' if others > 1 else ''}" if others else ""
        reason = self.reasons[0].rstrip(".")
        return (
            f"{' and '.join(filter(None, (keep, lack)))}, as their targets cannot be built here "
            f"({reason}{more}); put the plug-in where the record names it, or lend it: "
            f"`tiltbench score {folder} --plugin FILE.py`"
        )


def score(
    folder: Path, force: bool = False, jobs: int = 0, progress: Progress | None = None
) -> int:
    """As `score_runs`; returns how many runs were scored, and says on stderr which could not be."""
    scored = score_runs(folder, force, jobs, progress)
    if warning := scored.warning(folder):
        warn(warning)
    return scored.done


def score_runs(
    folder: Path, force: bool = False, jobs: int = 0, progress: Progress | None = None
) -> Scored:
    """Scores the finished runs of `folder`/runs that the present code has not scored yet (all of
    them where `force`), on `jobs` processes (0: one a core).

    A metric that fails is a null with its reason; other metrics and runs go on.  A run whose target
    cannot be built here keeps the scores it has, as long as they are of its draws."""
    runs = folder / "runs"
    finished = [record for record in records(runs) if record.status.finished]
    placed = {record.id: located(record, runs) for record in finished}
    codes = {run: scoring_code(target) for run, target in placed.items()}
    due = [r for r in finished if force or not _current(runs, r.id, codes[r.id])]
    due.sort(key=lambda r: (json.dumps(r.spec["target"], sort_keys=True), r.spec["seed"]))
    if not due:
        return Scored(0, 0, 0, ())
    ended = []
    with _workers(jobs or os.cpu_count() or 1, len(due)) as each:
        table = _floors(folder / "floors.json", runs, due, placed, each)
        tasks = [(runs, r.id, codes[r.id], _floors_by_draws(table, r, placed[r.id])) for r in due]
        for done, result in enumerate(each(_score_run, tasks), 1):
            ended.append(result)
            if result.curve_error:
                warn(f"{runs}: {result.curve_error}")
            if progress:
                progress(done, len(due))
    unbuilt = [run for run in ended if run.unbuilt]
    kept = sum(run.kept for run in unbuilt)
    reasons = tuple(dict.fromkeys(run.unbuilt for run in unbuilt))
    stayed = tuple(run.failed for run in ended if run.failed)
    return Scored(len(due) - len(unbuilt), kept, len(unbuilt) - kept, reasons, stayed)


def scoring_code(target: Spec) -> str:
    """A hash of what decides the scores of runs on a target (its spec, `located`): the syntax of
    the target's files, of every metric's and of what they import, and the target's shipped floors.

    Scores of earlier versions have 16 digits or 32, of the bytes of all files."""
    modules, files = deciding(target, TARGETS)
    metrics, lent = metric_modules()
    parts = [
        package().hash({SCORER, *modules, *metrics}, files | lent),
        truth_hash(target["name"]),
        metric_hash(),
        _shipped(SHIPPED.read_bytes() if SHIPPED.exists() else b"").get(_key(target), ""),
    ]
    return "syntax " + hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


@lru_cache(maxsize=2)
def _shipped(content: bytes) -> dict[str, str]:
    """A hash of the shipped floors of each target."""
    hashes: dict[str, Any] = {}
    for row in json.loads(content)["floors"] if content else ():
        total = hashes.setdefault(_key(row["target"]), hashlib.sha256())
        total.update(json.dumps(row, sort_keys=True).encode())
    return {target: total.hexdigest() for target, total in hashes.items()}


def _key(target: Spec) -> str:
    return json.dumps(target, sort_keys=True)


class _Ended(NamedTuple):
    """How the scoring of a run ended: why its target cannot be built ("" where it can), whether the
    scores it had were kept, and what is wrong with its learning curve ("" for nothing)."""

    unbuilt: str
    kept: bool
    curve_error: str = ""
    failed: str = ""  # why scores that were there could not be made again, and stay


@standard()
def _score_run(task: tuple[Path, str, str, Floors]) -> _Ended:
    runs, run, code, floors = task
    data, evaluation = _data(runs, run), evaluate(runs, run, floors)
    old = _former(runs, run, data)
    if evaluation.unbuilt and old:  # reasons why there is no number are worth keeping too
        return _Ended(evaluation.unbuilt, True)
    scored, former = evaluation.json(), old.get("scores", {})
    failed = [n for n, s in evaluation.scores.items() if s.raised and _known(former.get(n))]
    reason = evaluation.scores[failed[0]].reason if failed else ""
    if evaluation.curve_error and old.get("curve"):
        scored["curve"], reason = old["curve"], reason or evaluation.curve_error
    # those of a metric that no --plugin lends this time, and those that failed this time
    lent = {n: s for n, s in former.items() if n.removesuffix("_weighted") not in METRICS.entries}
    scored["scores"] = {**lent, **scored["scores"], **{n: former[n] for n in failed}}
    if reason:
        scored["stayed"] = reason  # the run is due again
    write_json(runs / f"{run}.scores.json", {"code": code, "data": data, **scored})
    return _Ended(evaluation.unbuilt, False, evaluation.curve_error, reason)


def _known(score: Any) -> bool:
    return isinstance(score, dict) and score.get("value") is not None


def _former(runs: Path, run: str, data: str) -> dict[str, Any]:
    """The scores file of a run, where it is of its present draws and of a target that was built."""
    try:
        scores = read_scores(runs, run)
    except ValueError:
        return {}
    if scores is None or scores.get("data") != data or scores.get("unbuilt"):
        return {}
    return scores


def _current(runs: Path, run: str, code: str) -> bool:
    try:
        scores = read_scores(runs, run)
    except ValueError:
        return False
    if scores is None or scores.get("unbuilt") or scores.get("stayed"):
        return False
    return scores.get("code") == code and scores.get("data") == _data(runs, run)


def _data(runs: Path, run: str) -> str:
    """A hash of what was scored: scores of a run that has been repeated are out of date."""
    return _digest([runs / f"{run}.npz", runs / f"{run}.curve.npz"])


def _digest(files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes() if path.exists() else b""
        total.update(f"{path.name} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()[:16]


def _floors(
    path: Path, runs: Path, due: list[Record], placed: Mapping[str, Spec], each: Each
) -> FloorTable:
    """Every floor that the runs need: shipped, kept in `path` from before, or measured now.
    `placed` has the target of each run as it is built here."""
    table = _joined(read_floors(SHIPPED), read_floors(path))
    wanted: dict[str, tuple[_Asked, set[str]]] = {}
    files: dict[str, str] = {}
    for record in due:
        target, version = record.spec["target"], record.spec["target_version"]
        file = files.setdefault(_key(target), truth_hash(placed[record.id]["name"]))
        n, of_curve = _counts(runs, record)
        for count, names in ((n, set(sample_metrics())), (of_curve, {*DISTANCES, ENERGY})):
            if count > 1:
                asked = _Asked(target, placed[record.id], version, count, file)
                wanted.setdefault(asked.key, (asked, set()))[1].update(names)
    tasks = []
    for key, (asked, names) in wanted.items():
        lacking = {name for name in names if metric_key(name) not in table.get(key, {})}
        if lacking:
            tasks.append((asked, tuple(sorted(lacking))))
    fresh = [
        entry(asked.target, asked.version, asked.n, floors, asked.file)
        for asked, floors in each(_measure, tasks)
        if floors is not None
    ]
    if fresh:
        kept = read_json(path)["floors"] if path.exists() else []
        # those of a file that has been edited since are of no use
        kept = [
            e for e in kept if e.get("file", "") == files.get(_key(e["target"]), e.get("file", ""))
        ]
        write_floors(path, [*kept, *fresh])
    return _joined(table, read_floors(path))


class _Asked(NamedTuple):
    """A target whose floors are to be measured: as recorded, as built here, and the hash of its
    plug-in file."""

    target: Spec
    placed: Spec
    version: int
    n: int
    file: str

    @property
    def key(self) -> str:
        return floors_key(self.target, self.version, self.n, self.file)


def _joined(first: FloorTable, second: FloorTable) -> FloorTable:
    return {key: {**first.get(key, {}), **second.get(key, {})} for key in {**first, **second}}


def _counts(runs: Path, record: Record) -> tuple[int, int]:
    """(draws of the run, draws at each point of its curve; 0 without a curve)."""
    counts = []
    for suffix, axis in ((".npz", 0), (".curve.npz", 1)):
        path = runs / f"{record.id}{suffix}"
        try:
            with np.load(path, allow_pickle=False) as data:
                counts.append(data["x"].shape[axis])
        except Exception:  # none, or truncated: the scores say why
            counts.append(0)
    return compared(counts[0]), counts[1]


@standard()
def _measure(task: tuple[_Asked, tuple[str, ...]]) -> tuple[_Asked, TargetFloors | None]:
    """None where the target cannot be built."""
    asked, names = task
    try:
        target = build_target(asked.placed)
    except Exception:  # the scores of its runs say why
        return asked, None
    chosen = {name: metric for name, metric in sample_metrics().items() if name in names}
    return asked, measure(target, chosen, asked.n)


def _floors_by_draws(table: FloorTable, record: Record, placed: Spec) -> dict[int, TargetFloors]:
    """The floors of the record's target, by number of draws."""
    target = record.spec["target"]
    file = truth_hash(placed["name"])
    start = floors_key(target, record.spec["target_version"], 0, file).removesuffix("0")
    names = {metric_key(name): name for name in METRICS.entries}
    return {
        int(key.removeprefix(start)): {names[s]: floor for s, floor in floors.items() if s in names}
        for key, floors in table.items()
        if key.startswith(start)
    }


@contextmanager
def _workers(jobs: int, tasks: int) -> Iterator[Each]:
    """A map over `jobs` processes of one thread each; this process where there is little to do.

    Results come in order."""
    if jobs < 2 or tasks <= FEW or multiprocessing.current_process().daemon:  # may have no children
        yield lambda f, items: map(f, items)
        return
    with pool(jobs) as workers:
        # neighbours share a target and a seed, hence a reference set: keep them in one process
        yield lambda f, items: workers.map(f, items, chunksize=max(len(items) // (8 * jobs), 1))
