"""The trials of a search as cells, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.plan.cell import Cell
from tiltbench.plan.suite import Choice, Suite
from tiltbench.tune.result import SearchResult

if TYPE_CHECKING:
    from tiltbench.tune.trials import TrialScore


Plan = tuple[Choice, list[dict[str, Any]], dict[str, list[Cell]]]  # params by trial; cells


def plan(
    suite: Suite, count: int, seed: int, device: str, tf32: bool = False
) -> tuple[dict[str, Cell], list[Plan]]:
    """Every cell by its id (trials that draw the same share one), and each method's own, on the
    targets that it runs on; a method that runs on none of them has no plan."""
    from tiltbench.tune.trials import draw_params, trial_cell

    cells: dict[str, Cell] = {}
    plans: list[Plan] = []
    for sampler in suite.samplers:
        targets = [target for target in suite.targets if sampler.runs_on(target)]
        if not targets:
            continue
        laws = suite.laws(sampler)
        params = [draw_params(laws, trial, seed) for trial in range(count)] if laws else []
        cells_of: dict[str, list[Cell]] = {}
        for target in targets:
            row = [
                trial_cell(suite, target, sampler, given, trial, seed, device, tf32)
                for trial, given in enumerate(params)
            ]
            cells_of[target.label] = [cells.setdefault(cell.id, cell) for cell in row]
        plans.append((sampler, params, cells_of))
    return cells, plans


def judge(
    sampler: Choice, params: list[dict[str, Any]], cells: dict[str, list[Cell]], out: Path
) -> SearchResult:
    """Trials that share a run are charged once."""
    from tiltbench.records.record import read_record
    from tiltbench.tune.trials import mean_ranks, score

    scores: dict[str, list[TrialScore]] = {}
    calls = 0
    for target, row in cells.items():
        once: dict[str, TrialScore] = {}
        for cell in row:
            if cell.id not in once:
                record = read_record(out / "runs" / f"{cell.id}.json")
                once[cell.id] = score(cell, record, out / "runs")
                calls += once[cell.id].calls
                calls += sum(max(record.cost.get(part, (0, 0))) for part in ("train", "draw"))
        scores[target] = [once[cell.id] for cell in row]
    ranks = mean_ranks([[s.better for s in row] for row in scores.values()]) if params else None
    return SearchResult(sampler, params, scores, ranks, calls)


def report(results: Sequence[SearchResult], count: int) -> str:
    """A row a method and target, then what was chosen, and what stays untuned."""
    from pandas import DataFrame

    from tiltbench.report.tables.grid import frame_grid, text
    from tiltbench.tune.file import written

    scores, chosen, untuned = [], [], []
    for result in results:
        if result.ranks is None:
            reasons = [row[0].text for row in result.scores.values() if row]
            reasons = reasons or ["it declares nothing to search; [[search]] in the suite may"]
            untuned.append(f"{text(result.sampler.label)} stays untuned: {reasons[0]}")
            continue
        best = result.best
        scores += [
            (
                text(result.sampler.label),
                text(t),
                result.scores[t][0].text,
                result.scores[t][best].text,
            )
            for t in result.judged
        ]
        chosen.append(
            (
                text(result.sampler.label),
                f"trial {best}" if best else "the default",
                result.ranks[0],
                result.ranks[best],
                written(result.params[best]) if best else "",
                f"{result.calls:,}",
            )
        )
    parts = []
    if chosen:
        heads = ["method", "target", "default", "chosen"]
        parts.append(frame_grid(DataFrame(scores, columns=heads)))
        heads = ["method", "chosen", f"rank of the default in {count}", "of the chosen"]
        parts.append(frame_grid(DataFrame(chosen, columns=[*heads, "parameters", "calls spent"])))
    return "\n\n".join([*parts, *untuned])
