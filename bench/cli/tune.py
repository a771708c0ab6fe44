"""`tiltbench tune`: run the trials, choose, and write a suite that says what was chosen."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tiltbench.cli.engine import engine
from tiltbench.cli.words import RESULTS, chosen_device, listed, whole
from tiltbench.engine.lock import alone
from tiltbench.plan.cell import Cell
from tiltbench.plan.errors import Refused
from tiltbench.plan.suite import Suite
from tiltbench.plan.toml import SUITES, load_suite, suite_path
from tiltbench.records.command import command
from tiltbench.records.recorded import is_stale, recorded_cells
from tiltbench.tune.choose import judge, plan, report

if TYPE_CHECKING:
    from tiltbench.engine.base import Engine

MADE = "# Made by `tiltbench tune`"


def tune(options: Namespace, arguments: Sequence[str]) -> int:
    whole_suite = load_suite(options.suite)
    suite = whole_suite.only(
        listed(options.targets, "--targets"), listed(options.samplers, "--samplers")
    )
    count = whole(options.trials, "--trials")
    seed = 0 if options.seed == "0" else whole(options.seed, "--seed")
    source = suite_path(options.suite)
    goal = _goal(options.write, source)
    _untouched(suite, source)
    device = chosen_device(options.device)
    chosen = engine(options, device, suite.limits)
    out = Path(options.out) if options.out else RESULTS / f"{suite.name}-tuning"
    cells, plans = plan(suite, count, seed, device)
    with alone(out):
        if not _run(suite, cells, out, chosen, device, arguments):
            return 130
        found = [judge(sampler, params, mine, out) for sampler, params, mine in plans]
    text = report(found, count)
    print(text)
    from tiltbench.records.files import write_bytes
    from tiltbench.tune.file import tuned_text

    write_bytes(out / "tuning.md", f"`{command(arguments)}`\n\n{text}\n".encode())
    kept = tuned_text(source.read_text(encoding="utf-8"), found, count, f"{MADE}: ", arguments)
    write_bytes(goal, kept.encode())
    print(f"\n{goal} is {source.name} with what was chosen; `tiltbench run --suite {goal}` runs it")
    return 0


def _goal(given: str | None, source: Path) -> Path:
    """Where the tuned suite goes.  Raises Refused for a file that is not this command's."""
    folder = Path() if source.parent == SUITES else source.parent
    goal = Path(given) if given else folder / f"{source.stem}_tuned.toml"
    if goal.suffix != ".toml" or goal.resolve().parent == SUITES.resolve():
        raise Refused(f"--write {goal}: a tuned suite goes to a .toml file of your own")
    if not goal.resolve().parent.is_dir():
        raise Refused(f"--write {goal}: there is no folder {goal.parent}; make it first")
    if goal.exists() and MADE not in goal.read_text(encoding="utf-8", errors="replace"):
        raise Refused(f"{goal} exists and is no work of tune; name another file with --write")
    if goal.exists() and goal.resolve() == source.resolve():
        raise Refused(f"{goal} is what is to be tuned; name another file with --write")
    return goal


def _untouched(suite: Suite, source: Path) -> None:
    """Raises Refused where a method was tuned before: trial 0 is to be its default."""
    for target in suite.targets:
        for sampler in suite.samplers:
            if suite.trials(target, sampler):
                raise Refused(
                    f"{sampler.label} on {target.label} is tuned already: tune the suite that "
                    f"{source.name} was made of, or remove its [[tuned]] rows"
                )


def _run(
    suite: Suite,
    cells: Mapping[str, Cell],
    out: Path,
    chosen: Engine,
    device: str,
    arguments: Sequence[str],
) -> bool:
    """Runs what has no record yet; False after Ctrl-C."""
    from tiltbench.engine.progress import display
    from tiltbench.records.files import write_json
    from tiltbench.records.provenance import code_identity

    identity = code_identity()
    recorded = recorded_cells(list(cells.values()), out / "runs")
    todo = [cell for run, cell in cells.items() if run not in recorded]
    points = sum(cell.budget.train.values for cell in todo)
    print(
        f"tuning {suite.name}: {len(cells)} trials, {len(todo)} to run on {device}, {chosen}, "
        f"{points:,} training points in all; records in {out}"
    )
    other = sum(is_stale(cells[run], record, identity) for run, record in recorded.items())
    if other:
        print(f"{other} recorded trials come from other code; remove {out} to run them again")
    rows = [{"id": cell.id, "seed": cell.seed, **cell.labels} for cell in cells.values()]
    head = {"name": out.name, "description": f"trials of {suite.name}"}
    write_json(out / "suite.json", {**head, "command": command(arguments), "cells": rows})
    try:
        with display(len(todo)) as shown:
            for cell, record in chosen.run(todo, out / "runs", identity, shown.watch):
                shown.ended(cell, record)
    except KeyboardInterrupt:
        print("\nStopped; the same command carries on from here.", file=sys.stderr)
        return False
    return True
