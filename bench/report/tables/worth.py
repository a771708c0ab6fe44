"""Where a method that trains a network is worth its calls, beside those that train none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tiltbench.report.board import Board, Row
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


class Best(NamedTuple):
    """The nearest of one kind: doublings at equal calls, and who is that far off."""

    off: float
    samplers: tuple[str, ...]


class Worth(NamedTuple):
    """One leaderboard with methods of both kinds."""

    board: Board
    learned: Best
    others: Best

    @property
    def verdict(self) -> str:
        if self.learned.off == self.others.off:
            return AS_NEAR
        return NEARER if self.learned.off < self.others.off else FARTHER


def worth(boards: Sequence[Board]) -> list[Worth]:
    """Of every leaderboard where the scores at equal calls of methods of both kinds are known."""
    found = []
    for board in boards:
        mine = [row for row in board.rows if row.spent.parameters > 0]
        learned, others = _best(mine), _best([row for row in board.rows if row not in mine])
        if learned and others:
            found.append(Worth(board, learned, others))
    return found


def _best(rows: Sequence[Row]) -> Best | None:
    known = {row.sampler: row.ranks.calls_off for row in rows if row.ranks}
    least = min((off for off in known.values() if not math.isnan(off)), default=math.nan)
    if math.isnan(least):
        return None
    return Best(least, tuple(sorted(name for name, off in known.items() if off == least)))


def told(found: Sequence[Worth]) -> str:
    """A sentence and a table; empty where no leaderboard has methods of both kinds."""
    if not found:
        return ""
    many = len({one.board.allowed for one in found}) > 1
    rows = [
        [
            text(one.board.target) + (f" ({text(one.board.allowed)})" if many else ""),
            brief(one.board.equal_calls),
            _cell(one.learned),
            _cell(one.others),
            one.verdict,
        ]
        for one in found
    ]
    verdicts = [one.verdict for one in found]
    counts = ", ".join(f"{verdicts.count(v)} {v}" for v in (NEARER, AS_NEAR, FARTHER))
    table = grid(["target", "calls", "trains a network", "trains none", "the learned one is"], rows)
    tables = "table" if len(found) == 1 else "tables"
    return f"{TITLE}\n\n{RULE}\n\n{table}\n\nOf {len(found)} {tables}: {counts}."


def _cell(best: Best) -> str:
    named = ", ".join(code(name) for name in best.samplers[:2])
    more = f" and {len(best.samplers) - 2} more" if len(best.samplers) > 2 else ""
    return f"{times(best.off)} {named}{more}"
