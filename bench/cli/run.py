"""`tiltbench run`: run cells, score them and report."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.cli.engine import engine
from tiltbench.cli.score import score_and_report
from tiltbench.cli.words import RESULTS, chosen_device, listed, seeds, setting, whole
from tiltbench.engine.lock import alone
from tiltbench.engine.shard import WHOLE, Shard, shard
from tiltbench.plan.cell import Cell
from tiltbench.plan.errors import Refused
from tiltbench.plan.suite import Choice, Suite
from tiltbench.plan.toml import load_suite
from tiltbench.records.command import command
from tiltbench.records.recorded import counts_as_good, is_stale, namesakes, recorded_cells

if TYPE_CHECKING:
    from tiltbench.engine.base import Engine
    from tiltbench.records.record import Record


def run(options: Namespace, arguments: Sequence[str]) -> int:
    suite = _suite(options)
    out = Path(options.out) if options.out else RESULTS / suite.name
    elsewhere = options.engine != "local" and options.device == "cuda"
    device = "cuda" if elsewhere else chosen_device(options.device)
    part, chosen = shard(options.shard), engine(options, device, suite.limits)
    cells = suite.cells(device)
    with nullcontext() if options.dry_run else alone(out, part):
        return _run(suite, cells, part, chosen, device, out, options, arguments)


def _run(
    suite: Suite,
    every: list[Cell],
    part: Shard,
    chosen: Engine,
    device: str,
    out: Path,
    options: Namespace,
    arguments: Sequence[str],
) -> int:
    from tiltbench.records.provenance import code_identity
    from tiltbench.records.record import CHECKPOINT
    from tiltbench.run.failures import FULL

    identity, cells = code_identity(), part.of(every)
    recorded = recorded_cells(cells, out / "runs")
    todo = [cell for cell in cells if _wanted(cell, recorded.get(cell.id), identity, options)]
    points = sum(cell.budget.train.values for cell in todo)
    ours = "" if part == WHOLE else f"{len(cells)} of them in shard {part}, "
    print(
        f"{suite.name}: {len(every)} cells ({len(suite.targets)} targets x {len(suite.samplers)} "
        f"samplers x {len(suite.seeds)} seeds), {ours}{len(todo)} to run on {device}, {chosen}, "
        f"{points:,} training points in all; results in {out}"
    )
    other = sum(is_stale(cell, recorded.get(cell.id), identity) for cell in cells)
    if other and not (options.stale or options.force):
        print(f"{other} recorded cells come from other code; --stale runs them again")
    if twins := namesakes(cells, out / "runs"):
        draws = ", ".join(f"{n:,}" for n in sorted({record.spec["draws"] for record in twins}))
        print(
            f"{len(twins)} other records in {out} carry the names and seeds of cells here, with "
            f"other draws ({draws}), parameters or versions: tables count them as seeds of their "
            "own, so name another folder with --out"
        )
    if options.dry_run:
        for cell in cells:
            state = "to run" if cell in todo else f"recorded: {recorded[cell.id].status}"
            print(f"  {cell.id}  {cell.title}  {state}")
        return 0
    for cell in todo if options.force else ():
        (out / "runs" / f"{cell.id}{CHECKPOINT}").unlink(missing_ok=True)
    try:
        _write_request(out, suite, every, arguments)
        _run_all(todo, out / "runs", chosen, identity)
        if part == WHOLE:
            score_and_report(out)
        else:
            print(
                f"When all shards are there: {command(['score', str(out)])}; "
                f"{command(['report', str(out)])}"
            )
    except KeyboardInterrupt:
        kept = len(recorded_cells(cells, out / "runs"))
        print(
            f"\nStopped: {kept} of {len(cells)} cells are recorded in {out}; "
            "the same command carries on from there.",
            file=sys.stderr,
        )
        return 130
    except OSError as error:
        if error.errno not in FULL:
            raise
        kept = len(recorded_cells(cells, out / "runs"))
        raise Refused(
            f"{out} cannot be written to ({os.strerror(error.errno)}): make room, then the same "
            f"command carries on; {kept} of {len(cells)} cells are recorded"
        ) from error
    return _verdict(cells, recorded_cells(cells, out / "runs"), arguments)


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
    return replace(suite, limits=limits).spanned(setting(text) for text in options.set)


def _wanted(
    cell: Cell, record: Record | None, identity: Mapping[str, Any], options: Namespace
) -> bool:
    if record is None or options.force:
        return True
    if options.retry and not counts_as_good(record):
        return True
    return bool(options.stale) and is_stale(cell, record, identity)


def _write_request(out: Path, suite: Suite, cells: list[Cell], arguments: Sequence[str]) -> None:
    """`suite.json`: what the last command in this folder was to run, for `status`."""
    from tiltbench.records.files import write_json

    rows = [{"id": cell.id, "seed": cell.seed, **cell.labels} for cell in cells]
    head = {"name": suite.name, "description": suite.description, "command": command(arguments)}
    write_json(out / "suite.json", {**head, "cells": rows})


def _run_all(todo: list[Cell], runs: Path, chosen: Engine, identity: Mapping[str, Any]) -> None:
    if not todo:
        return
    from tiltbench.engine.progress import display, duration

    began = time.monotonic()
    with display(len(todo)) as shown:
        for cell, record in chosen.run(todo, runs, identity, shown.watch):
            shown.ended(cell, record)
    print(f"{len(todo)} cells in {duration(time.monotonic() - began)}")


def _verdict(cells: list[Cell], recorded: dict[str, Record], arguments: Sequence[str]) -> int:
    failed = [
        cell for cell in cells if cell.id not in recorded or not counts_as_good(recorded[cell.id])
    ]
    if not failed:
        reasons = sorted({r.reason for r in recorded.values() if not r.status.finished})
        if cells and not any(record.status.finished for record in recorded.values()):
            print(f"Nothing ran, as no method here applies to its target: {'; '.join(reasons)}")
        return 0
    print(f"{len(failed)} of {len(cells)} cells failed:")
    for cell in failed:
        record = recorded.get(cell.id)
        why = f"{record.status}: {record.reason}" if record else "no record"
        print(f"  {cell.title}: {why}")
    kept = [word for word in arguments if word not in ("--force", "--stale", "--retry")]
    print(f"To run them again:  {command(kept, '--retry')}")
    return 1
