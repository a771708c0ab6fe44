"""A suite file with what `tune` has chosen: the text as it was, comments and all, and rows more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tiltbench.records.command import command

if TYPE_CHECKING:
    from tiltbench.tune.result import SearchResult


def tuned_text(
    text: str, results: Sequence[SearchResult], trials: int, label: str, arguments: Sequence[str]
) -> str:
    """Raises nothing: a method without scores gets no row, and so stays untuned."""
    rows = [f"{text.rstrip()}\n", f"{label}{_one_line(command(arguments))}"]
    for result in results:
        if result.ranks is None:
            continue
        choice = "kept" if result.best == 0 else f"trial {result.best}"
        rows += [
            f"# {choice}; {result.calls:,} calls",
            "[[tuned]]",
            f"target = {_value(result.judged)}",
            f"sampler = {_value(result.sampler.label)}",
            f"trials = {trials}",
            f"params = {written(result.params[result.best])}",
        ]
    return "\n".join(rows) + "\n"


def written(params: Mapping[str, Any]) -> str:
    """An inline table of TOML; parts by a dot."""
    inside = ", ".join(f"{key} = {_value(value)}" for key, value in params.items())
    return f"{{ {inside} }}" if inside else "{}"


def _value(value: Any) -> str:
    """Numbers, truth values and lists are written as in JSON, and so is text: TOML's escapes are
    JSON's, but for DEL, which TOML wants escaped."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, dict):
        return _value_of_part(value)
    return json.dumps(value).replace("\x7f", "\\u007f")


def _value_of_part(part: Mapping[str, Any]) -> str:
    from tiltbench.plan.spec import shorten

    return json.dumps(shorten(dict(part), {"name": "", "params": {}}))


def _one_line(text: str) -> str:
    return " ".join(text.split())
