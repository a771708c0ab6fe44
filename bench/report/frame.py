"""Records and scores of a folder as tables: one row a run, one row a run and metric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tiltbench.metric import Metric
from tiltbench.record import Record, records
from tiltbench.score import read_scores
from tiltbench.spec import METRICS

if TYPE_CHECKING:
    from pandas import DataFrame

BLOCK = ["target", "budget"]  # runs that one leaderboard compares
SUFFIX = "_weighted"

COLUMNS = {
    "runs": [*BLOCK, "sampler", "seed", "id", "status", "finished", "reason", "draws", "asked",
             "values", "grads", "seconds", "cpu_seconds", "parameters"],
    "scores": [*BLOCK, "sampler", "seed", "id", "metric", "value", "se", "n",
               "floor_mean", "floor_sd", "floor_n", "unfit", "reason"],
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
    from pandas import DataFrame

    found = records(folder / "runs")
    runs, rows, curves = [], [], {}
    for record in found:
        scored = read_scores(folder / "runs", record.id) if record.status.finished else None
        head = {
            "target": record.labels["target"],
            "budget": int(record.spec["budget"]["train"][0]),
            "sampler": record.labels["sampler"],
            "seed": record.spec["seed"],
            "id": record.id,
        }
        runs.append({**head, **_run(record, scored)})
        if scored is None:
            continue
        rows += [{**head, **_score(name, found)} for name, found in scored["scores"].items()]
        if scored.get("curve"):
            curves[record.id] = scored["curve"]
    order = [*BLOCK, "sampler", "seed"]
    frame = DataFrame(runs, columns=COLUMNS["runs"]).sort_values(order, ignore_index=True)
    scores = DataFrame(rows, columns=COLUMNS["scores"])
    for column in ("value", "se", "floor_mean", "floor_sd"):
        scores[column] = scores[column].astype(float)
    return Frames(frame, scores.sort_values(order, ignore_index=True), curves, found)


def _run(record: Record, scored: dict[str, Any] | None) -> dict[str, Any]:
    values, grads = record.cost.get("train", (0, 0))
    return {
        "status": record.status.value,
        "finished": record.status.finished,
        "reason": record.reason,
        "draws": scored["draws"] if scored else None,
        "asked": record.spec["draws"],
        "values": values,
        "grads": grads,
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
        "reason": found.get("reason", ""),
    }


def metric_of(name: str) -> Metric:
    """The registered metric of a column, weighted or not."""
    return METRICS.load(name.removesuffix(SUFFIX))
