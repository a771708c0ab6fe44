"""`tiltbench run`: run cells, score them and report."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tiltbench.cli.arguments import (
    RESULTS,
    Setting,
    chosen_device,
    natural,
    positive,
    seeds,
    setting,
    whole,
)
from tiltbench.cli.engine import HERE, Where, engine
from tiltbench.cli.options import FLAT, Names, Out, Plugins, Typed, names, option, plugged, repeated
from tiltbench.cli.score import score_and_report
from tiltbench.engine.lock import alone
from tiltbench.engine.shard import WHOLE, Shard, shard
from tiltbench.plan.budget import together, usual_calls
from tiltbench.plan.cell import Cell
from tiltbench.plan.errors import Refused
from tiltbench.plan.suite import Choice, Suite
from tiltbench.plan.toml import load_suite
from tiltbench.records.command import command
from tiltbench.records.recorded import (
    counts_as_good,
    gpu_peak,
    is_stale,
    namesakes,
    recorded_cells,
)

if TYPE_CHECKING:
    from tiltbench.engine.base import Engine
    from tiltbench.records.record import Record


@dataclass(frozen=True)
class Asked:
    """What to run, as options."""

    suite: Annotated[
        str | None, option("a suite; see `tiltbench list suites`", "NAME|FILE.toml")
    ] = None
    targets: Annotated[
        Names,
        names("names, name[key=value] or path/to/file.py; with --suite: these of its targets only"),
    ] = ()
    samplers: Annotated[
        Names,
        names(
            "the same for samplers, e.g. log_variance[reference=Stationary,model=Guided],smc", "C,D"
        ),
    ] = ()
    calls: Annotated[
        int | None,
        option(
            "values, and gradients, of a target at a point that training may take, e.g. 1e6 "
            "(default 40,000 where nothing else limits it)",
            "N",
            whole,
            ("--calls", "--budget"),
        ),
    ] = None
    flops: Annotated[
        float | None,
        option(
            "floating-point operations that training may take, networks and target together, e.g. "
            "2e11 (default: no limit)",
            "N",
            positive,
        ),
    ] = None
    seconds: Annotated[
        float | None,
        option(
            "seconds of its clock that training may take; such runs differ in the last digits "
            "from run to run (default: no limit)",
            "S",
            positive,
        ),
    ] = None
    draws: Annotated[int | None, option("draws to score (default 1,000)", "N", whole)] = None
    seeds: Annotated[
        tuple[int, ...] | None,
        option(
            "how many (3 is seeds 0, 1 and 2), a range (0:5) or a list (0,3; one of them: 3,); "
            "default 3",
            "N|A:B|A,B",
            seeds,
        ),
    ] = None
    settings: Annotated[
        tuple[Setting, ...],
        repeated(
            'a parameter of a target or sampler, or of all that have it ("*.lr=1e-3"); several '
            "values span a grid; `tiltbench list NAME` shows the parameters",
            "NAME.KEY=A,B",
            setting,
            "--set",
        ),
    ] = ()
    curve: Annotated[
        int | None,
        option(
            "draws at each of 8 points of the learning curve, with a budget of its own; 0: no "
            "curve (default 250, or what the suite says)",
            "N",
            natural,
        ),
    ] = None
    log: Annotated[
        Names,
        names(
            "tell these loggers of every training, a line a thousand steps: installed ones, or "
            "path/to/file.py (default: none)",
            "NAME|FILE.py",
        ),
    ] = ()
    time_limit: Annotated[int | None, option("seconds a cell may take", "S", whole)] = None
    memory_limit: Annotated[
        int | None, option("memory a cell may take beyond that of its start", "MB", whole)
    ] = None

    def plan(self) -> Suite:
        """The suite that the options describe.  Raises BadSpec, UnknownName or Refused."""
        if self.suite:
            suite = load_suite(self.suite).only(self.targets, self.samplers)
        elif self.targets and self.samplers:
            suite = Suite(
                "adhoc",
                "named on the command line",
                usual_calls(self.flops or math.inf, self.seconds or math.inf),
                1_000,
                (0, 1, 2),
                tuple(Choice.of(text) for text in self.targets),
                tuple(Choice.of(text) for text in self.samplers),
                curve=250,
            )
        else:
            raise Refused(
                "name a --suite, or both --targets and --samplers; `tiltbench list` shows them"
            )
        targets = tuple(
            replace(
                choice,
                calls=None if self.calls else choice.calls,
                flops=None if self.flops else choice.flops,
                seconds=None if self.seconds else choice.seconds,
            )
            for choice in suite.targets
        )
        suite = replace(
            suite,
            targets=targets,
            calls=self.calls or suite.calls,
            flops=self.flops or suite.flops,
            seconds=self.seconds or suite.seconds,
            draws=self.draws or suite.draws,
            seeds=self.seeds or suite.seeds,
            curve=suite.curve if self.curve is None else self.curve,
        )
        limits = suite.limits
        if self.time_limit is not None:
            limits = replace(limits, seconds=float(self.time_limit))
        if self.memory_limit is not None:
            limits = replace(limits, megabytes=self.memory_limit)
        limits = replace(limits, loggers=load_loggers(self.log))
        return replace(suite, limits=limits).spanned(self.settings)


def load_loggers(names: Sequence[str]) -> tuple[str, ...]:
    """The names, each of a logger that can be imported and has what one must have.  Raises
    UnknownName or Refused before anything has run."""
    if names:
        from tiltbench.plan.loggers import LOGGERS

        for name in names:
            if not LOGGERS.entries and not name.endswith(".py") and ".py:" not in name:
                raise Refused(
                    f"no logger is called {name!r}, as no installed package offers any; name a "
                    "file with one, such as that in docs/tutorials/trained.md"
                )
            logger = LOGGERS.load(name)
            lacks = [
                part for part in ("line", "close") if not callable(getattr(logger, part, None))
            ]
            if lacks:
                raise Refused(
                    f"{name} is no logger: it has no {lacks[0]}(...); docs/tutorials/trained.md "
                    "shows one in ten lines"
                )
    return tuple(names)


@dataclass(frozen=True)
class Rerun:
    """Which recorded cells to run again, as options."""

    retry: Annotated[bool, option("run failed cells again")] = False
    stale: Annotated[bool, option("run cells recorded by other code again")] = False
    force: Annotated[bool, option("run every cell again")] = False

    def wants(self, cell: Cell, record: Record | None, identity: Mapping[str, Any]) -> bool:
        if record is None or self.force:
            return True
        if self.retry and not counts_as_good(record):
            return True
        return self.stale and is_stale(cell, record, identity)


NOTHING, NONE = Asked(), Rerun()


def run(
    *,
    asked: Annotated[Asked, FLAT] = NOTHING,
    out: Out = None,
    where: Annotated[Where, FLAT] = HERE,
    part: Annotated[
        Shard,
        option("I-th of N parts of the cells, for arrays of jobs", "I/N", shard, "--shard"),
    ] = WHOLE,
    dry_run: Annotated[bool, option("print the cells and stop")] = False,
    again: Annotated[Rerun, FLAT] = NONE,
    plugin: Plugins = (),
    typed: Typed,
) -> int:
    """Run a suite, or the product of targets, samplers and seeds; score; report.

    Exit code: 0 when every cell finished (a cell whose method does not apply to its target is a
    dash with a reason, not a failure), 1 when some failed, 2 for a wrong argument, 130 after
    Ctrl-C.

    Cells already recorded are not run again; failed ones only with --retry, those of other code
    only with --stale, all with --force.
    """
    with plugged(plugin):
        suite = asked.plan().beside_untrained()
        folder = Path(out) if out else RESULTS / suite.name
        elsewhere = where.engine != "local" and where.device == "cuda"
        device = "cuda" if elsewhere else chosen_device(where.device)
        peak = gpu_peak(folder / "runs") if device == "cuda" else None
        chosen = engine(where, device, suite.limits, peak)
        cells = suite.cells(device, where.tf32)
        with nullcontext() if dry_run else alone(folder, part):
            return _run(suite, cells, part, chosen, device, folder, again, dry_run, typed)


def _run(
    suite: Suite,
    every: list[Cell],
    part: Shard,
    chosen: Engine,
    device: str,
    out: Path,
    again: Rerun,
    dry_run: bool,
    typed: Sequence[str],
) -> int:
    from tiltbench.records.provenance import code_identity
    from tiltbench.records.record import CHECKPOINT
    from tiltbench.run.failures import FULL

    identity, cells = code_identity(), part.of(every)
    recorded = recorded_cells(cells, out / "runs")
    todo = [cell for cell in cells if again.wants(cell, recorded.get(cell.id), identity)]
    allowed = together(cell.budget for cell in todo) or "nothing"
    ours = "" if part == WHOLE else f"{len(cells)} of them in shard {part}, "
    pairs, targets, samplers = len(suite.pairs), len(suite.targets), len(suite.samplers)
    whole = f"{targets} targets x {samplers} samplers"
    some = f"{pairs} pairs of {targets} targets and {samplers} samplers,"
    print(
        f"{suite.name}: {len(every)} cells ({whole if pairs == targets * samplers else some} x "
        f"{len(suite.seeds)} seeds), {ours}{len(todo)} to run on {device}, {chosen}, "
        f"training takes at most {allowed} in all; results in {out}"
    )
    other = sum(is_stale(cell, recorded.get(cell.id), identity) for cell in cells)
    if other and not (again.stale or again.force):
        print(f"{other} recorded cells come from other code; --stale runs them again")
    if twins := namesakes(cells, out / "runs"):
        draws = ", ".join(f"{n:,}" for n in sorted({record.spec["draws"] for record in twins}))
        print(
            f"{len(twins)} other records in {out} carry the names and seeds of cells here, with "
            f"other draws ({draws}), parameters or versions: tables count them as seeds of their "
            "own, so name another folder with --out"
        )
    if dry_run:
        for cell in cells:
            state = "to run" if cell in todo else f"recorded: {recorded[cell.id].status}"
            print(f"  {cell.id}  {cell.title}  {state}")
        return 0
    for cell in todo if again.force else ():
        (out / "runs" / f"{cell.id}{CHECKPOINT}").unlink(missing_ok=True)
    try:
        _write_request(out, suite, every, typed)
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
    return _verdict(cells, recorded_cells(cells, out / "runs"), typed)


def _write_request(out: Path, suite: Suite, cells: list[Cell], typed: Sequence[str]) -> None:
    """`suite.json`: what the last command in this folder was to run, for `status`."""
    from tiltbench.records.files import write_json

    rows = [{"id": cell.id, "seed": cell.seed, **cell.labels} for cell in cells]
    head = {"name": suite.name, "description": suite.description, "command": command(typed)}
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


def _verdict(cells: list[Cell], recorded: dict[str, Record], typed: Sequence[str]) -> int:
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
    kept = [word for word in typed if word not in ("--force", "--stale", "--retry")]
    print(f"To run them again:  {command(kept, '--retry')}")
    return 1
