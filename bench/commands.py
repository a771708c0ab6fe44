"""What each word of the command line does.  Heavy imports wait until they are needed."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.base_command import base
from tiltbench.reference_command import reference
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.spec import METRICS, STUDIES, build_target, parse, spec
from tiltbench.suite import Cell, Choice, Limits, Suite, load_suite, suite_names
from tiltbench.targets.registry import TARGETS
from tiltbench.words import RESULTS, Refused, command, listed, seeds, setting, whole

if TYPE_CHECKING:
    from tiltbench.record import Record


def show_list(options: Namespace, arguments: Sequence[str]) -> int:
    if options.kind == "suites":
        lines = suite_names()
    else:
        registry = {
            "targets": TARGETS,
            "samplers": SAMPLERS,
            "metrics": METRICS,
            "studies": STUDIES,
        }[options.kind]
        lines = {name: entry.summary for name, entry in registry.entries.items()}
    width = max((len(name) for name in lines), default=0)
    for name, summary in sorted(lines.items()):
        print(f"{name:{width}}  {summary}")
    return 0


def run(options: Namespace, arguments: Sequence[str]) -> int:
    suite = _suite(options)
    out = Path(options.out) if options.out else RESULTS / suite.name
    device = _device(options.device)
    cells = suite.cells(device)
    with nullcontext() if options.dry_run else alone(out):
        return _run(suite, cells, device, out, options, arguments)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Makes the folder and holds its lock, which the system drops however this process ends.

    Raises Refused where another run holds it or the folder cannot be written."""
    try:
        (out / "runs").mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise Refused(
            f"results cannot be written to {out} ({error.strerror}); name another folder with --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                f"another run is at work in {out}; wait for it, or name another folder with --out"
            ) from error
        yield


def _run(
    suite: Suite,
    cells: list[Cell],
    device: str,
    out: Path,
    options: Namespace,
    arguments: Sequence[str],
) -> int:
    from tiltbench.engine import jobs_for
    from tiltbench.provenance import code_identity

    identity = code_identity()
    recorded = _recorded(cells, out / "runs")
    todo = [cell for cell in cells if _wanted(cell, recorded.get(cell.id), identity, options)]
    jobs = jobs_for(options.jobs, device, suite.limits)
    points = sum(cell.budget.train.values for cell in todo)
    print(
        f"{suite.name}: {len(cells)} cells ({len(suite.targets)} targets x {len(suite.samplers)} "
        f"samplers x {len(suite.seeds)} seeds), {len(todo)} to run on {device}, {jobs} at a time, "
        f"{points:,} training points in all; results in {out}"
    )
    other = sum(_is_stale(cell, recorded.get(cell.id), identity) for cell in cells)
    if other and not (options.stale or options.force):
        print(f"{other} recorded cells come from other code; --stale runs them again")
    if options.dry_run:
        for cell in cells:
            state = "to run" if cell in todo else f"recorded: {recorded[cell.id].status}"
            print(f"  {cell.id}  {cell.title}  {state}")
        return 0
    _write_request(out, suite, cells, arguments)
    try:
        _run_all(todo, out / "runs", jobs, suite.limits, identity)
    except KeyboardInterrupt:
        kept = len(_recorded(cells, out / "runs"))
        print(
            f"\nStopped: {kept} of {len(cells)} cells are recorded in {out}; "
            "the same command carries on from there.",
            file=sys.stderr,
        )
        return 130
    score_and_report(out)
    return _verdict(cells, _recorded(cells, out / "runs"), arguments)


def _suite(options: Namespace) -> Suite:
    """The suite that the options describe.  Raises BadSpec, UnknownName or Refused."""
    targets = listed(options.targets, "--targets")
    samplers = listed(options.samplers, "--samplers")
    if options.suite:
        suite = load_suite(options.suite).only(targets, samplers)
    elif targets and samplers:
        suite = Suite(
            "adhoc",
            "named on the command line",
            40_000,
            1_000,
            (0, 1, 2),
            tuple(Choice.of(text) for text in targets),
            tuple(Choice.of(text) for text in samplers),
            curve=250,
        )
    else:
        raise Refused(
            "name a --suite, or both --targets and --samplers; `tiltbench list` shows them"
        )
    if options.budget is not None:
        suite = replace(suite, budget=whole(options.budget, "--budget"))
    if options.draws is not None:
        suite = replace(suite, draws=whole(options.draws, "--draws"))
    if options.seeds is not None:
        suite = replace(suite, seeds=seeds(options.seeds))
    limits = suite.limits
    if options.time_limit is not None:
        limits = replace(limits, seconds=float(whole(options.time_limit, "--time-limit")))
    if options.memory_limit is not None:
        limits = replace(limits, megabytes=whole(options.memory_limit, "--memory-limit"))
    if options.jobs != "auto":
        whole(options.jobs, "--jobs")
    return replace(suite, limits=limits).spanned(setting(text) for text in options.set)


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise Refused("torch finds no CUDA device here; use --device cpu or auto")
    return name


