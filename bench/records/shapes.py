"""What a record and a file of scores must hold to be read: types and bounds, checked by msgspec.

Keys that are not named here are let through: a later version may write more.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0)]
Limit = Annotated[float, Meta(gt=0)]
Number = float | None


class Named(Struct):
    name: str
    params: dict[str, Any]


class Allowance(Struct):
    train: tuple[Count, Count]
    flops: Limit | None = None
    seconds: Limit | None = None


class Spec(Struct):
    target: Named
    sampler: Named
    target_version: Count
    seed: Count
    draws: Count
    budget: Allowance


class Labels(Struct):
    target: str
    sampler: str


class RecordShape(Struct):
    schema: int
    spec: Spec
    labels: Labels
    status: str
    reason: str = ""
    traceback: str = ""
    cost: dict[str, Any] = {}
    env: dict[str, Any] = {}
    code: dict[str, Any] = {}


class FloorShape(Struct):
    mean: Number
    sd: Number
    n: int


class ScoreShape(Struct):
    value: Number
    se: Number = None
    n: Number = None
    floor: FloorShape | None = None
    reason: str = ""
    no_floor: str = ""
    no_error: str = ""


class ScoresShape(Struct):
    scores: dict[str, ScoreShape]
    curve: dict[str, Any] | None = None


def check(data: Any, shape: type[Struct]) -> None:
    """Raises ValueError that says what is not as `shape` has it, and where."""
    try:
        msgspec.convert(data, shape)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        raise ValueError(
            f"{place.rstrip('`') or 'the whole'}: {message.replace('`', '')}"
        ) from error
