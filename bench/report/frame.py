"""Records and scores of a folder as tables: one row a run, one row a run and metric."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tiltbench.metric import Metric
from tiltbench.record import Record, read_record, records
from tiltbench.score import read_scores
from tiltbench.spec import METRICS

if TYPE_CHECKING:
    from pandas import DataFrame

BLOCK = ["target", "budget"]  # runs that one leaderboard compares
SUFFIX = "_weighted"
UNTRAINED = "the allowance did not pay for a single step"  # the note of `run`

COLUMNS = {
    "runs": [*BLOCK, "sampler", "seed", "id", "status", "finished", "reason", "notes", "trained",
             "tuned", "draws", "asked", "values", "grads", "draw_values", "draw_grads",
             "seconds", "cpu_seconds", "parameters"],
    "scores": [*BLOCK, "sampler", "seed", "id", "metric", "value", "se", "n",
               "floor_mean", "floor_sd", "floor_n", "unfit", "reason",
               "train_values", "train_grads", "draw_values", "draw_grads"],
}  # fmt: skip


class Frames(NamedTuple):
    """runs and scores (tidy, see COLUMNS; value NaN where unknown, with its reason), the learning
    curves by run id, and the records themselves."""

    runs: DataFrame
    scores: DataFrame
    curves: dict[str, dict[str, Any]]
    records: list[Record]


def collect(folder: Path) -> Frames:
    """What `folder`/runs holds.  Runs that have not been scored have no rows among the scores."""
    return frames_of(folder, records(folder / "runs"))


def readable(runs: Path) -> list[Record]:
    """Every readable record: published sets have no draws beside them, and none are needed."""
    found = []
    for path in sorted(runs.glob("*.json")):
        if path.name.count(".") == 1:
            try:
                found.append(read_record(path))
            except ValueError as error:
                warn(str(error))
    return found


def frames_of(folder: Path, found: list[Record]) -> Frames:
    """The same of some records of the folder."""
    from pandas import DataFrame

    runs, rows, curves = [], [], {}
    for record in found:
        scored = _scored(folder / "runs", record)
        head = {
            "target": record.labels["target"],
            "budget": int(record.labels.get("budget") or record.spec["budget"]["train"][0]),
            "sampler": record.labels["sampler"],
            "seed": record.spec["seed"],
            "id": record.id,
        }
        tuned = record.labels.get("tuned", "")  # "16 trials"; "": untuned (`tiltbench tune`)
        runs.append({**head, **_run(record, scored), "tuned": tuned})
        if scored is None:
            continue
        for name, score in scored["scores"].items():
            if name.removesuffix(SUFFIX) in METRICS.entries:
                rows.append({**head, **_score(name, score), **_spent(record)})
        if scored.get("curve"):
            curves[record.id] = scored["curve"]
    order = [*BLOCK, "sampler", "seed"]
    frame = DataFrame(runs, columns=COLUMNS["runs"]).sort_values(order, ignore_index=True)
    scores = DataFrame(rows, columns=COLUMNS["scores"])
    for column in ("value", "se", "floor_mean", "floor_sd"):
        scores[column] = scores[column].astype(float)
    return Frames(frame, scores.sort_values(order, ignore_index=True), curves, found)


def _scored(runs: Path, record: Record) -> dict[str, Any] | None:
    if not record.status.finished:
        return None
    try:
        return read_scores(runs, record.id)
    except ValueError as error:  # one broken file must not stop the report
        warn(str(error))
        return None


def warn(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)


def _spent(record: Record) -> dict[str, int]:
    return {
        f"{phase}_{kind}": count
        for phase in ("train", "draw")
        for kind, count in zip(("values", "grads"), record.cost.get(phase, (0, 0)), strict=True)
    }


def _run(record: Record, scored: dict[str, Any] | None) -> dict[str, Any]:
    spent = _spent(record)
    notes = list(record.cost.get("notes", ()))
    if scored and scored.get("curve_error"):
        notes.append(scored["curve_error"])
    return {
        "status": record.status.value,
        "finished": record.status.finished,
        "reason": record.reason,
        "draws": scored.get("draws") if scored else None,
        "asked": record.spec["draws"],
        "notes": notes,
        "trained": UNTRAINED not in notes,
        "values": spent["train_values"],
        "grads": spent["train_grads"],
        "draw_values": spent["draw_values"],
        "draw_grads": spent["draw_grads"],
        **{key: record.cost.get(key) for key in ("seconds", "cpu_seconds", "parameters")},
    }


def _score(name: str, found: dict[str, Any]) -> dict[str, Any]:
    floor = found.get("floor") or {}
    return {
        "metric": name,
        **{key: found.get(key) for key in ("value", "se", "n")},
        "floor_mean": floor.get("mean"),
        "floor_sd": floor.get("sd"),
        "floor_n": floor.get("n"),
        "unfit": bool(floor.get("unfit", False)),
        "reason": found.get("reason") or found.get("no_floor", ""),
    }


def metric_of(name: str) -> Metric:
    """The registered metric of a column, weighted or not."""
    return METRICS.load(name.removesuffix(SUFFIX))
