"""A study: one question, one file in bench/studies, answered by a table and pictures.

`tiltbench study NAME` runs it from the code at hand and writes table.csv, table.md and figures into
results/studies/NAME, with the command, the machine and the commit named below the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.provenance import code_identity, environment
from tiltbench.record import write_bytes

if TYPE_CHECKING:
    from pandas import DataFrame


class Study(NamedTuple):
    """A file in bench/studies offers `name = Study("name", title, run)`.

    run(folder, device) draws its figures into the folder and returns the table with a few sentences
    in Markdown that say what it shows, every number in them computed."""

    name: str
    title: str
    run: Callable[[Path, str], Answer]


class Answer(NamedTuple):
    table: DataFrame
    words: str


def conduct(study: Study, folder: Path, device: str) -> Path:
    """Runs the study and writes its files; returns the path of table.md."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    answer = study.run(folder, device)
    seconds = time.monotonic() - begun
    table = folder / "table.md"
    write_bytes(table, _page(study, answer, seconds, device).encode())
    write_bytes(folder / "table.csv", answer.table.to_csv(index=False).encode())
    return table


def _page(study: Study, answer: Answer, seconds: float, device: str) -> str:
    made, code = environment(device), code_identity()
    where = ", ".join(f"{key} {value}" for key, value in made.items())
    commit = f"commit {code['commit']}" + (" with changes" if code["dirty"] else "")
    return "\n\n".join(
        [
            f"# {study.title}",
            answer.words,
            _markdown(answer.table),
            f"`tiltbench study {study.name}`, {seconds:.0f} s; {commit}; {where}.\n",
        ]
    )


def _markdown(table: DataFrame) -> str:
    heads = list(table.columns)
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4g}"
    return str(value)
