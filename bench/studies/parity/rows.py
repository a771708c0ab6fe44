"""Published rows as published.toml states them, our figures beside them, and the verdict."""

from __future__ import annotations

import math
import statistics
import tomllib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

PUBLISHED = Path(__file__).parent / "published.toml"
JOINT = 2.0  # joint standard deviations within which a figure is met


class Figure(Struct, frozen=True, forbid_unknown_fields=True):
    """A published mean with its standard deviation over runs, NaN where none is printed; the
    smaller the better."""

    name: str
    metric: str
    mean: float
    sd: float = math.nan


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    protocol: str
    differences: str


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """`number` is that of the design, 0 for a row beside it.  Stored runs are those of `suite` with
    the labels `target` and `sampler`; no suite: nothing is stored."""

    source: str
    name: str
    number: int = 0
    suite: str = ""
    target: str = ""
    sampler: str = ""
    runs: int = 5
    figures: tuple[Figure, ...] = ()


class File(Struct, frozen=True, forbid_unknown_fields=True):
    source: dict[str, Source]
    row: tuple[Row, ...]


def published() -> File:
    """Raises msgspec.ValidationError for a key that is not there."""
    return msgspec.convert(tomllib.loads(PUBLISHED.read_text(encoding="utf-8")), File)


class Ours(NamedTuple):
    """A figure over our seeds; sd is NaN for a single one."""

    mean: float
    sd: float
    seeds: int

    def __str__(self) -> str:
        spread = "" if math.isnan(self.sd) else f" ± {self.sd:.3g}"
        return f"{self.mean:.4g}{spread}"


def ours(values: Sequence[float]) -> Ours | None:
    """Mean and standard deviation; None where there is nothing, or a value that is not known."""
    if not values or any(math.isnan(value) for value in values):
        return None
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return Ours(statistics.fmean(values), sd, len(values))


class Verdict(StrEnum):
    MET = "met"
    BETTER = "better"
    WORSE = "worse"
    NOT_RUN = "not run"
    UNCLEAR = "not judged"  # of runs that are not of one setting


def judged(figure: Figure, found: Ours | None) -> Verdict:
    """Met within two joint standard deviations, sqrt(theirs^2 + ours^2); better or worse beyond.
    A standard deviation that is not known counts as 0."""
    if found is None:
        return Verdict.NOT_RUN
    known = [0.0 if math.isnan(sd) else sd for sd in (figure.sd, found.sd)]
    off = found.mean - figure.mean
    if abs(off) <= JOINT * math.hypot(*known):
        return Verdict.MET
    return Verdict.BETTER if off < 0 else Verdict.WORSE


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Of a whole row: worse where any figure is, better where one is and none is worse."""
    for verdict in (Verdict.UNCLEAR, Verdict.NOT_RUN, Verdict.WORSE, Verdict.BETTER):
        if verdict in verdicts:
            return verdict
    return Verdict.MET if verdicts else Verdict.NOT_RUN
