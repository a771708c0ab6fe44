"""Verdict rules that studies share: thresholds in standard errors, with room between them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from tiltbench.study import Verdict, verdict


class Same(NamedTuple):
    """Two numbers are the same below `agrees` standard errors, and differ beyond `apart`."""

    agrees: float
    apart: float

    def judge(self, z: float) -> Verdict:
        """Open in between, and where z is nan."""
        return verdict(abs(z) < self.agrees, abs(z) > self.apart)


@dataclass(frozen=True)
class Scores:
    """Differences in standard errors."""

    z: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.z)

    @property
    def worst(self) -> float:
        """The one farthest from 0, with its sign; nan of none."""
        return max(self.z, key=abs, default=math.nan)

    @property
    def rms(self) -> float:
        return math.sqrt(sum(z * z for z in self.z) / len(self.z)) if self.z else math.nan


def scores(z: Iterable[float]) -> Scores:
    return Scores(tuple(z))
