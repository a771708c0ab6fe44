"""A study: one question, one file in bench/studies, answered by a table and pictures.

`tiltbench study NAME` runs it from the code at hand and writes table.csv, claims.csv, table.md and
figures into results/studies/NAME, with the command, the machine and the commit named below the
table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.plan.spec import STUDIES
from tiltbench.processes import pool
from tiltbench.records.files import write_bytes
from tiltbench.records.provenance import code_identity, environment
from tiltbench.report.tables.grid import frame_grid
from tiltbench.targets import precision
from tiltbench.targets.settings import standard

if TYPE_CHECKING:
    from pandas import DataFrame


class Study(NamedTuple):
    """A file in bench/studies offers `name = Study("name", title, run)`.

    run(folder, device) draws its figures into the folder and returns the table with a few sentences
    in Markdown that say what it shows, every number in them computed."""

    name: str
    title: str
    run: Callable[[Path, str], Answer]


class Verdict(StrEnum):
    SUPPORTED = "supported"
    REFUTED = "refuted"
    OPEN = "open"  # the measurement does not decide


class Claim(NamedTuple):
    """Something the literature or math.md says, and what was found; both sides in Markdown."""

    text: str
    verdict: Verdict
    measured: str  # the figures that the verdict rests on, computed


class Answer(NamedTuple):
    table: DataFrame
    words: str
    claims: tuple[Claim, ...] = ()


def verdict(holds: bool, fails: bool) -> Verdict:
    """Supported, refuted, or neither: the two conditions are to leave room for the error bars."""
    if holds == fails:
        return Verdict.OPEN
    return Verdict.SUPPORTED if holds else Verdict.REFUTED


def conduct_all(
    names: Sequence[str], out: Path, device: str, jobs: int, tf32: bool = False
) -> Iterator[Path]:
    """Conducts the studies into out/NAME, `jobs` at a time in processes of one thread each, and
    yields their pages as they end; what one raises is raised when the others have ended."""
    with pool(min(jobs, len(names))) as workers:
        given = [workers.submit(_conduct, name, out, device, tf32) for name in names]
        for future in as_completed(given):
            yield future.result()


def _conduct(name: str, out: Path, device: str, tf32: bool) -> Path:
    study = STUDIES.load(name)
    return conduct(study, out / study.name, device, tf32)


@standard()
def conduct(study: Study, folder: Path, device: str, tf32: bool = False) -> Path:
    """Runs the study and writes its files; returns the path of table.md.  Where TF32 is allowed
    the page says so, beside the machine and the code."""
    if tf32:
        precision.write(precision.TF32)
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    answer = study.run(folder, device)
    seconds = time.monotonic() - begun
    table = folder / "table.md"
    words = f"tiltbench study {study.name}" + (" --tf32" if tf32 else "")
    write_bytes(table, _page(study, answer, words, seconds, device).encode())
    write_bytes(folder / "table.csv", answer.table.to_csv(index=False).encode())
    write_bytes(folder / "claims.csv", _claims(answer).to_csv(index=False).encode())
    return table


def _claims(answer: Answer) -> DataFrame:
    from pandas import DataFrame

    rows = [(claim.text, str(claim.verdict), claim.measured) for claim in answer.claims]
    return DataFrame(rows, columns=["claim", "verdict", "measured"])


def _page(study: Study, answer: Answer, words: str, seconds: float, device: str) -> str:
    machine, code = environment(device), code_identity()
    where = ", ".join(f"{key} {value}" for key, value in machine.items())
    commit = f"commit {code['commit']}" + (" with changes" if code["dirty"] else "")
    claims = [frame_grid(_claims(answer))] if answer.claims else []
    return "\n\n".join(
        [
            f"# {study.title}",
            answer.words,
            *claims,
            frame_grid(answer.table),
            f"`{words}`, {seconds:.0f} s; {commit}; {where}.\n",
        ]
    )
