"""What a run ends with on the console: the samplers by mean place, and one sentence."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from statistics import mean, median
from typing import NamedTuple

from tiltbench.report.board import PLACED, Board, Row
from tiltbench.report.compare import SEEDS_FOR_BOLD, Verdict
from tiltbench.report.tables.legend import brief

WIDTH = 100
SHOWN = 10  # samplers
NAME = 52  # characters of a sampler's name


class Standing(NamedTuple):
    """One sampler over all boards (a target at an allowance)."""

    sampler: str
    place: float  # mean; NaN where no board has a place for it
    boards: int  # that the mean is over
    floor: int  # how many of them at the floor
    finished: int
    runs: int
    calls: float  # in training, median over boards; NaN where no run finished


def standings(boards: Sequence[Board]) -> list[Standing]:
    """Best first.  Where a sampler has runs but no place (they failed, or its score lies below the
    floor) it counts as the last of its board; where its method does not apply, not at all."""
    names = dict.fromkeys(row.sampler for board in boards for row in board.rows)
    made = [_standing(name, boards) for name in names]
    return sorted(made, key=lambda s: (math.isnan(s.place), s.place, -s.floor, s.sampler))


def _standing(name: str, boards: Sequence[Board]) -> Standing:
    places, floor, finished, runs, calls = [], 0, 0, 0, []
    for board in boards:
        for row in board.rows:
            if row.sampler != name:
                continue
            finished, runs = finished + row.finished, runs + row.runs
            if row.finished:
                calls.append(row.spent.calls)
            if set(row.ends) == {"unsupported"} and not row.finished:
                continue
            if _ranks(board):
                place = row.place.place if row.place else None
                places.append(len(board.rows) if place is None else place)
                floor += _at(row, board)
    calls = [c for c in calls if not math.isnan(c)]
    return Standing(
        name,
        mean(places) if places else math.nan,
        len(places),
        floor,
        finished,
        runs,
        median(calls) if calls else math.nan,
    )


def _ranks(board: Board) -> bool:
    """Whether anybody has a place."""
    return any(row.place is not None and row.place.place is not None for row in board.rows)


def _at(row: Row, board: Board) -> bool:
    placed = next((name for name in PLACED if any(name in r.cells for r in board.rows)), None)
    c = row.cells.get(placed or "")
    return c is not None and c.verdict is Verdict.AT


def leaderboard(boards: Sequence[Board]) -> str:
    """At most SHOWN samplers, 100 columns wide, with the conclusion below."""
    rows = standings(boards)
    ranked = sum(_ranks(board) for board in boards)
    head = ("sampler", "mean place", "at the floor", "finished", "calls")
    lines = [head, *(_cells(row) for row in rows[:SHOWN])]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    table = [
        "  ".join(text.ljust(w) if k == 0 else text.rjust(w) for k, (text, w) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    if len(rows) > SHOWN:
        table.append(f"... and {len(rows) - SHOWN} more")
    return "\n".join([*table, "", textwrap.fill(conclusion(rows, boards, ranked), WIDTH)])


def _cells(row: Standing) -> tuple[str, ...]:
    half = (NAME - 3) // 2
    short = len(row.sampler) <= NAME
    name = row.sampler if short else f"{row.sampler[:half]}...{row.sampler[-half:]}"
    return (
        name,
        "-" if math.isnan(row.place) else f"{row.place:.1f}",
        f"{row.floor} of {row.boards}" if row.boards else "-",
        f"{row.finished} of {row.runs}",
        "-" if math.isnan(row.calls) else brief(row.calls),
    )


def conclusion(rows: Sequence[Standing], boards: Sequence[Board], ranked: int) -> str:
    """One sentence on who leads, and where anybody is as good as exact draws."""
    if not any(row.finished for row in rows):
        return "No run has finished, so there is nothing to compare; table.md has the reasons."
    if not ranked:
        return (
            "Nobody has a place: no target here has a truth that the runs that finished could be "
            "compared with."
        )
    at = {board.target for board in boards if any(_at(row, board) for row in board.rows)}
    targets = {board.target for board in boards}
    where = (
        f"somebody is at the floor, as good as exact draws, on {len(at)} of {_count(len(targets))}"
        if at
        else f"nobody is at the floor, as good as exact draws, on any of {_count(len(targets))}"
    )
    if len(targets) == 1:
        where = f"{'somebody' if at else 'nobody'} is at the floor, as good as exact draws"
    if len(rows) == 1:
        return f"{rows[0].sampler} has nobody to be compared with; {where}."
    first = [row for row in rows if row.place == rows[0].place]
    lead = f"{_listed([row.sampler for row in first])} {'leads' if len(first) == 1 else 'lead'}"
    by = f" by mean place ({first[0].place:.1f})" if ranked > 1 else ""
    seeds = max(len(c.seeds) for board in boards for row in board.rows for c in row.cells.values())
    few = (
        f" ({_count(seeds, 'seed')}: differences are tested from {SEEDS_FOR_BOLD} on)"
        if seeds < SEEDS_FOR_BOLD
        else ""
    )
    return f"{lead}{by}; {where}{few}."


def _count(n: int, what: str = "target") -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`, or with more than three how many others there are."""
    if len(names) > 3:
        return f"{', '.join(names[:2])} and {len(names) - 2} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