def _recorded(cells: Sequence[Cell], runs: Path) -> dict[str, Record]:
    """The cells that count as done, with their records."""
    from tiltbench.record import done_record

    found = {cell.id: done_record(runs / f"{cell.id}.json") for cell in cells}
    return {run: record for run, record in found.items() if record is not None}


def _wanted(
    cell: Cell, record: Record | None, identity: Mapping[str, Any], options: Namespace
) -> bool:
    if record is None or options.force:
        return True
    if options.retry and not _good(record):
        return True
    return bool(options.stale) and _is_stale(cell, record, identity)


def _is_stale(cell: Cell, record: Record | None, identity: Mapping[str, Any]) -> bool:
    from tiltbench.provenance import code_of, same_code

    return record is not None and not same_code(record.code, code_of(cell, identity))


def _good(record: Record) -> bool:
    from tiltbench.record import Status

    return record.status.finished or record.status is Status.UNSUPPORTED


def _write_request(out: Path, suite: Suite, cells: list[Cell], arguments: Sequence[str]) -> None:
    """`suite.json`: what the last command in this folder was to run, for `status`."""
    from tiltbench.record import write_json

    rows = [{"id": cell.id, "seed": cell.seed, **cell.labels} for cell in cells]
    head = {"name": suite.name, "description": suite.description, "command": command(arguments)}
    write_json(out / "suite.json", {**head, "cells": rows})


def _run_all(
    todo: list[Cell], runs: Path, jobs: int, limits: Limits, identity: Mapping[str, Any]
) -> None:
    if not todo:
        return
    from tiltbench.engine import run_cells
    from tiltbench.progress import display, duration

    began = time.monotonic()
    with display(len(todo), jobs) as shown:
        for cell, record in run_cells(todo, runs, jobs, limits, identity, shown.watch):
            shown.ended(cell, record)
    print(f"{len(todo)} cells in {duration(time.monotonic() - began)}")


def score_and_report(out: Path) -> None:
    from tiltbench.report import report
    from tiltbench.score import score

    print("scoring ...", flush=True)
    score(out, progress=_scored)
    print(f"writing the report ...\n\n{_table(report(out))}")
    print(_page(out))


def _scored(done: int, total: int) -> None:
    """A line a tenth."""
    if done * 10 // total > (done - 1) * 10 // total:
        print(f"scored {done} of {total}", flush=True)


def _page(out: Path) -> str:
    page = out / "report.html"
    return f"The same with pictures, for a browser: {page} ({page.stat().st_size / 1e6:.1f} MB)"


