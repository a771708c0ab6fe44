"""Where a method that trains a network is worth its calls, beside those that train none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tiltbench.report.board import Board, SamplerRow
from tiltbench.report.ranks import times
from tiltbench.report.tables.grid import code, grid, text
from tiltbench.report.tables.legend import brief

TITLE = "## Where a learned sampler is worth its calls"
RULE = (
    "The worst score over the edge of the noise floor, at equal calls: the least of the methods "
    "that train a network, and the least of those that train none, the untrained base among them. "
    "Equal calls are the fewest that a method with a network has spent in training."
)
NEARER, AS_NEAR, FARTHER = "nearer", "as near", "farther"


class Nearest(NamedTuple):
    """The nearest of one kind: doublings at equal calls, and who is that far off."""

    off: float
    samplers: tuple[str, ...]


class Worth(NamedTuple):
    """One leaderboard with methods of both kinds."""

    board: Board
    learned: Nearest
    others: Nearest

    @property
    def relation(self) -> str:
        if self.learned.off == self.others.off:
            return AS_NEAR
        return NEARER if self.learned.off < self.others.off else FARTHER


def worth(boards: Sequence[Board]) -> list[Worth]:
    """Of every leaderboard where the scores at equal calls of methods of both kinds are known."""
    comparisons = []
    for board in boards:
        mine = [row for row in board.rows if row.spent.parameters > 0]
        learned, others = _best(mine), _best([row for row in board.rows if row not in mine])
        if learned and others:
            comparisons.append(Worth(board, learned, others))
    return comparisons


def _best(rows: Sequence[SamplerRow]) -> Nearest | None:
    known = {row.sampler: row.ranks.calls_off for row in rows if row.ranks}
    least = min((off for off in known.values() if not math.isnan(off)), default=math.nan)
    if math.isnan(least):
        return None
    return Nearest(least, tuple(sorted(name for name, off in known.items() if off == least)))


def section(comparisons: Sequence[Worth]) -> str:
    """A sentence and a table; empty where no leaderboard has methods of both kinds."""
    if not comparisons:
        return ""
    many = len({one.board.allowed for one in comparisons}) > 1
    rows = [
        [
            text(one.board.target) + (f" ({text(one.board.allowed)})" if many else ""),
            brief(one.board.equal_calls),
            _cell(one.learned),
            _cell(one.others),
            one.relation,
        ]
        for one in comparisons
    ]
    relations = [one.relation for one in comparisons]
    counts = ", ".join(f"{relations.count(v)} {v}" for v in (NEARER, AS_NEAR, FARTHER))
    table = grid(["target", "calls", "trains a network", "trains none", "the learned one is"], rows)
    tables = "table" if len(comparisons) == 1 else "tables"
    return f"{TITLE}\n\n{RULE}\n\n{table}\n\nOf {len(comparisons)} {tables}: {counts}."


def _cell(best: Nearest) -> str:
    named = ", ".join(code(name) for name in best.samplers[:2])
    more = f" and {len(best.samplers) - 2} more" if len(best.samplers) > 2 else ""
    return f"{times(best.off)} {named}{more}"
