"""Records and scores of a folder as tables: one row a run, one row a run and metric."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tiltbench.metric import Metric
from tiltbench.plan.budget import limits as limits_of
from tiltbench.plan.spec import METRICS
from tiltbench.records.located import located
from tiltbench.records.published import Results, results
from tiltbench.records.record import UNPAID, UNPAID_BEFORE, Record
from tiltbench.records.store import warn
from tiltbench.score.folder import scoring_code

if TYPE_CHECKING:
    from pandas import DataFrame

BLOCK = ["target", "budget", "limits"]  # runs that one leaderboard compares
SUFFIX = "_weighted"

COLUMNS = {
    "runs": [*BLOCK, "sampler", "seed", "id", "status", "finished", "reason", "notes", "trained",
             "code", "method", "tuned", "draws", "asked", "values", "grads", "draw_values",
             "draw_grads", "flops", "draw_flops", "ended_by",
             "seconds", "train_seconds", "cpu_seconds", "parameters"],
    "scores": [*BLOCK, "sampler", "seed", "id", "metric", "value", "se", "n",
               "floor_mean", "floor_sd", "floor_n", "unfit", "reason",
               "train_values", "train_grads", "draw_values", "draw_grads",
               "train_flops", "draw_flops", "train_seconds", "ended_by"],
}  # fmt: skip


def block_of(frame: DataFrame, block: tuple[str, int, str]) -> DataFrame:
    """The rows of one leaderboard: its target, calls and other limits."""
    target, budget, limits = block
    same = (frame["target"] == target) & (frame["budget"] == budget) & (frame["limits"] == limits)
    return frame[same]


class Frames(NamedTuple):
    """runs and scores (tidy, see COLUMNS; value NaN where unknown, with its reason), the learning
    curves by run id, the records themselves, what scores name that is no metric here, the command
    that made the set, where it is known, and of a published set what samplers say beside each other
    (`report.beside`), whose draws are not there."""

    runs: DataFrame
    scores: DataFrame
    curves: dict[str, dict[str, Any]]
    records: list[Record]
    strange: frozenset[str] = frozenset()
    command: str = ""
    beside: Sequence[Any] | None = None  # None: the draws are there


def collect(folder: Path) -> Frames:
    """What a results folder holds, published or not.  Runs that have not been scored have no rows
    among the scores.

    Scores by other code or other metrics than the present ones are named on stderr, but for those
    of a published set, which are what was published.  Raises Refused for a damaged published set.
    """
    stored = results(folder)
    frames = frames_of(stored)
    if not stored.published:
        _warn_of_other_code(frames, folder / "runs")
    if frames.strange:
        named = ", ".join(sorted(frames.strange))
        warn(f"scores of {named} are left out: no such metric is known; --plugin FILE lends one")
    return frames


def _warn_of_other_code(frames: Frames, runs: Path) -> None:
    now = {record.id: scoring_code(located(record, runs)) for record in frames.records}
    scored = frames.runs[frames.runs["code"] != ""]
    other = sum(run["code"] != now[run["id"]] for _, run in scored.iterrows())
    if other:
        warn(
            f"{other} of {len(scored)} runs were scored by other code or other metrics; "
            f"`tiltbench score` makes their scores anew from the draws"
        )


def frames_of(given: Results) -> Frames:
    """The same of results that have been read, without a word."""
    from pandas import DataFrame

    records, strange = _with_distinct_labels(given.records), set()
    runs, rows, curves = [], [], {}
    for record in records:
        scored = given.scores.get(record.id)
        head = {
            "target": record.labels["target"],
            "budget": int(record.spec["budget"]["train"][0]),
            "limits": limits(record.spec["budget"]),
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
                rows.append({**head, **_score(name, score), **_spent(record), **_ended(record)})
            else:
                strange.add(name.removesuffix(SUFFIX))
        if scored.get("curve"):
            curves[record.id] = scored["curve"]
    order = [*BLOCK, "sampler", "seed"]
    frame = DataFrame(runs, columns=COLUMNS["runs"]).sort_values(order, ignore_index=True)
    scores = DataFrame(rows, columns=COLUMNS["scores"])
    for column in ("value", "se", "floor_mean", "floor_sd"):
        scores[column] = scores[column].astype(float)
    scores = scores.sort_values(order, ignore_index=True)
    command = str(given.suite.get("command", ""))
    beside = given.beside if given.published else None
    return Frames(frame, scores, curves, records, frozenset(strange), command, beside)


def limits(budget: Mapping[str, Any]) -> str:
    """What a run might spend besides calls, in words; empty where that is not limited."""
    return limits_of(math.inf, budget.get("flops") or math.inf, budget.get("seconds") or math.inf)


def _spent(record: Record) -> dict[str, int]:
    return {
        f"{phase}_{kind}": count
        for phase in ("train", "draw")
        for kind, count in zip(("values", "grads"), record.cost.get(phase, (0, 0)), strict=True)
    }


def _ended(record: Record) -> dict[str, Any]:
    return {
        "train_flops": _number(record.cost.get("train_flops")),
        "draw_flops": _number(record.cost.get("draw_flops")),
        "train_seconds": _number(record.cost.get("train_seconds")),
        "ended_by": record.cost.get("ended_by") or "",
    }


def _run(record: Record, scored: dict[str, Any] | None) -> dict[str, Any]:
    spent, ended = _spent(record), _ended(record)
    notes = list(record.cost.get("notes", ()))
    if scored and scored.get("curve_error"):
        notes.append(scored["curve_error"])
    return {
        "status": record.status.value,
        "finished": record.status.finished,
        "reason": record.reason,
        "code": (scored.get("code") or "") if scored else "",
        "method": record.spec["sampler"]["name"],
        "draws": scored.get("draws") if scored else None,
        "asked": record.spec["draws"],
        "notes": notes,
        "trained": not {UNPAID, UNPAID_BEFORE} & set(notes),
        "values": spent["train_values"],
        "grads": spent["train_grads"],
        "draw_values": spent["draw_values"],
        "draw_grads": spent["draw_grads"],
        "flops": ended["train_flops"],
        "draw_flops": ended["draw_flops"],
        "ended_by": ended["ended_by"],
        **{
            key: record.cost.get(key)
            for key in ("seconds", "train_seconds", "cpu_seconds", "parameters")
        },
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _score(name: str, score: dict[str, Any]) -> dict[str, Any]:
    floor = score.get("floor") or {}
    return {
        "metric": name,
        **_value(metric_of(name), score),
        "floor_mean": floor.get("mean"),
        "floor_sd": floor.get("sd"),
        "floor_n": floor.get("n"),
        "unfit": bool(floor.get("unfit", False)),
    }


def _value(metric: Metric, score: dict[str, Any]) -> dict[str, Any]:
    """Value, error and reason; no value where its error is too wide for it to say anything."""
    value, se, reason = score.get("value"), score.get("se"), score.get("reason")
    if value is not None and (math.inf if se is None else se) > metric.widest:
        value, se = None, None
        reason = f"a standard error above {metric.widest:g} {metric.unit} is no estimate"
    why = reason or score.get("no_floor") or score.get("no_error") or ""
    return {"value": value, "se": se, "n": score.get("n"), "reason": why}


def _with_distinct_labels(records: list[Record]) -> list[Record]:
    """Where one leaderboard has a seed of a sampler twice (other draws, another device, other
    settings under one label), what differs is added to the label: they are two rows, not two seeds.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        budget = record.spec["budget"]
        block = (record.labels["target"], int(budget["train"][0]), limits(budget))
        key = (*block, record.labels["sampler"])
        groups.setdefault(key, []).append(record)
    labels: dict[str, str] = {}
    for alike in groups.values():
        if len({record.spec["seed"] for record in alike}) < len(alike):
            parts = [_settings(record.spec) for record in alike]
            differ = [key for key in parts[0] if len({part[key] for part in parts}) > 1]
            for record, part in zip(alike, parts, strict=True):
                differences = ", ".join(part[key] for key in differ)
                labels[record.id] = f"{record.labels['sampler']} ({differences})"
    return [
        replace(r, labels={**r.labels, "sampler": labels[r.id]}) if r.id in labels else r
        for r in records
    ]


def _settings(spec: Mapping[str, Any]) -> dict[str, str]:
    """All of a spec but its seed, in words."""
    rest = json.dumps([spec["target"], spec["sampler"]], sort_keys=True)
    return {
        "draws": f"{spec['draws']:,} draws",
        "device": str(spec.get("device")),
        "rounding": "TF32" if spec.get("tf32") else "no TF32",
        "version": f"target version {spec['target_version']}",
        "rest": f"settings {hashlib.sha256(rest.encode()).hexdigest()[:4]}",
    }


def metric_of(name: str) -> Metric:
    """The registered metric of a column, weighted or not."""
    return METRICS.load(name.removesuffix(SUFFIX))
