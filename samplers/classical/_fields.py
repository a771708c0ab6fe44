"""What the numbers of a classical sampler may be, told before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A condition on one number, and the words for it."""

    holds: Callable[[float], bool]
    words: str


COUNT = Rule(lambda v: 1 <= v < math.inf, "at least 1")
RATIO = Rule(lambda v: 0.1 <= v < math.inf, "at least 0.1")
INSIDE = Rule(lambda v: 0 < v < 1, "above 0 and below 1")
SHARE = Rule(lambda v: 0 <= v < 1, "at least 0 and below 1")
FRACTION = Rule(lambda v: 0 <= v <= 1, "from 0 to 1")


def require(sampler: Any, **rules: Rule) -> None:
    """Raises ValueError for the first field that breaks its rule."""
    for name, rule in rules.items():
        value = getattr(sampler, name)
        if not rule.holds(value):
            raise ValueError(f"{name} is {value}; it must be {rule.words}")
