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


class PublishedRow(Struct, frozen=True, forbid_unknown_fields=True):
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
    row: tuple[PublishedRow, ...]


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


class Agreement(StrEnum):
    MET = "met"
    BETTER = "better"
    WORSE = "worse"
    NOT_RUN = "not run"
    UNCLEAR = "not judged"  # of runs that are not of one setting


def agreement(figure: Figure, result: Ours | None) -> Agreement:
    """Met within two joint standard deviations, sqrt(theirs^2 + ours^2); better or worse beyond.
    A standard deviation that is not known counts as 0."""
    if result is None:
        return Agreement.NOT_RUN
    known = [0.0 if math.isnan(sd) else sd for sd in (figure.sd, result.sd)]
    off = result.mean - figure.mean
    if abs(off) <= JOINT * math.hypot(*known):
        return Agreement.MET
    return Agreement.BETTER if off < 0 else Agreement.WORSE


def row_agreement(agreements: Sequence[Agreement]) -> Agreement:
    """Of a whole row: worse where any figure is, better where one is and none is worse."""
    for each in (Agreement.UNCLEAR, Agreement.NOT_RUN, Agreement.WORSE, Agreement.BETTER):
        if each in agreements:
            return each
    return Agreement.MET if agreements else Agreement.NOT_RUN