def _table(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _verdict(cells: list[Cell], recorded: dict[str, Record], arguments: Sequence[str]) -> int:
    failed = [cell for cell in cells if cell.id not in recorded or not _good(recorded[cell.id])]
    if not failed:
        return 0
    print(f"{len(failed)} of {len(cells)} cells failed:")
    for cell in failed:
        record = recorded.get(cell.id)
        why = f"{record.status}: {record.reason}" if record else "no record"
        print(f"  {cell.title}: {why}")
    kept = [word for word in arguments if word not in ("--force", "--stale", "--retry")]
    print(f"To run them again:  {command(kept, '--retry')}")
    return 1


def _folder(name: str) -> Path:
    """The results folder of a suite's name or of a path.  Raises Refused."""
    for folder in (Path(name), RESULTS / name):
        if (folder / "runs").is_dir():
            return folder
    raise Refused(f"there are no results in {name} nor in {RESULTS / name}; run the suite first")


def filled(name: str) -> Path:
    """The same, with at least one run that counts as done.  Raises Refused."""
    folder = _folder(name)
    from tiltbench.record import records

    if not records(folder / "runs"):
        raise Refused(f"{folder} holds no records of runs; run the suite first")
    return folder


def status(options: Namespace, arguments: Sequence[str]) -> int:
    if options.results:
        folders = [_folder(options.results)]
    else:
        folders = sorted(path.parent for path in RESULTS.glob("*/runs"))
    if not folders:
        print(f"no results in {RESULTS}/ yet; `tiltbench run --suite quick` makes some")
    for folder in folders:
        _show_status(folder)
    return 0


def _show_status(folder: Path) -> None:
    from tiltbench.provenance import code_identity
    from tiltbench.record import read_json, records

    found = {record.id: record for record in records(folder / "runs")}
    request = folder / "suite.json"
    try:
        wanted = {row["id"]: row for row in read_json(request)["cells"]} if request.exists() else {}
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(
            f"{request} is not readable ({error}); the same `tiltbench run` makes it anew"
        ) from error
    missing = [row for run, row in wanted.items() if run not in found]
    counts = Counter(str(record.status) for record in found.values())
    said = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
    print(f"{folder}: {len(wanted) - len(missing)} of {len(wanted)} cells recorded ({said})")
    now = code_identity()["hash"]
    other = sum(record.code.get("hash") != now for record in found.values())
    if other:
        print(f"  {other} by other code than this (run with --stale to run them again)")
    extra = len(set(found) - set(wanted))
    if wanted and extra:
        print(f"  {extra} records belong to earlier versions of the suite")
    for row in missing:
        print(f"  missing: {row['target']} · {row['sampler']} · seed {row['seed']}")
    for record in found.values():
        if not _good(record):
            title = f"{record.labels['target']} · {record.labels['sampler']}"
            print(f"  {record.status}: {title} · seed {record.spec['seed']}: {record.reason}")


def score_again(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.score import score

    done = score(filled(options.results), force=options.force, progress=_scored)
    print(f"{done} runs scored" if done else "every run is scored; --force scores them again")
    return 0


def report_again(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.report import report

    path = report(filled(options.results))
    print(f"{_table(path)}\n{path}\n{_page(path.parent)}")
    return 0


def floor(options: Namespace, arguments: Sequence[str]) -> int:
    """Other targets and sizes of the shipped file stay as they are; it is written once."""
    names = listed(options.targets, "--targets") or sorted(TARGETS.entries)
    sizes = [whole(n, "--draws") for n in options.draws.split(",")]
    if min(sizes) < 2:
        raise Refused("--draws 1 has no spread to measure; write sizes from 2 on, such as 500,1000")
    for name in names:
        called = parse(name)["name"]
        TARGETS.find(called)
        if called not in TARGETS.entries:
            raise Refused(
                f"the floors of {called} do not ship: those of a plug-in are measured when its "
                "runs are scored, and kept with the results"
            )
    from tiltbench.floor import SHIPPED, page, regenerate, write_book

    def key(row: Mapping[str, Any]) -> str:
        return page(row["target"], row["version"], row["n"])

    old = json.loads(SHIPPED.read_text(encoding="utf-8"))["floors"] if SHIPPED.exists() else []
    targets = [spec(build_target(parse(name))) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        made = regenerate(targets, sizes, Path(folder) / SHIPPED.name)
    new = {key(row) for row in made}
    write_book(SHIPPED, [*(row for row in old if key(row) not in new), *made])
    print(f"{len(made)} floors measured; {SHIPPED}")
    return 0


def check(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.check import check as findings

    bad = 0
    for name in options.names:
        for finding in findings(name):
            bad += not finding.ok
            mark, remedy = ("ok ", "") if finding.ok else ("BAD", f"  -> {finding.remedy}")
            print(f"{mark} {name}: {finding.what}{remedy}")
    return 1 if bad else 0


def study(options: Namespace, arguments: Sequence[str]) -> int:
    every = sorted(STUDIES.entries) if "all" in options.names else []
    names = list(dict.fromkeys([*every, *(name for name in options.names if name != "all")]))
    for name in names:
        STUDIES.find(name)
    from tiltbench.engine import jobs_for
    from tiltbench.study import conduct_all

    device = _device(options.device)
    if options.jobs != "auto" and not (options.jobs.isdecimal() and int(options.jobs)):
        raise Refused(f"--jobs is {options.jobs!r}; write a number of studies at a time, 1 or more")
    jobs = jobs_for(options.jobs, device, Limits())
    out = Path(options.out) if options.out else RESULTS / "studies"
    try:
        for page in conduct_all(names, out, device, jobs):
            print(page, flush=True)
    except FileNotFoundError as error:  # a study of results that are not there
        raise Refused(str(error)) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise Refused(f"{error.filename} is a file; name another folder with --out") from error
    return 0


def diff(options: Namespace, arguments: Sequence[str]) -> int:
    metrics = listed(options.metrics, "--metrics")
    for name in metrics:
        METRICS.find(name.removesuffix("_weighted"))
    a, b = _folder(options.a), _folder(options.b)
    from tiltbench.diff import compare, sentences

    try:
        found = compare(a, b, metrics)
    except FileNotFoundError as error:
        raise Refused(str(error)) from error
    print(sentences(found, (str(a), str(b))))
    if options.csv:
        found.frame().to_csv(options.csv, index=False)
    return 1 if found.worse else 0


def publish(options: Namespace, arguments: Sequence[str]) -> int:
    """Copies into a new folder first, so that what is published is never half old, half new.

    Raises Refused where there is nothing to publish, before anything is touched."""
    source = filled(options.results)
    if not (source / "table.md").is_file():
        raise Refused(f"{source} has no table.md; `tiltbench report {options.results}` writes it")
    from tiltbench.record import records

    goal = RESULTS / "published" / source.resolve().name
    fresh = goal.with_name(f".{goal.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    kept = ["*.md", "*.csv", "*.tex", "report.html", "suite.json", "plots/*.png"]
    files = [path for pattern in kept for path in source.glob(pattern) if path.is_file()]
    for record in records(source / "runs"):
        files += sorted((source / "runs").glob(f"{record.id}*.json"))
    for path in files:
        to = fresh / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    shutil.rmtree(goal, ignore_errors=True)
    fresh.rename(goal)
    print(f"{len(files)} files in {goal}")
    return 0


COMMANDS: dict[str, Callable[[Namespace, Sequence[str]], int]] = {
    "list": show_list,
    "run": run,
    "status": status,
    "score": score_again,
    "report": report_again,
    "floor": floor,
    "check": check,
    "study": study,
    "base": base,
    "reference": reference,
    "diff": diff,
    "publish": publish,
}
