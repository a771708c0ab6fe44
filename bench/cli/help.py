"""What `--help` prints: two columns, wrapped to the width of the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

WIDEST = 100
COLUMN = 26  # of names; a longer one has a line of its own


class Columns:
    """Implements cyclopts' HelpFormatter."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        rows = [(_names(entry), _text(entry)) for entry in panel.entries]
        if rows:
            _say(console, f"{panel.title}:\n{columns(rows, console.width)}\n")

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        text = str(usage).removeprefix("Usage:").strip()
        _say(console, f"Usage: {text}\n")

    def render_description(self, console: Console, options: ConsoleOptions, text: Any) -> None:
        paragraphs = _plain(text).strip().split("\n\n")
        width = min(console.width, WIDEST)
        _say(console, "\n\n".join(textwrap.fill(" ".join(p.split()), width) for p in paragraphs))
        _say(console, "")


def columns(rows: Iterable[tuple[str, str]], width: int, indent: int = 2, hang: int = 0) -> str:
    """Names on the left, texts wrapped on the right, `hang` further from the second line on;
    nothing is cut."""
    rows = list(rows)
    left = min(max((len(name) for name, _ in rows), default=0), COLUMN) + indent
    hanging = " " * (left + 2)
    room = max(min(width, WIDEST) - len(hanging), 20)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(
            text,
            room,
            subsequent_indent=" " * hang,
            drop_whitespace=True,
            break_long_words=False,
            break_on_hyphens=False,
        )
        head = " " * indent + name
        if len(head) > left or not wrapped:
            lines.append(head)
        else:
            lines.append(f"{head:{left}}  {wrapped.pop(0)}")
        lines += [hanging + line for line in wrapped]
    return "\n".join(lines)


def _names(entry: HelpEntry) -> str:
    if entry.choices:
        shown = "{" + ",".join(entry.choices) + "}"
        return " ".join([*(n for n in entry.all_options if n.startswith("-")), shown])
    return ", ".join(entry.display_labels_with_metavar)


def _text(entry: HelpEntry) -> str:
    text = _plain(entry.description)
    return f"{text} (required)" if entry.required and entry.names else text


def _plain(text: Any) -> str:
    return str(getattr(text, "primary_renderable", text) or "")  # of cyclopts' InlineText


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
