"""`tiltbench tune`: give every method of a suite the same random search, and choose."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tiltbench.cli.arguments import RESULTS, chosen_device, natural, whole
from tiltbench.cli.engine import HERE, Where, engine
from tiltbench.cli.options import FLAT, Names, Plugins, Typed, names, option, plugged
from tiltbench.engine.lock import alone
from tiltbench.plan.budget import together
from tiltbench.plan.cell import Cell
from tiltbench.plan.errors import Refused
from tiltbench.plan.suite import Suite
from tiltbench.plan.toml import SUITES, load_suite, suite_path
from tiltbench.records.command import command
from tiltbench.records.recorded import gpu_peak, is_stale, recorded_cells
from tiltbench.tune.choose import judge, plan, report

if TYPE_CHECKING:
    from tiltbench.engine.base import Engine

HEADING = "# Made by `tiltbench tune`"


def tune(
    suite: Annotated[str, option("name or FILE.toml of a suite; it is not changed")],
    /,
    *,
    trials: Annotated[int, option("of every method (default 16)", "N", whole)] = 16,
    targets: Annotated[Names, names("choose for these of its targets only")] = (),
    samplers: Annotated[Names, names("tune these of its samplers only", "C,D")] = (),
    seed: Annotated[int, option("of the search (default 0)", "N", natural)] = 0,
    write: Annotated[str | None, option("default: SUITE_tuned.toml", "FILE.toml")] = None,
    out: Annotated[str | None, option("records (default results/SUITE-tuning)", "DIR")] = None,
    where: Annotated[Where, FLAT] = HERE,
    plugin: Plugins = (),
    typed: Typed,
) -> int:
    """Run trials of every method, choose one for all targets by its mean rank, and write a copy of
    the suite with what was chosen.

    Trial 0 is the method as it is.  Trials on record are not run again.
    """
    with plugged(plugin):
        part = load_suite(suite).only(targets, samplers)
        source = suite_path(suite)
        goal = _goal(write, source)
        _untouched(part, source)
        device = chosen_device(where.device)
        folder = Path(out) if out else RESULTS / f"{part.name}-tuning"
        peak = gpu_peak(folder / "runs") if device == "cuda" else None
        chosen = engine(where, device, part.limits, peak)
        cells, plans = plan(part, trials, seed, device, where.tf32)
        with alone(folder):
            if not _run(part, cells, folder, chosen, device, typed):
                return 130
            results = [
                judge(sampler, params, by_target, folder) for sampler, params, by_target in plans
            ]
    text = report(results, trials)
    print(text)
    from tiltbench.records.files import write_bytes
    from tiltbench.tune.file import tuned_text

    write_bytes(folder / "tuning.md", f"`{command(typed)}`\n\n{text}\n".encode())
    tuned = tuned_text(source.read_text(encoding="utf-8"), results, trials, f"{HEADING}: ", typed)
    write_bytes(goal, tuned.encode())
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
    if goal.exists() and HEADING not in goal.read_text(encoding="utf-8", errors="replace"):
        raise Refused(f"{goal} exists and is no work of tune; name another file with --write")
    if goal.exists() and goal.resolve() == source.resolve():
        raise Refused(f"{goal} is what is to be tuned; name another file with --write")
    return goal


def _untouched(suite: Suite, source: Path) -> None:
    """Raises Refused where a method was tuned before: trial 0 is to be its default."""
    for target, sampler in suite.pairs:
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
    allowed = together(cell.budget for cell in todo) or "nothing"
    print(
        f"tuning {suite.name}: {len(cells)} trials, {len(todo)} to run on {device}, {chosen}, "
        f"training takes at most {allowed} in all; records in {out}"
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
