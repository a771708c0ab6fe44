"""What a metric's `needs` have made sure of."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def given(x: T | None) -> T:
    """x, which is there because the metric needs it."""
    assert x is not None
    return x
