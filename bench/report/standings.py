"""What a run ends with on the console: the samplers by mean rank, and a few sentences."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, median
from typing import NamedTuple

from tiltbench.plan.suite import UNTRAINED
from tiltbench.report.board import Board, SamplerRow
from tiltbench.report.compare import SEEDS_FOR_BOLD
from tiltbench.report.ranks import DISTANCE, times
from tiltbench.report.tables.legend import BEHIND, NOT_BETTER, brief

WIDTH = 100
SHOWN = 10  # samplers
NAME = 30  # characters of a sampler's name
FEW = 5  # targets that a sentence names one by one


class Standing(NamedTuple):
    """One sampler over all boards (a target at a budget)."""

    sampler: str
    rank: float  # mean; NaN where no board ranks it
    boards: int  # that the mean is over
    off: float  # doublings of its worst score, the median over boards; NaN where there is none
    floor: int  # boards on which every score is at the floor
    law: int  # boards on which the scores of its draws' law are
    behind: int  # boards on which it is not better than the untrained base
    finished: int
    runs: int  # of those that apply
    calls: float  # in training, median over boards; NaN where no run finished
    flops: float = math.nan  # likewise


def standings(boards: Sequence[Board]) -> list[Standing]:
    """Best first.  Where a sampler has runs but no rank (they failed) it counts as the last of its
    board; where its method does not apply, not at all."""
    names = dict.fromkeys(row.sampler for board in boards for row in board.rows)
    unsorted = [_standing(name, boards) for name in names]
    return sorted(unsorted, key=lambda s: (math.isnan(s.rank), s.rank, -s.floor, s.sampler))


def _standing(name: str, boards: Sequence[Board]) -> Standing:
    here = [(board, row) for board in boards for row in board.rows if row.sampler == name]
    ranks = []
    for board, row in here:
        applies = set(row.ends) != {"unsupported"} or row.finished
        if applies and _ranks(board):
            rank = row.ranks.rank if row.ranks else None
            ranks.append(len(board.rows) if rank is None else rank)
    judged = [row.judged for board, row in here if row.judged]
    laws = [law for mine in judged if (law := mine.of(DISTANCE))]
    return Standing(
        name,
        mean(ranks) if ranks else math.nan,
        len(ranks),
        _median(mine.doublings for mine in judged),
        sum(mine.level for mine in judged),
        sum(law.doublings == 0 for law in laws),
        sum(bool(row.behind) for _, row in here),
        sum(row.finished for _, row in here),
        sum(row.runs - row.ends.get("unsupported", 0) for _, row in here),
        _median(row.spent.calls for _, row in here if row.finished),
        _median(row.spent.flops for _, row in here if row.finished),
    )


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return median(known) if known else math.nan


def _ranks(board: Board) -> bool:
    """Whether anybody is ranked."""
    return any(row.ranks is not None and row.ranks.rank is not None for row in board.rows)


def _at(row: SamplerRow) -> bool:
    return row.judged is not None and row.judged.level


def leaderboard(boards: Sequence[Board]) -> str:
    """At most SHOWN samplers and the exact draws, 100 columns wide, with the conclusion below.

    Of each target the table of its largest budget: a rank in a table of two is no rank in
    one of ten."""
    boards, left = widest(boards)
    rows = standings(boards)
    ranked = sum(_ranks(board) for board in boards)
    columns = [column for column in COLUMNS if column.shown(rows)]
    lines = [[column.head for column in columns]]
    lines += [[column.cell(row) for column in columns] for row in _shown(rows)]
    if ranked:
        lines.append([column.exact(ranked) for column in columns])
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    table = [
        "  ".join(text.ljust(w) if k == 0 else text.rjust(w) for k, (text, w) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    if len(rows) > SHOWN:
        table.append(f"... and {len(rows) - SHOWN} more")
    marked = f"{BEHIND}: on how many targets {NOT_BETTER}."
    notes = [marked] if any(row.behind for row in rows[:SHOWN]) else []
    words = [*notes, conclusion(rows, boards, ranked), *learned(rows, boards), *left]
    return "\n".join([*table, "", *(textwrap.fill(text, WIDTH) for text in words)])


def remarks(boards: Sequence[Board]) -> list[str]:
    """What stands on top of a table: who ranks first, and how the learned methods do."""
    boards, left = widest(boards)
    rows = standings(boards)
    return [conclusion(rows, boards, sum(map(_ranks, boards))), *learned(rows, boards), *left]


def widest(boards: Sequence[Board]) -> tuple[list[Board], list[str]]:
    """Of each target the board with the most calls; and a sentence on those that are left out."""
    most: dict[str, int] = {}
    for board in boards:
        most[board.target] = max(board.budget, most.get(board.target, 0))
    kept = [board for board in boards if board.budget == most[board.target]]
    out = {row.sampler for board in boards if board not in kept for row in board.rows}
    names = sorted(out - {row.sampler for board in kept for row in board.rows})
    if not names:
        return kept, []
    return kept, [f"In tables of fewer calls, not compared here: {_listed(names)}."]


def _shown(rows: Sequence[Standing]) -> list[Standing]:
    """The first SHOWN; the untrained base instead of the last where it stands further down."""
    base = [row for row in rows[SHOWN:] if row.sampler == UNTRAINED]
    return [*rows[: SHOWN - len(base)], *base]


class ConsoleColumn(NamedTuple):
    head: str
    cell: Callable[[Standing], str]
    exact: Callable[[int], str] = lambda boards: ""  # of exact draws, on so many boards
    shown: Callable[[Sequence[Standing]], bool] = lambda rows: True


COLUMNS = (
    ConsoleColumn("sampler", lambda s: _name(s.sampler), lambda boards: "exact draws"),
    ConsoleColumn("mean rank", lambda s: "-" if math.isnan(s.rank) else f"{s.rank:.1f}"),
    ConsoleColumn(
        "worst/floor", lambda s: "-" if math.isnan(s.off) else times(s.off), lambda _: times(0.0)
    ),
    ConsoleColumn(
        "all at floor",
        lambda s: f"{s.floor} of {s.boards}" if s.boards else "-",
        lambda boards: f"{boards} of {boards}",
    ),
    ConsoleColumn("by distance", lambda s: str(s.law) if s.boards else "-", str),
    ConsoleColumn(BEHIND, lambda s: str(s.behind), shown=lambda rows: any(s.behind for s in rows)),
    ConsoleColumn("finished", lambda s: f"{s.finished} of {s.runs}"),
    ConsoleColumn("calls", lambda s: "-" if math.isnan(s.calls) else brief(s.calls)),
    ConsoleColumn(
        "flops",
        lambda s: "-" if math.isnan(s.flops) else f"{s.flops:.1g}",
        shown=lambda rows: any(not math.isnan(s.flops) for s in rows),
    ),
)


def _name(sampler: str) -> str:
    half = (NAME - 3) // 2
    return sampler if len(sampler) <= NAME else f"{sampler[:half]}...{sampler[-half:]}"


def conclusion(rows: Sequence[Standing], boards: Sequence[Board], ranked: int) -> str:
    """One sentence on who leads, and where anybody is as good as exact draws."""
    if not any(row.finished for row in rows):
        return "No run has finished, so there is nothing to compare; table.md has the reasons."
    if not ranked:
        return (
            "No ranks: no target here has a truth that the runs that finished could be "
            f"compared with.{_certify(boards)}"
        )
    at = {board.target for board in boards if any(map(_at, board.rows))}
    targets = {board.target for board in boards}
    where = (
        f"some sampler is as good as exact draws in every score on {len(at)} of "
        f"{_count(len(targets))}"
        if at
        else f"no sampler is as good as exact draws on any of {_count(len(targets))}"
    )
    if len(targets) == 1:
        where = f"{'some' if at else 'no'} sampler is as good as exact draws in every score"
    if len(rows) == 1:
        return f"{rows[0].sampler} has no sampler to be compared with; {where}."
    first = [row for row in rows if row.rank == rows[0].rank]
    verb = "ranks" if len(first) == 1 else "rank"
    lead = f"{_listed([row.sampler for row in first])} {verb} first"
    by = f" (mean rank {first[0].rank:.1f})" if ranked > 1 else ""
    seeds = max(len(c.seeds) for board in boards for row in board.rows for c in row.scores.values())
    few = (
        f" ({_count(seeds, 'seed')}; significance is tested from {SEEDS_FOR_BOLD} on)"
        if seeds < SEEDS_FOR_BOLD
        else ""
    )
    return f"{lead}{by}; {where}{few}."


def _certify(boards: Sequence[Board]) -> str:
    """How targets of unknown truth get one; nothing where there is none."""
    names = list(dict.fromkeys(board.target for board in boards if board.certifiable))
    if not names:
        return ""
    return (
        " The table has the scores that need none (log Z as estimated, R-hat, ksd, means); "
        f"`tiltbench reference {' '.join(names)}` certifies a truth, and `tiltbench score` then "
        "ranks the same runs."
    )


def learned(rows: Sequence[Standing], boards: Sequence[Board]) -> list[str]:
    """A sentence on the methods that train a network, where there are two or more: whose draws
    lie within the noise floor by distance, on which target, and which ranks first of them."""
    mine = {row.sampler for board in boards for row in board.rows if row.spent.parameters > 0}
    at = {}
    for board in boards:
        judged = [row.judged for row in board.rows if row.sampler in mine and row.judged]
        level = [law for each in judged if (law := each.of(DISTANCE)) and law.doublings == 0]
        if judged:
            at[board.target] = len(level), len(judged)
    if len(mine) < 2 or not at:
        return []
    leader = next(row.sampler for row in rows if row.sampler in mine)
    return [
        "Of the methods that train a network, the distance of the draws is within the noise floor "
        f"for {_by_target(at)}; {leader} ranks first among them."
    ]


def _by_target(at: Mapping[str, tuple[int, int]]) -> str:
    """(within the floor, in all) of every target; of more than FEW targets, where there is none."""
    if len(at) <= FEW:
        return ", ".join(f"{level} of {judged} on {name}" for name, (level, judged) in at.items())
    none = [name for name, (level, _) in at.items() if not level]
    some = f"some on {len(at) - len(none)} of {len(at)} targets"
    return f"{some}, for none on {', '.join(none)}" if none else some


def _count(n: int, what: str = "target") -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`, or with more than three how many others there are."""
    if len(names) > 3:
        return f"{', '.join(names[:2])} and {len(names) - 2} others"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
