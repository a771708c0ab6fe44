"""Rows of published leaderboards, by method and by target."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import NamedTuple

from tiltbench.records.names import file_name
from tiltbench.report.board import Board, SamplerRow
from tiltbench.report.ranks import times
from tiltbench.report.site.markup import number
from tiltbench.report.standings import Standing

HEADS = ["rank", "worst score / floor", "by", "finished", "calls"]


class Set(NamedTuple):
    name: str
    boards: list[Board]
    standings: list[Standing]

    @property
    def link(self) -> str:
        return f"suites/{file_name(self.name)}.html"


class Result(NamedTuple):
    """A row of a leaderboard."""

    suite: Set
    board: Board
    row: SamplerRow

    @property
    def rank(self) -> int | None:
        return self.row.ranks.rank if self.row.ranks else None

    @property
    def cells(self) -> list[str]:
        """In HTML, below HEADS."""
        row = self.row
        worst = row.judged.worst if row.judged else None
        return [
            f"{self.rank} of {len(self.board.rows)}" if self.rank is not None else "–",
            times(worst.doublings) if worst else "–",
            html.escape(worst.metric) if worst and worst.doublings else "",
            f"{row.finished} of {row.runs}",
            number(row.spent.calls),
        ]


def grouped(pairs: Iterable[tuple[str, Result]]) -> dict[str, list[Result]]:
    """By name, in its order."""
    groups: dict[str, list[Result]] = {}
    for name, result in sorted(pairs, key=lambda pair: pair[0]):
        groups.setdefault(name, []).append(result)
    return groups
