"""Scores every run of a folder from disk: what is due, its floors, and the processes that do it.

Nothing is run; `<id>.scores.json` is written beside each record (see `evaluate` for what it holds).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tiltbench import targets
from tiltbench.plan.plugins import metric_sources, plugin_hash
from tiltbench.plan.spec import METRICS, Spec, build_target
from tiltbench.processes import pool
from tiltbench.records.files import read_json, write_json
from tiltbench.records.record import Record
from tiltbench.records.store import read_scores, records, warn
from tiltbench.samplers import weights
from tiltbench.score.curve import DISTANCES, ENERGY
from tiltbench.score.evaluate import evaluate
from tiltbench.score.floor import (
    SHIPPED,
    Book,
    Floors,
    compared,
    entry,
    measure,
    page,
    read_book,
    sample_metrics,
    shelf,
    write_book,
)
from tiltbench.score.floor import Page as FloorsOfPage
from tiltbench.targets.settings import standard

HERE = Path(__file__).resolve().parents[1]
FEW = 4  # runs that are scored in this process: starting others takes seconds

Progress = Callable[[int, int], None]  # (runs scored, runs to score)
Each = Callable[[Callable[[Any], Any], list[Any]], Iterator[Any]]  # map, in order


def score(
    folder: Path, force: bool = False, jobs: int = 0, progress: Progress | None = None
) -> int:
    """Scores the finished runs of `folder`/runs that the present code has not scored yet (all of
    them where `force`), on `jobs` processes (0: one a core).  Returns how many were scored.

    A metric that fails is a null with its reason; other metrics and runs go on."""
    runs, code = folder / "runs", scoring_code()
    finished = [record for record in records(runs) if record.status.finished]
    codes = {r.id: code + plugin_hash(r.spec["target"]["name"]) for r in finished}
    due = [r for r in finished if force or not _current(runs, r.id, codes[r.id])]
    due.sort(key=lambda r: (json.dumps(r.spec["target"], sort_keys=True), r.spec["seed"]))
    if not due:
        return 0
    with _workers(jobs or os.cpu_count() or 1, len(due)) as each:
        book = _floors(folder / "floors.json", runs, due, each)
        tasks = [(runs, r.id, codes[r.id], _pages(book, r)) for r in due]
        for done, wrong in enumerate(each(_score_run, tasks), 1):
            if wrong:
                warn(f"{runs}: {wrong}")
            if progress:
                progress(done, len(due))
    return len(due)


def scoring_code() -> str:
    """A hash of everything that decides a score: metrics, targets, floors."""
    files = [*HERE.glob("metrics/*.py"), *HERE.glob("score/*.py"), SHIPPED]
    files += [HERE / "estimators.py", HERE / "metric.py"]
    files += [*Path(str(targets.__file__)).parent.rglob("*.py"), Path(str(weights.__file__))]
    return _digest([*files, *metric_sources()])


@standard()
def _score_run(task: tuple[Path, str, str, Floors]) -> str:
    """Writes the scores; returns what is wrong with the learning curve, "" for nothing."""
    runs, run, code, floors = task
    data, found = _data(runs, run), evaluate(runs, run, floors)
    write_json(runs / f"{run}.scores.json", {"code": code, "data": data, **found})
    return str(found.get("curve_error", ""))


def _current(runs: Path, run: str, code: str) -> bool:
    try:
        found = read_scores(runs, run)
    except ValueError:
        return False
    return found is not None and found.get("code") == code and found.get("data") == _data(runs, run)


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


def _floors(path: Path, runs: Path, due: list[Record], each: Each) -> Book:
    """Every floor that the runs need: shipped, kept in `path` from before, or measured now."""
    book = _joined(read_book(SHIPPED), read_book(path))
    wanted: dict[str, tuple[Spec, int, int, set[str]]] = {}
    for record in due:
        target, version = record.spec["target"], record.spec["target_version"]
        n, of_curve = _counts(runs, record)
        for count, names in ((n, set(sample_metrics())), (of_curve, {*DISTANCES, ENERGY})):
            if count > 1:
                key = page(target, version, count, plugin_hash(target["name"]))
                wanted.setdefault(key, (target, version, count, set()))[3].update(names)
    tasks = []
    for key, (target, version, n, names) in wanted.items():
        lacking = {name for name in names if shelf(name) not in book.get(key, {})}
        if lacking:
            tasks.append((target, version, n, tuple(sorted(lacking))))
    fresh = [entry(*found) for found in each(_measure, tasks)]
    if fresh:
        kept = read_json(path)["floors"] if path.exists() else []
        kept = [e for e in kept if e.get("file", "") == plugin_hash(e["target"]["name"])]
        write_book(path, [*kept, *fresh])
    return _joined(book, read_book(path))


def _joined(first: Book, second: Book) -> Book:
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
def _measure(task: tuple[Spec, int, int, tuple[str, ...]]) -> tuple[Spec, int, int, FloorsOfPage]:
    spec, version, n, names = task
    try:
        target = build_target(spec)
    except Exception:  # the scores of its runs say why
        return spec, version, n, dict.fromkeys(names)
    chosen = {name: metric for name, metric in sample_metrics().items() if name in names}
    return spec, version, n, measure(target, chosen, n)


def _pages(book: Book, record: Record) -> dict[int, FloorsOfPage]:
    """The floors of the record's target, by number of draws."""
    target = record.spec["target"]
    file = plugin_hash(target["name"])
    start = page(target, record.spec["target_version"], 0, file).removesuffix("0")
    names = {shelf(name): name for name in METRICS.entries}
    return {
        int(key.removeprefix(start)): {names[s]: floor for s, floor in found.items() if s in names}
        for key, found in book.items()
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
