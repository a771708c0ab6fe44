"""`tiltbench tune`: run the trials, choose, and write a suite that says what was chosen."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tiltbench.cell import Cell
from tiltbench.engine_command import engine
from tiltbench.lock import alone
from tiltbench.product import Choice, Suite
from tiltbench.recorded import is_stale, recorded_cells
from tiltbench.suite import SUITES, load_suite, suite_path
from tiltbench.words import RESULTS, Refused, chosen_device, command, listed, whole

if TYPE_CHECKING:
    from tiltbench.engine import Engine
    from tiltbench.tuning import Score

MADE = "# Made by `tiltbench tune`"


class Found(NamedTuple):
    """The search of one method: ranks, params and totals by trial, scores by target and trial."""

    sampler: Choice
    params: list[dict[str, Any]]
    scores: dict[str, list[Score]]
    ranks: list[float] | None
    calls: int

    @property
    def best(self) -> int:
        """The first of the smallest mean rank: the method as it was, where it is as good."""
        assert self.ranks is not None
        return self.ranks.index(min(self.ranks))

    @property
    def judged(self) -> list[str]:
        """The targets on which there is something to choose by."""
        return [t for t, row in self.scores.items() if max(s.better for s in row) > -float("inf")]


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
    cells, plans = _plan(suite, count, seed, device)
    with alone(out):
        if not _run(suite, cells, out, chosen, device, arguments):
            return 130
        found = [_judge(sampler, params, mine, out) for sampler, params, mine in plans]
    text = report(found, count)
    print(text)
    from tiltbench.record import write_bytes
    from tiltbench.tuned_file import tuned_text

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


Plan = tuple[Choice, list[dict[str, Any]], dict[str, list[Cell]]]  # params by trial; cells


def _plan(suite: Suite, count: int, seed: int, device: str) -> tuple[dict[str, Cell], list[Plan]]:
    """Every cell by its id (trials that draw the same share one), and each method's own."""
    from tiltbench.tuning import drawn, trial_cell

    cells: dict[str, Cell] = {}
    plans: list[Plan] = []
    for sampler in suite.samplers:
        laws = suite.laws(sampler)
        params = [drawn(laws, trial, seed) for trial in range(count)] if laws else []
        mine: dict[str, list[Cell]] = {}
        for target in suite.targets:
            row = [
                trial_cell(suite, target, sampler, given, trial, seed, device)
                for trial, given in enumerate(params)
            ]
            mine[target.label] = [cells.setdefault(cell.id, cell) for cell in row]
        plans.append((sampler, params, mine))
    return cells, plans


def _run(
    suite: Suite,
    cells: Mapping[str, Cell],
    out: Path,
    chosen: Engine,
    device: str,
    arguments: Sequence[str],
) -> bool:
    """Runs what has no record yet; False after Ctrl-C."""
    from tiltbench.progress import display
    from tiltbench.provenance import code_identity
    from tiltbench.record import write_json

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


def _judge(
    sampler: Choice, params: list[dict[str, Any]], mine: dict[str, list[Cell]], out: Path
) -> Found:
    """Trials that share a run are charged once."""
    from tiltbench.record import read_record
    from tiltbench.tuning import mean_ranks, score

    scores: dict[str, list[Score]] = {}
    calls = 0
    for target, row in mine.items():
        once: dict[str, Score] = {}
        for cell in row:
            if cell.id not in once:
                record = read_record(out / "runs" / f"{cell.id}.json")
                once[cell.id] = score(cell, record, out / "runs")
                calls += once[cell.id].calls
                calls += sum(max(record.cost.get(part, (0, 0))) for part in ("train", "draw"))
        scores[target] = [once[cell.id] for cell in row]
    ranks = mean_ranks([[s.better for s in row] for row in scores.values()]) if params else None
    return Found(sampler, params, scores, ranks, calls)


def report(found: Sequence[Found], count: int) -> str:
    """A row a method and target, then what was chosen, and what stays untuned."""
    from pandas import DataFrame

    from tiltbench.study import markdown
    from tiltbench.tuned_file import written

    scores, chosen, untuned = [], [], []
    for search in found:
        if search.ranks is None:
            said = [row[0].said for row in search.scores.values() if row]
            why = said[0] if said else "it declares nothing to search; [[search]] in the suite may"
            untuned.append(f"{search.sampler.label} stays untuned: {why}")
            continue
        best = search.best
        scores += [
            (search.sampler.label, t, search.scores[t][0].said, search.scores[t][best].said)
            for t in search.judged
        ]
        chosen.append(
            (
                search.sampler.label,
                f"trial {best}" if best else "the default",
                search.ranks[0],
                search.ranks[best],
                written(search.params[best]) if best else "",
                f"{search.calls:,}",
            )
        )
    parts = []
    if chosen:
        heads = ["method", "target", "default", "chosen"]
        parts.append(markdown(DataFrame(scores, columns=heads)))
        heads = ["method", "chosen", f"rank of the default in {count}", "of the chosen"]
        parts.append(markdown(DataFrame(chosen, columns=[*heads, "parameters", "calls spent"])))
    return "\n\n".join([*parts, *untuned])
