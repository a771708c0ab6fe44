"""Leaderboards in Markdown: rows samplers, columns metrics, every score beside its floor."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tiltbench.estimators import MEETING
from tiltbench.report.board import GROUPS, Board, Row
from tiltbench.report.compare import Cell, Order, Verdict
from tiltbench.report.frame import SUFFIX, Frames, metric_of
from tiltbench.report.tables.grid import grid
from tiltbench.report.tables.legend import ARROW, LEGEND, MARK, PHYSICS, number
from tiltbench.report.tables.misled import Misled, misled
from tiltbench.report.tables.provenance import provenance
from tiltbench.report.tables.reasons import Said, dashes, ends, notes, places
from tiltbench.score.curve import DISTANCES

if TYPE_CHECKING:
    from pandas import DataFrame


if TYPE_CHECKING:
    from pandas import DataFrame

SLANTED = {"config_w2", "log_Z_own_err"}  # in the overview, where they stand in for another


def markdown(frames: Frames, boards: Sequence[Board], folder: Path) -> str:
    """The whole of table.md."""
    parts = [f"# {folder.name}", LEGEND]
    seen = {column.metric for board in boards for column in board.columns}
    if any(metric_of(name).needs & {"particles", "lattice"} for name in seen):
        parts.append(PHYSICS)
    parts += [_tuning(frames.runs), _overview(boards), _misled(misled(frames)), _unmet(frames)]
    for board in boards:
        runs, scores = (
            every[(every["target"] == board.target) & (every["budget"] == board.budget)]
            for every in (frames.runs, frames.scores)
        )
        parts.append(_leaderboard(board, runs, scores))
    parts.append(provenance(frames.records, frames.command))
    return "\n\n".join(part for part in parts if part) + "\n"


def _tuning(runs: DataFrame) -> str:
    """Which methods had the same random search, and which have their parameters by hand."""
    each = {s: set(rows["tuned"]) for s, rows in runs.groupby("sampler", sort=False)}
    tuned = [f"`{s}` ({', '.join(sorted(t - {''}))})" for s, t in each.items() if t != {""}]
    by_hand = [f"`{s}`" for s, t in each.items() if "" in t]
    if not tuned:
        return "Untuned: every method has default or hand-chosen parameters (`tiltbench tune`)."
    said = f"Tuned by `tiltbench tune`: {', '.join(tuned)}."
    return f"{said} Untuned on a target or on all: {', '.join(by_hand)}." if by_hand else said


def _unmet(frames: Frames) -> str:
    """A warning for every target and sampler whose forward and reverse weights hardly meet."""
    rows = frames.scores[frames.scores["metric"] == "overlap"]
    rows = rows[rows["value"] < MEETING]
    if rows.empty:
        return ""
    lines = [
        f"- {target}, `{sampler}`: {', '.join(f'{v:.2g}' for v in own['value'])}"
        for (target, sampler), own in rows.groupby(["target", "sampler"], sort=False)
    ]
    head = (
        "## Two sides that do not meet\n\nRuns whose overlap of forward and reverse weights is "
        f"below {MEETING:g}: the Bennett estimate rests on a few paths, and its error bar is wide; "
        "where it is above 1 nat the table has a dash."
    )
    return head + "\n\n" + "\n".join(lines)


def _leaderboard(board: Board, runs: DataFrame, scores: DataFrame) -> str:
    title = f"## {board.target} · {board.budget:,} points"
    parts = [title, board.allowance[0].upper() + board.allowance[1:] + ".", _cost(board)]
    for key, caption in GROUPS.items():
        columns = [c.metric for c in board.columns if c.group == key]
        if columns and key != "probes":  # which stand with the cost
            parts += [f"**{caption}**", _grid(board, columns)]
    marked = [said for said in places(board) if said.text.startswith("†")]
    parts.append("\n".join(_line(said) for said in marked))
    rest = [said for said in places(board) if said not in marked]
    lines = [_line(s) for s in (*ends(runs), *rest, *dashes(runs, scores), *notes(runs))]
    if lines:
        text = "\n".join(lines)
        parts.append(f"<details><summary>Dashes and failures</summary>\n\n{text}\n\n</details>")
    return "\n\n".join(part for part in parts if part)


def _line(said: Said) -> str:
    """`- SENTENCE: whom it is about`, those alike together."""
    groups: dict[str, list[str]] = {}
    for name, what in said.about.items():
        groups.setdefault(what, []).append(f"`{name}`")
    about = "; ".join(
        ", ".join(names) + (f" ({what})" if what else "") for what, names in groups.items()
    )
    end = f"{said.status.upper()}: " if said.status else ""
    return f"- {end}{said.text}: {about}"


def _grid(board: Board, columns: list[str]) -> str:
    """A row a sampler: the calls it spent, then its scores."""
    heads = [f"{c.removesuffix(SUFFIX)} {ARROW[metric_of(c).better]}" for c in columns]
    rows = [
        [f"`{row.sampler}`", _calls(row), *(_cell(row, column) for column in columns)]
        for row in board.rows
        if any(column in row.cells for column in columns)
    ]
    return grid(["sampler", "calls", *heads], rows)


def _calls(row: Row) -> str:
    return _count(row.spent.calls) + ("°" if row.spent.own else "")


def _cell(row: Row, metric: str) -> str:
    c = row.cells.get(metric)
    return _text(c, metric in row.best) if c else "–"


def _text(c: Cell, bold: bool) -> str:
    text = f"**{number(c.median)}**" if bold else number(c.median)
    if len(c.seeds) > 1:
        text += f" [{number(c.low)}, {number(c.high)}]"
    if c.verdict is Verdict.NONE:
        return text + ("" if math.isnan(c.se) else f" ±{c.se:.1g}")
    few = f", n {c.draws:.0f}" if c.few else ""
    text = f"{MARK.get(c.verdict, '')}{text} \\| {number(c.floor_mean)}±{c.floor_sd:.1g}{few}"
    return f"*({text})*" if c.verdict is Verdict.UNFIT else text


def _cost(board: Board) -> str:
    probes = [column.metric for column in board.columns if column.group == "probes"]
    rows = [
        [
            f"`{row.sampler}`",
            placed(row.place) + (" †" if row.caveat else ""),
            f"{row.finished} of {row.runs}{_ends(row)}",
            _count(row.spent.draws) + (" (fewer than asked)" if row.spent.fewer else ""),
            _count(row.spent.values) + ("°" if row.spent.own else ""),
            _count(row.spent.grads),
            _count(row.spent.draw_values) + (" ⚠" if row.spent.dear else ""),
            _count(row.spent.draw_grads),
            "–" if math.isnan(row.spent.seconds) else f"{row.spent.seconds:.1f}",
            _count(row.spent.parameters),
            *(_cell(row, probe) for probe in probes),
        ]
        for row in board.rows
    ]
    heads = [
        "sampler",
        "place (grad = 2)",
        "seeds",
        "draws",
        "values",
        "grads",
        "drawing: values",
        "drawing: grads",
        "seconds",
        "parameters",
    ]
    return grid([*heads, *probes], rows)


def placed(order: Order | None) -> str:
    if order is None or order.place is None:
        return "–"
    changed = " ⇄" if order.priced is not None and order.place != order.priced else ""
    return f"{order.place} / {order.priced or '–'}{changed}"


def _ends(row: Row) -> str:
    return "".join(f", {count} {name.upper()}" for name, count in row.ends.items())


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"


def _overview(boards: Sequence[Board]) -> str:
    """Samplers against targets: distance to exact draws and errors of log Z."""
    distance = _matrix(boards, _distance)
    sides = _matrix(boards, _sides)
    parts = ["## Overview"]
    if distance:
        parts.append(
            "**Distance to exact draws: energy distance, of particles *config_w2* (`≈` at the "
            "floor, `▼` below it, `∼` at a wider one, `†` off in what it does not see); after the "
            f"dot calls in training, `°` of a smaller budget of its own**\n\n{distance}"
        )
    if sides:
        parts.append(
            "**Error of log Z, nats: forward / reverse / Bennett (*own* where the method has no "
            f"weights)**\n\n{sides}"
        )
    return "\n\n".join(parts) if parts[1:] else ""


def _matrix(boards: Sequence[Board], text: Callable[[Row], str]) -> str:
    many = len({board.budget for board in boards}) > 1
    samplers = sorted({row.sampler for board in boards for row in board.rows})
    texts = [{row.sampler: text(row) for row in board.rows} for board in boards]
    rows = [[f"`{name}`", *(own.get(name, "–") for own in texts)] for name in samplers]
    if all(cell == "–" for row in rows for cell in row[1:]):
        return ""
    heads = [f"{b.target} ({b.budget:,})" if many else b.target for b in boards]
    return grid(["sampler", *heads], rows)


def _distance(row: Row) -> str:
    name = row.first(DISTANCES)
    if name is None:
        return "–"
    said = MARK.get(row.cells[name].verdict, "") + number(row.cells[name].median)
    said = f"*{said}*" if name in SLANTED else said
    return f"{said}{' †' if row.caveat else ''} · {row.spent.text}"


def _sides(row: Row) -> str:
    found = row.sides()
    if not found:
        return "–"
    if "log_Z_own_err" in found:
        return f"*{number(found['log_Z_own_err'].median)}*"
    sides = ("log_Z_err", "log_Z_rev_err", "log_Z_bar_err")
    texts = [number(found[name].median) if name in found else "–" for name in sides]
    return " / ".join(texts) if texts[1:] != ["–", "–"] else texts[0]


def _misled(found: list[Misled]) -> str:
    """At most three runs of a target and sampler are many; the worst one of each is told."""
    title = "## One-sided against two-sided"
    if not found:
        return f"{title}\n\nNo run looks good from its own side and bad from the target's."
    worst: dict[tuple[str, str], list[Misled]] = {}
    for m in found:
        worst.setdefault((m.target, m.sampler), []).append(m)
    lines = [
        f"- {runs[0].sentence}" + (f" ({len(runs)} seeds alike.)" if len(runs) > 1 else "")
        for runs in worst.values()
    ]
    return "\n".join([title, "", *lines])
