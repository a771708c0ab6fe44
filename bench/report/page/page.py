"""One page for a folder, report.html: it holds its data, its style and its program, and nothing
else is fetched.

What it shows is made by assets/*.js from the JSON below, as text and never as markup.  Names and
messages come from records, which somebody else may have written: the JSON has no `<`, and the
page's own policy lets no other script run and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiltbench.plan.spec import Spec, shorten
from tiltbench.records.record import Record, read_outcome
from tiltbench.records.store import warn
from tiltbench.report.beside import StatisticSummary
from tiltbench.report.board import GROUPS, Board, SamplerRow, group
from tiltbench.report.compare import scale
from tiltbench.report.frame import Frames, metric_of
from tiltbench.report.page.views import views
from tiltbench.report.pictures.style import looks
from tiltbench.report.ranks import times
from tiltbench.report.standings import remarks
from tiltbench.report.tables.legend import (
    NOT_BETTER,
    SIDES,
    brief,
    legend,
    physics,
    torsions,
    truthless,
)
from tiltbench.report.tables.markdown import RANKS, ranks_of, worst
from tiltbench.report.tables.misled import misled
from tiltbench.report.tables.reasons import remarked, troubles
from tiltbench.report.tables.unknown import (
    ENERGY_DISTANCES,
    HOW_ENERGY_DISTANCES,
    HOW_NEARER,
    HOW_STATISTICS,
    NEARER,
    STATISTICS,
    unranked,
)
from tiltbench.report.targets import targets_of
from tiltbench.score.curve import DISTANCES, UNJUDGED

PARTS = Path(__file__).parent / "assets"
SCRIPTS = ("build.js", "figures.js", "views.js")

Json = dict[str, Any]


def page(frames: Frames, boards: Sequence[Board], folder: Path) -> str:
    """The whole of report.html."""
    script = "\n".join(part(name) for name in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(folder.resolve().name),
        "digest": digest,
        "style": part("style.css"),
        "script": script,
        "data": inert(data(frames, boards, folder)),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], part("page.html"))


def part(name: str) -> str:
    """A file of assets/."""
    return (PARTS / name).read_text(encoding="utf-8")


def inert(value: Any) -> str:
    """Strict JSON that ends no script element: `<`, `>` and `&` are written as \\u00XX."""
    text = json.dumps(_short(value), separators=(",", ":"), allow_nan=False)
    return text.translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})


def _short(value: Any) -> Any:
    """Whole numbers as they are, others to six digits; what is not finite is null."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value == int(value) and abs(value) < 1e12 else float(f"{value:.6g}")
    if isinstance(value, dict):
        return {str(k): _short(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_short(v) for v in value]
    return value


def data(frames: Frames, boards: Sequence[Board], folder: Path) -> Json:
    """What the page knows: metrics, leaderboards with their pictures, every run, where from."""
    names = list(dict.fromkeys(frames.scores["metric"]))
    origins, texts = _Once(), _Once()
    scores = _scores(frames, texts)
    runs = frames.runs.to_dict("records")
    worst: dict[tuple[str, str], str] = {}
    for m in misled(frames):
        worst.setdefault((m.target, m.sampler), m.sentence(m.target, m.sampler))
    by_id = {record.id: record for record in frames.records}
    return {
        "name": folder.resolve().name,
        "command": frames.command,
        "legend": f"{legend()}\n\n{truthless()}\n\n{physics()}\n\n{torsions()}",
        "scale": scale(),
        "groups": GROUPS,
        "metrics": {name: _metric(name) for name in names},
        "ranks": [column._asdict() for column in ranks_of(boards)],
        "remarks": remarks(boards),
        "least": times(0.0),
        "distances": DISTANCES,
        "notBetter": NOT_BETTER,
        "sides": SIDES,
        "looks": {
            name: {"colour": look.colour, "marker": look.marker, "dash": list(look.dash)}
            for name, look in looks(frames.runs["sampler"]).items()
        },
        "misled": list(worst.values()),
        "boards": [_board(board, frames) for board in boards],
        "views": _views(frames, boards, folder),
        "runs": [
            _run(by_id[run["id"]], run, frames, scores.get(run["id"], {}), origins) for run in runs
        ],
        "origins": origins.values,
        "texts": texts.values,
    }


class _Once:
    """Values that many runs share, written once: `index` is that of one in `values`."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.indices: dict[str, int] = {}

    def index(self, value: Any) -> int:
        key = json.dumps(value, sort_keys=True, default=str)
        if key not in self.indices:
            self.indices[key] = len(self.values)
            self.values.append(value)
        return self.indices[key]


def _metric(name: str) -> Json:
    metric = metric_of(name)
    return {
        "better": metric.better,
        "unit": metric.unit,
        "perfect": metric.perfect,
        "group": group(name),
    }


def _board(board: Board, frames: Frames) -> Json:
    runs, scores = board.of(frames.runs), board.of(frames.scores)
    return {
        "target": board.target,
        "remarks": remarks([board]),
        "budget": board.budget,
        "limits": board.limits,
        "allowed": board.allowed,
        "allowance": board.budget_summary,
        "columns": [column.metric for column in board.columns],
        "rows": [_sampler_row(board, row) for row in board.rows],
        "floors": {
            column.metric: floor._asdict()
            for column in board.columns
            if (floor := board.floor(column.metric))
        },
        "fewer": {
            column.metric: [floor._asdict() for floor in board.other_floors(column.metric)]
            for column in board.columns
        },
        "unfit": [column.metric for column in board.columns if board.unfit(column.metric)],
        "said": [s._asdict() for s in (*remarked(board), *troubles(board, runs, scores))],
        "unknown": _unknown(board) if board.unknown else None,
    }


def _unknown(board: Board) -> Json:
    """Why nobody is ranked, and the tables of what samplers say beside each other."""
    comparison = board.beside
    tables = []
    if comparison is not None and comparison.statistics:
        rows = [[name, *map(_statistic, row)] for name, row in comparison.statistics.items()]
        tables.append(_table(STATISTICS, HOW_STATISTICS, ["statistic", *comparison.samplers], rows))
    if comparison is not None and comparison.distances:
        rows = [
            [name, *({"v": value} for value in row)]
            for name, row in zip(comparison.samplers, comparison.distances, strict=True)
        ]
        tables.append(
            _table(ENERGY_DISTANCES, HOW_ENERGY_DISTANCES, ["sampler", *comparison.samplers], rows)
        )
    if comparison is not None and (comparison.nearer or comparison.apart):
        samplers, ahead = comparison.compared
        rows = [
            [name, *({"v": by.value, "e": by.error} if by else None for by in row)]
            for name, row in zip(samplers, ahead, strict=True)
        ]
        why = [f"– {name}: {reason}." for name, reason in comparison.apart.items()]
        note = " ".join([HOW_NEARER, *why]).replace("`", "")
        tables.append(_table(NEARER, note, ["sampler", *samplers], rows))
    return {"why": unranked(board.target), "certify": board.certifiable, "tables": tables}


def _table(title: str, note: str, heads: list[str], rows: list[list[Any]]) -> Json:
    return {"title": title, "note": note, "heads": heads, "rows": rows}


def _statistic(summary: StatisticSummary | None) -> Json | None:
    """v ± e, and quantiles q."""
    return (
        None if summary is None else {"v": summary.mean, "e": summary.error, "q": summary.quantiles}
    )


def _sampler_row(board: Board, row: SamplerRow) -> Json:
    return {
        "sampler": row.sampler,
        "ranks": {column.field: column.of(row.ranks) for column in RANKS},
        "why": "; ".join(row.ranks.why) if row.ranks else "",
        "worst": worst(row) if row.judged else None,
        "off": _doublings(row),
        "offs": [
            {"group": off.group, "metric": off.metric, "off": times(off.doublings)}
            for off in (row.judged.scores if row.judged else ())
        ],
        "behind": row.behind,
        "runs": row.runs,
        "finished": row.finished,
        "ends": dict(row.ends),
        "calls": row.spent.calls,
        "flops": row.spent.flops,
        "ended": row.spent.ended_by,
        "spent": brief(row.spent.calls),
        "cells": {
            name: {
                "v": c.median,
                "lo": c.low,
                "hi": c.high,
                "se": math.nan if c.barless else c.se,
                "fm": c.floor_mean,
                "fs": c.floor_sd,
                "n": c.draws if c.few else None,
                "is": c.status.name,
                "b": name in row.best,
                "d": board.distance(row, name),
            }
            for name, c in row.scores.items()
        },
    }


def _doublings(row: SamplerRow) -> float | None:
    """To sort by: a number that is no number is farther off than any."""
    return None if row.judged is None else min(row.judged.doublings, 1e6)


def _scores(frames: Frames, texts: _Once) -> dict[str, Json]:
    """By run and metric: [value, se, n], or the index of the reason why there is none."""
    by_run: dict[str, Json] = {}
    for row in frames.scores.to_dict("records"):
        value = row["value"]
        known = isinstance(value, float) and math.isfinite(value)
        score = [value, row["se"], row["n"]] if known else texts.index(row["reason"])
        by_run.setdefault(row["id"], {})[row["metric"]] = score
    return by_run


def _run(record: Record, run: Json, frames: Frames, scores: Json, origins: _Once) -> Json:
    keys = (
        "target", "budget", "limits", "sampler", "seed", "id", "status", "finished", "reason",
        "notes", "draws", "values", "grads", "draw_values", "draw_grads", "flops", "draw_flops",
        "ended_by", "seconds", "parameters",
    )  # fmt: skip
    curve = frames.curves.get(record.id)
    kept = ("spend", "flops", "seconds", "n", "metric", "log_Z_err", "distance", "floor", *UNJUDGED)
    return {
        **{key: run[key] for key in keys},
        "train_seconds": record.cost.get("train_seconds"),
        "memory": record.cost.get("peak_memory_mb"),
        "origin": origins.index({"code": dict(record.code), "env": dict(record.env)}),
        "version": record.spec.get("target_version"),
        "command": command(record),
        "traceback": record.traceback[-2000:],
        "scores": scores,
        "curve": {key: curve[key] for key in kept if key in curve} if curve else None,
    }


def command(record: Record) -> str:
    """The words that run this cell again, with every parameter; empty where a part of the sampler
    is not known here."""
    spec = record.spec
    try:
        names = [_whole(spec["target"]), _whole(spec["sampler"])]
    except Exception:  # a plug-in that is gone, or a file that somebody made up
        return ""
    words = ["tiltbench", "run", "--targets", names[0], "--samplers", names[1]]
    words += ["--seeds", f"{spec['seed']},", "--budget", str(spec["budget"]["train"][0])]
    words += ["--draws", str(spec["draws"]), "--device", str(spec["device"])]
    for key in ("flops", "seconds"):
        if limit := spec["budget"].get(key):
            words += [f"--{key}", repr(limit)]  # every digit: another number is another run
    return shlex.join(words)


def _whole(spec: Spec) -> str:
    return shorten(spec, {"name": spec["name"], "params": {}})


def _views(frames: Frames, boards: Sequence[Board], folder: Path) -> list[Json]:
    """What is drawn for each leaderboard, and what is known of its target."""
    targets = targets_of(frames.records, folder / "runs")
    shown, without = [], 0
    for board in boards:
        runs = frames.runs
        mine = board.of(runs)
        outcomes = {}
        for run in mine[mine["finished"]]["id"]:
            if not (folder / "runs" / f"{run}.npz").exists():
                without += 1
                continue
            try:
                outcomes[run] = read_outcome(folder / "runs", run)
            except Exception as error:
                warn(f"the page lacks the draws of {run} ({type(error).__name__}: {error})")
        target = targets.get(board.target)
        facts: Json = {}
        if target is not None:
            truth = target.truth()
            facts = {"dim": target.dim, "source": truth.source, "log_Z": truth.log_Z}
        shown.append({**facts, **views(target, outcomes)})
    if without:
        warn(f"{without} runs have no draws here, as in published sets: no pictures show theirs")
    return shown
