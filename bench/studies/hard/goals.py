"""What is asked for, as goals.toml states it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
from msgspec import Struct

GOALS = Path(__file__).parent / "goals.toml"


class Goal(Struct, frozen=True, forbid_unknown_fields=True):
    """`methods` methods are to meet every condition on `target` within `minutes` of training."""

    target: str
    minutes: float
    methods: int = 1
    below: dict[str, float] = {}
    above: dict[str, float] = {}
    floor: tuple[str, ...] = ()
    times: dict[str, float] = {}


class File(Struct, frozen=True, forbid_unknown_fields=True):
    goal: tuple[Goal, ...]


def goals() -> tuple[Goal, ...]:
    return msgspec.convert(tomllib.loads(GOALS.read_text(encoding="utf-8")), File).goal
