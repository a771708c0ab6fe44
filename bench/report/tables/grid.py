"""A table in Markdown: of texts, or of a data frame."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


def grid(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def frame_grid(table: DataFrame) -> str:
    rows = ([_cell(value) for value in row] for row in table.itertuples(index=False))
    return grid([_cell(head) for head in table.columns], rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4g}"
    return str(value).replace("|", "\\|")  # a bar would end the cell
