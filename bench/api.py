"""The suite from Python, in a script or a notebook:

    from tiltbench.api import cell, run, score
    run(cell("gmm9", "smc", budget=10_000))
    score()

Targets and samplers are given as on the command line ("gmm_weighted[dim=16]", "path/to/file.py"),
or as objects: a target, a loss, a sampler, also of classes written in this session.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.engine.base import Event
from tiltbench.engine.gpus import evenly, picked, visible
from tiltbench.engine.local import Local
from tiltbench.engine.lock import alone
from tiltbench.engine.progress import Display, display
from tiltbench.plan.budget import usual_calls
from tiltbench.plan.cell import Cell, Limits
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.plugins import in_session, offer, plugged
from tiltbench.plan.spec import METRICS, label, registered_name, spec
from tiltbench.plan.suite import Choice, Suite
from tiltbench.plan.text import written_name
from tiltbench.records.provenance import code_identity, code_of, same_code
from tiltbench.records.record import Record
from tiltbench.records.recorded import is_published
from tiltbench.records.store import records, undamaged
from tiltbench.report.export import inference_data
from tiltbench.report.frame import collect
from tiltbench.run.phases import run_cell
from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Loss
from tiltbench.samplers.sampler import Sampler
from tiltbench.score.folder import score as score_folder
from tiltbench.targets.files import split
from tiltbench.targets.settings import preserved, standard
from tiltbench.targets.target import Target
from tiltbench.trained.chosen import chosen
from tiltbench.trained.reload import Loaded
from tiltbench.trained.reload import load as load_run

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Cell", "Loaded", "cell", "cells", "inference_data", "load", "offer", "plugged"]
__all__ += ["run", "score"]

FOLDER = Path("results/python")

Given = str | Target | type[Target]
Method = str | Loss | Preset | Sampler[Any] | type[Sampler[Any]]


def cell(
    target: Given,
    sampler: Method,
    budget: int | None = None,
    seed: int = 0,
    draws: int = 1_000,
    curve: int = 0,
    device: str = "cpu",
    tf32: bool = False,
    flops: float = math.inf,
    seconds: float = math.inf,
    ode: int = 0,
) -> Cell:
    """One run: training takes at most `budget` calls of the target (None: 40,000, or no limit where
    flops or seconds are limited), `flops` floating-point operations and `seconds` of its clock;
    `draws` to score, `curve` draws at each of 8 points of the learning curve and `ode` of the
    method's flow, whose density is measured (0: none).  `tf32` lets a GPU round factors of float32
    (a run of another name).  Raises BadSpec or UnknownName for what cannot be built."""
    given = (draws, curve, device, tf32, flops, seconds, ode)
    return cells([target], [sampler], budget, [seed], *given)[0]


@standard()
def cells(
    targets: Given | Iterable[Given],
    samplers: Method | Iterable[Method],
    budget: int | None = None,
    seeds: int | Sequence[int] = (0, 1, 2),
    draws: int = 1_000,
    curve: int = 0,
    device: str = "cpu",
    tf32: bool = False,
    flops: float = math.inf,
    seconds: float = math.inf,
    ode: int = 0,
) -> list[Cell]:
    """The product of targets, samplers and seeds, targets outermost; otherwise as `cell`.

    `seeds` is how many (3: seeds 0, 1 and 2), or which; one target or sampler needs no list."""
    _above_zero("flops", flops)
    _above_zero("seconds", seconds)
    calls = usual_calls(flops, seconds) if budget is None else budget
    _above_zero("budget", calls, whole=True)
    _above_zero("draws", draws, whole=True)
    for name, count in (("curve", curve), ("ode", ode)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise BadSpec(f"{name} is {count!r}; it must be a whole number, 0 for none")
    suite = Suite(
        "python",
        "",
        int(calls),
        draws,
        tuple(range(seeds) if isinstance(seeds, int) else seeds),
        tuple(_choice(target) for target in _listed(targets)),
        tuple(_choice(sampler) for sampler in _listed(samplers)),
        curve=curve,
        flops=flops,
        seconds=seconds,
        ode=ode,
    )
    return suite.cells(device, tf32)


def _above_zero(name: str, limit: Any, whole: bool = False) -> None:
    """Raises BadSpec: a record of a limit that is none would spoil its folder."""
    number = isinstance(limit, int | float) and limit > 0
    if not number or (whole and not float(limit).is_integer()):
        raise BadSpec(f"{name} is {limit!r}; it must be a {'whole ' * whole}number above 0")


def _listed(things: Any) -> list[Any]:
    one = isinstance(things, str | type | Target | Loss | Preset | Sampler)
    return [things] if one else list(things)


def _choice(thing: Any) -> Choice:
    if isinstance(thing, str):
        return Choice.of(thing)
    if isinstance(thing, Loss | Preset):
        return Choice({"name": _home(thing), "params": {}}, thing.name)
    instance = thing() if isinstance(thing, type) else thing
    _home(instance.loss if isinstance(instance, Diffusion) else type(instance))
    full = spec(instance)
    short = label(instance, full)
    file = split(full["name"])
    name = written_name(file.name if file else full["name"])
    return Choice(full, name + short.removeprefix(written_name(full["name"])))


def _home(thing: Any) -> str:
    """The name that a thing is registered by, in this session where it is nowhere else."""
    name = registered_name(thing)
    if name is None:
        offer(thing)
    return name or str(thing.name)


@preserved()  # libraries that show progress draw random numbers too
def run(todo: Cell | Iterable[Cell], folder: str | Path = FOLDER, jobs: int = 1) -> DataFrame:
    """Runs the cells, scores them, and returns a row for each (columns: `report.frame.COLUMNS`).

    Cells that `folder` holds already, finished and by this very code, are not run again.  One job
    runs them one after the other in this process, more of them in as many others, killed at the
    limits of a suite.  Ctrl-C keeps what has ended.  Raises BadSpec where a cell of more jobs needs
    what exists in this session only, and Refused where the folder cannot be used."""
    wanted = [todo] if isinstance(todo, Cell) else list(todo)
    hidden = [name for c in wanted for name in (c.target["name"], c.sampler["name"])]
    hidden = [name for name in hidden if in_session(name)]
    if jobs > 1 and hidden:
        raise BadSpec(
            f"{hidden[0]} exists in this session only, where other processes cannot see it; write "
            "it in a file and name the file, or leave jobs at 1"
        )
    folder, code = Path(folder), code_identity()
    with alone(folder):
        due = [c for c in wanted if not _current(c, folder, code)]
        with display(len(due)) as shown:
            ended = (
                _one_by_one(due, folder / "runs", code, shown)
                if jobs == 1
                else Local(_places(due, jobs), Limits()).run(
                    due, folder / "runs", code, shown.watch
                )
            )
            for done, record in ended:
                shown.ended(done, record)
    _score(folder)
    runs = collect(folder).runs
    return runs[runs["id"].isin([c.id for c in wanted])].reset_index(drop=True)


def _current(wanted: Cell, folder: Path, code: dict[str, Any]) -> bool:
    record = undamaged(folder / "runs" / f"{wanted.id}.json")
    mine = record is not None and same_code(record.code, code_of(wanted, code))
    return mine and record is not None and record.status.finished


def _places(due: Iterable[Cell], jobs: int) -> tuple[str, ...]:
    """On the GPUs in turns, where there are cells for them."""
    on_gpu = any(c.device == "cuda" for c in due)
    return evenly(picked((), visible()), jobs) if on_gpu else ("",) * jobs


def _one_by_one(
    due: Iterable[Cell], runs: Path, code: dict[str, Any], shown: Display
) -> Iterator[tuple[Cell, Record]]:
    threads = Limits().threads  # as many as in a process of its own: the same numbers
    for c in due:
        shown.watch(Event(c, "starting", 0.0))

        def progress(phase: str, share: float, c: Cell = c) -> None:
            shown.watch(Event(c, phase, share))

        yield c, run_cell(c, runs, progress, threads, code_of(c, code))


@preserved()
def score(folder: str | Path = FOLDER) -> DataFrame:
    """Scores what is not scored yet, and returns a row for every run and metric (columns:
    `report.frame.COLUMNS`); value is NaN where there is none, with its reason.  Of a published
    folder the scores that were published."""
    if not is_published(Path(folder)):
        _score(Path(folder))
    return collect(Path(folder)).scores


def load(run: str | Path, device: str = "cpu", results: str | Path = "results") -> Loaded:
    """A finished run with what it has trained: `load("python/3f2a").draw(10_000, seed=1)` are draws
    with log-weights, and `.calls` what drawing has taken so far.

    `run` is as of `tiltbench draw`: FOLDER/ID, ID or a file of the run, folders being those in
    `results`.  `device` is "cpu" or "cuda", whichever the run was on.  Warns where the code is
    other than that of the run; raises Refused where nothing can be drawn from it."""
    located = chosen(str(run), Path(results))
    loaded = load_run(located.runs, located.record, device)
    if loaded.warning:
        warnings.warn(loaded.warning, stacklevel=2)
    return loaded


def _score(folder: Path) -> None:
    """In this process where a target or a metric lives in this session only."""
    names = [*METRICS.entries, *(r.spec["target"]["name"] for r in records(folder / "runs"))]
    score_folder(folder, jobs=int(any(in_session(name) for name in names)))
