"""Leaderboards in Markdown: rows samplers, columns metrics, and a row of what exact draws score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.estimators import MEETING
from tiltbench.report.board import GROUPS, Board, SamplerRow
from tiltbench.report.compare import Floor, FloorStatus, ScoreSummary
from tiltbench.report.frame import Frames, metric_of
from tiltbench.report.ranks import Ranks, times
from tiltbench.report.standings import remarks
from tiltbench.report.tables import worth
from tiltbench.report.tables.grid import code, grid, sentence, text
from tiltbench.report.tables.legend import (
    BEHIND,
    MARK,
    NOT_BETTER,
    head,
    legend,
    number,
    physics,
    precise,
    torsions,
    truthless,
)
from tiltbench.report.tables.misled import Misled, misled
from tiltbench.report.tables.provenance import provenance
from tiltbench.report.tables.reasons import Remark, remarked, troubles
from tiltbench.report.tables.unknown import unknown, unranked
from tiltbench.score.curve import DISTANCES

if TYPE_CHECKING:
    from pandas import DataFrame


FLOOR = "*noise floor*"


def markdown(frames: Frames, boards: Sequence[Board], folder: Path) -> str:
    """The whole of table.md."""
    parts = [
        f"# {text(folder.resolve().name)}",
        text(" ".join(remarks(boards))),
        "How to read the tables stands at the end.",
        _overview(boards),
        worth.section(worth.worth(boards)),
        _misled(misled(frames), any(not board.unknown for board in boards)),
        _unmet(frames),
        _tuning(frames.runs),
    ]
    for board in boards:
        parts.append(_leaderboard(board, board.of(frames.runs), board.of(frames.scores)))
        if board.unknown:
            parts.append(_without_truth(board))
    parts.append(provenance(frames.records, frames.command))
    parts += ["## How to read the tables", legend()]
    if any(board.unknown for board in boards):
        parts.append(truthless())
    seen = {column.metric for board in boards for column in board.columns}
    if any(metric_of(name).needs & {"particles", "lattice"} for name in seen):
        parts.append(physics())
    if any("torsions" in metric_of(name).needs for name in seen):
        parts.append(torsions())
    return "\n\n".join(part for part in parts if part) + "\n"


def _tuning(runs: DataFrame) -> str:
    """Which methods had the same random search, and which have their parameters by hand."""
    each = {s: set(rows["tuned"]) for s, rows in runs.groupby("sampler", sort=False)}
    tuned = [f"{code(s)} ({', '.join(sorted(t - {''}))})" for s, t in each.items() if t != {""}]
    by_hand = [code(s) for s, t in each.items() if "" in t]
    if not tuned:
        return "Untuned: every method has default or hand-chosen parameters (`tiltbench tune`)."
    tuned_text = f"Tuned by `tiltbench tune`: {', '.join(tuned)}."
    return (
        f"{tuned_text} Untuned on a target or on all: {', '.join(by_hand)}."
        if by_hand
        else tuned_text
    )


def _unmet(frames: Frames) -> str:
    """A warning for every target and sampler whose forward and reverse weights hardly meet."""
    rows = frames.scores[frames.scores["metric"] == "overlap"]
    rows = rows[rows["value"] < MEETING]
    if rows.empty:
        return ""
    lines = [
        f"- {text(target)}, {code(sampler)}: {', '.join(f'{v:.2g}' for v in runs['value'])}"
        for (target, sampler), runs in rows.groupby(["target", "sampler"], sort=False)
    ]
    head = (
        "## Forward and reverse weights without overlap\n\nRuns whose overlap of forward and "
        f"reverse weights is below {MEETING:g}: the Bennett estimate rests on a few paths, and its "
        "error bar is wide; where it is above 1 nat the table has a dash."
    )
    return head + "\n\n" + "\n".join(lines)


def _leaderboard(board: Board, runs: DataFrame, scores: DataFrame) -> str:
    title = f"## {text(board.target)} · {text(board.allowed)}"
    spent = text(board.budget_summary[0].upper() + board.budget_summary[1:])
    parts = [title, text(" ".join(remarks([board]))), f"{spent}."]
    parts += ["**Ranking**", _ranking(board)]
    for key, caption in GROUPS.items():
        columns = [c.metric for c in board.columns if c.group == key]
        if columns:
            parts += [f"**{caption}**", _grid(board, columns)]
    parts += ["**Cost**", _cost(board)]
    parts.append("\n".join(map(_remark, remarked(board))))
    lines = [_remark(remark) for remark in troubles(board, runs, scores)]
    if lines:
        listed = "\n".join(lines)
        parts.append(f"<details><summary>Dashes and failures</summary>\n\n{listed}\n\n</details>")
    return "\n\n".join(part for part in parts if part)


def _without_truth(board: Board) -> str:
    """Why nobody is ranked, and what samplers say beside each other."""
    why = unranked(text(board.target))
    if board.certifiable:
        why += f" {code(f'tiltbench reference {board.target}')} certifies one from long chains."
    return "\n\n".join(filter(None, (why, unknown(board.beside))))


def _remark(remark: Remark) -> str:
    """`- SENTENCE: whom it is about`, those alike together."""
    groups: dict[str, list[str]] = {}
    for name, what in remark.about.items():
        groups.setdefault(what, []).append(code(name))
    about = "; ".join(
        ", ".join(names) + (f" ({what})" if what else "") for what, names in groups.items()
    )
    end = f"{remark.status.upper()}: " if remark.status else ""
    return f"- {end}{sentence(remark.text)}: {about}"


def _grid(board: Board, columns: list[str]) -> str:
    """A row a sampler, then its scores; last the noise floor."""
    rows = [
        [code(row.sampler), *(_cell(row, c) for c in columns)]
        for row in board.rows
        if any(column in row.scores for column in columns)
    ]
    floors = [_floor(board, column) for column in columns]
    rows += [[FLOOR, *floors]] if any(floors) else []
    return grid(["sampler", *map(head, columns)], rows)


def _floor(board: Board, column: str) -> str:
    """`0.12 ± 0.04`, with those of fewer draws behind it."""
    first, noisy = board.floor(column), board.unfit(column)
    shown = _exact(first) + (" (too noisy to rank by)" if first and noisy else "")
    return "; ".join(
        filter(None, [shown, *(f"n {f.n:.0f}: {_exact(f)}" for f in board.other_floors(column))])
    )


def _exact(floor: Floor | None) -> str:
    return f"{number(floor.mean)} ± {floor.sd:.1g}" if floor else ""


def _cell(row: SamplerRow, metric: str) -> str:
    c = row.scores.get(metric)
    return _score(c, metric in row.best) if c else "–"


def _score(c: ScoreSummary, bold: bool) -> str:
    value, low, high = (precise(v, c.se) for v in (c.median, c.low, c.high))
    shown = f"**{value}**" if bold else value
    if len(c.seeds) > 1:
        shown += f" [{low}, {high}]"
    if c.status is FloorStatus.NONE:
        return shown + ("" if math.isnan(c.se) or c.barless else f" ±{c.se:.1g}")
    return MARK.get(c.status, "") + shown + (f", n {c.draws:.0f}" if c.few else "")


def _ranking(board: Board) -> str:
    """Ranks, and the worst score, by which they go; last the noise floor."""
    known = ranks_of([board])
    rows = [
        [
            code(row.sampler) + (f" {BEHIND}" if row.behind else ""),
            *(_rank(column.of(row.ranks)) for column in known),
            worst(row),
            f"{row.finished} of {row.runs}{_ends(row)}",
        ]
        for row in sorted(board.rows, key=_by_rank)
    ]
    if any(row.judged for row in board.rows):
        rows.append([FLOOR, *([""] * len(known)), times(0.0), ""])
    heads = [column.head for column in known]
    return grid(["sampler", *heads, "worst score / floor", "seeds"], rows)


def _by_rank(row: SamplerRow) -> tuple[bool, int, str]:
    rank = RANKS[0].of(row.ranks)
    return rank is None, rank or 0, row.sampler


def _cost(board: Board) -> str:
    """What training and drawing spent, medians over seeds."""
    flops, ended = board.has_flops, any(row.spent.ended_by for row in board.rows)
    rows = [
        [
            code(row.sampler),
            _count(row.spent.draws) + (" (fewer than asked)" if row.spent.fewer else ""),
            _count(row.spent.values),
            _count(row.spent.grads),
            *([_large(row.spent.flops)] if flops else []),
            _seconds(row.spent.train_seconds),
            *([row.spent.ended_by or "–"] if ended else []),
            _count(row.spent.draw_values),
            _count(row.spent.draw_grads),
            *([_large(row.spent.draw_flops)] if flops else []),
            _seconds(row.spent.seconds),
            _count(row.spent.parameters),
        ]
        for row in board.rows
    ]
    heads = [
        "sampler",
        "draws",
        "training: values",
        "training: gradients",
        *(["training: FLOP"] if flops else []),
        "training: s",
        *(["ended by"] if ended else []),
        "drawing: values",
        "drawing: gradients",
        *(["drawing: FLOP"] if flops else []),
        "whole run, s",
        "parameters",
    ]
    return grid(heads, rows)


class RankColumn(NamedTuple):
    """A kind of rank."""

    head: str
    field: str

    def of(self, order: Ranks | None) -> int | None:
        return None if order is None else getattr(order, self.field)


RANKS = (
    RankColumn("rank", "rank"),
    RankColumn("at equal calls", "calls"),
    RankColumn("at equal compute", "compute"),
    RankColumn("gradient = 2 calls", "priced"),
)


def ranks_of(boards: Sequence[Board]) -> list[RankColumn]:
    """The rank at the end, and the others where anybody has one."""
    orders = [row.ranks for board in boards for row in board.rows]
    return [RANKS[0], *(c for c in RANKS[1:] if any(c.of(order) for order in orders))]


def _rank(rank: int | None) -> str:
    return "–" if rank is None else str(rank)


def worst(row: SamplerRow) -> str:
    """`34× mode_tv; no log Z`: the score that its rank goes by, and what it has no score in."""
    if row.judged is None:
        return "–"
    off = row.judged.worst
    shown = times(off.doublings) + ("" if row.judged.level else f" {off.metric}")
    return "; ".join([shown, *(f"no {group}" for group in row.judged.lacking)])


def _large(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def _seconds(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _ends(row: SamplerRow) -> str:
    return "".join(f", {count} {name.upper()}" for name, count in row.ends.items())


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"


def _overview(boards: Sequence[Board]) -> str:
    """Samplers against targets: the worst score, the distance to exact draws, errors of log Z."""
    distance = _matrix(boards, _distance, [FLOOR, *map(_floor_of_distance, boards)])
    sides = _matrix(boards, _sides)
    off = _matrix(boards, worst, [FLOOR, *map(_none_off, boards)])
    parts = ["## Overview"]
    if off:
        parts.append(
            "**Worst score of each method, as a multiple of the edge of the noise floor (what "
            f"ranks go by)**\n\n{off}"
        )
    if distance:
        parts.append(
            "**Distance of the unweighted draws to exact draws: energy_distance, of particles "
            f"config_w2**\n\n{distance}\n\n"
            f"`≈` within the noise floor, as good as exact draws. `{BEHIND}` {NOT_BETTER}."
        )
    if sides:
        parts.append(
            "**Error of log Z in nats: forward paths / reverse paths from exact draws / Bennett's "
            f"estimate from both**\n\n{sides}"
        )
    return "\n\n".join(parts) if parts[1:] else ""


def _none_off(board: Board) -> str:
    """What exact draws would have; nothing where nobody is judged."""
    return times(0.0) if any(row.judged for row in board.rows) else ""


def _matrix(
    boards: Sequence[Board], shown: Callable[[SamplerRow], str], last: Sequence[str] = ()
) -> str:
    many = len({board.allowed for board in boards}) > 1
    samplers = sorted({row.sampler for board in boards for row in board.rows})
    texts = [{row.sampler: shown(row) for row in board.rows} for board in boards]
    rows = [[code(name), *(by_sampler.get(name, "–") for by_sampler in texts)] for name in samplers]
    if all(cell == "–" for row in rows for cell in row[1:]):
        return ""
    heads = [text(b.target) + (f" ({text(b.allowed)})" if many else "") for b in boards]
    return grid(["sampler", *heads], [*rows, last] if any(last[1:]) else rows)


def _floor_of_distance(board: Board) -> str:
    return next((_exact(floor) for name in DISTANCES if (floor := board.floor(name))), "")


def _distance(row: SamplerRow) -> str:
    name = row.first(DISTANCES)
    if name is None:
        return "–"
    shown = MARK.get(row.scores[name].status, "") + number(row.scores[name].median)
    return f"{shown}{f' {BEHIND}' if row.behind else ''}"


def _sides(row: SamplerRow) -> str:
    errors = row.sides()
    if not errors:
        return "–"
    if "log_Z_own_err" in errors:
        return f"own estimate {number(errors['log_Z_own_err'].median)}"
    sides = ("log_Z_err", "log_Z_rev_err", "log_Z_bar_err")
    texts = [number(errors[name].median) if name in errors else "–" for name in sides]
    return " / ".join(texts) if texts[1:] != ["–", "–"] else texts[0]


def _misled(contradictions: list[Misled], known: bool) -> str:
    """At most three runs of a target and sampler are many; the worst one of each is shown.  Nothing
    is shown where no truth is `known`: there is one side only."""
    title = "## Good by its own paths, bad by exact draws"
    if not contradictions and not known:
        return ""
    if not contradictions:
        return f"{title}\n\nNo run looks good by its own paths and bad by exact draws."
    worst: dict[tuple[str, str], list[Misled]] = {}
    for m in contradictions:
        worst.setdefault((m.target, m.sampler), []).append(m)
    lines = [
        f"- {_contradiction(runs[0])}" + (f" ({len(runs)} seeds alike.)" if len(runs) > 1 else "")
        for runs in worst.values()
    ]
    return "\n".join([title, "", *lines])


def _contradiction(m: Misled) -> str:
    return m.sentence(f"**{text(m.target)}**", code(m.sampler))
