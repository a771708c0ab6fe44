"""The laws from which a random search draws a parameter (`Sampler.search`, `[[search]]`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Law(ABC):
    @abstractmethod
    def at(self, u: float) -> Any:
        """The quantile of u in [0, 1): a float of 3 digits, a whole number where both ends are."""


@dataclass(frozen=True)
class Uniform(Law):
    """Uniform on [low, high].  Raises ValueError unless low < high, both finite."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -float("inf") < self.low < self.high < float("inf"):
            raise ValueError(f"[{self.low}, {self.high}] is no range: write the smaller end first")

    def at(self, u: float) -> float:
        return _between(self.low + u * (self.high - self.low), self.low, self.high)


@dataclass(frozen=True)
class LogUniform(Law):
    """log of it uniform on [log low, log high].  Raises ValueError unless 0 < low < high < inf."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < float("inf"):
            raise ValueError(f"[{self.low}, {self.high}] has no logarithm: write 0 < low < high")

    def at(self, u: float) -> float:
        return _between(self.low * (self.high / self.low) ** u, self.low, self.high)


@dataclass(frozen=True)
class Among(Law):
    """Each value as likely as any other."""

    values: tuple[Any, ...]

    def at(self, u: float) -> Any:
        return self.values[int(u * len(self.values))]


Search = Mapping[str, Law]  # parameter, parts by a dot ("reference.steps") -> its law


def _between(value: float, low: float, high: float) -> float:
    if isinstance(low, int) and isinstance(high, int):
        return round(value)
    return min(max(float(f"{value:.3g}"), low), high)
