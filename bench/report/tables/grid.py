"""A table in Markdown, of texts or of a data frame, and words of others inside Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame

MARKUP = re.compile(  # signs that Markdown would read, where they stand so that it would
    r"[\\`*|$]|~(?=~)|<(?=[A-Za-z/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|\](?=[(\[])"
)
ALL = re.compile(r"[^\w .,:;=+()/%-]")


def grid(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Cells are Markdown.  A bar or a new line in one, which would end it, is made harmless."""
    heads = [_cell(head) for head in heads]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)])


def frame_grid(table: DataFrame) -> str:
    """Columns that hold labels of others should hold them as `code`."""
    rows = ([_shown(value) for value in row] for row in table.itertuples(index=False))
    return grid([_shown(head) for head in table.columns], rows)


def code(label: str) -> str:
    """A label as code, whatever it holds: a code span or, where a sign of it would end the span or
    the cell around it, the same in HTML."""
    whole = label and label.isprintable() and " ".join(label.split()) == label
    if whole and not re.search(r"[`|\\]", label):
        return f"`{label}`"
    return f"<code>{_entities(label, ALL)}</code>"


def text(label: str) -> str:
    """A label as it stands, on one line, whatever it holds: no emphasis, link, HTML or formula."""
    return _entities(label, MARKUP)


def sentence(words: str) -> str:
    """A sentence of a run or a metric: its code spans are kept, everything else is `text`."""
    parts = re.split(r"(`[^`|\\\n]+`)", words)
    return "".join(part if i % 2 else text(part) for i, part in enumerate(parts))


def _entities(words: str, signs: re.Pattern[str]) -> str:
    line = re.sub(r"\s+", " ", words)
    return signs.sub(lambda match: f"&#{ord(match[0])};", line)


def _cell(markdown: str) -> str:
    line = re.sub(r"\s*[\r\n\v\f\x85\u2028\u2029]\s*", " ", markdown)
    return re.sub(r"\\*\|", lambda bar: "&#92;" * ((len(bar[0]) - 1) // 2) + "\\|", line)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4g}"
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", str(value))  # a tag of somebody's
