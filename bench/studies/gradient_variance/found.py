"""What the gradient study measured, to be looked up, and its fits in log-log."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tiltbench.studies.gradient_variance.gradients import (
    Interval,
    Split,
    relative,
    spread_of_log,
    spread_of_log_ratio,
)

RANDOM, HALFWAY, FINISHED = "random", "mid", "trained"


class Cell(NamedTuple):
    target: str
    dim: int
    stage: str
    calls: int
    loss: str
    family: str
    paths: int
    paid: float  # calls a batch, metered
    split: Split


class Fit(NamedTuple):
    """The exponent of a power law; nan where fewer than three points are resolved."""

    slope: float
    se: float


class Found(NamedTuple):
    cells: list[Cell]

    def get(self, target: str, loss: str, dim: int, stage: str, calls: int) -> Cell | None:
        wanted = (target, dim, stage, calls, loss)
        return next((cell for cell in self.cells if cell[:5] == wanted), None)

    def at(self, target: str, loss: str, dim: int, stage: str, calls: int) -> Cell:
        cell = self.get(target, loss, dim, stage, calls)
        assert cell is not None, f"{loss} was not measured on {target} at D = {dim}, {stage}"
        return cell

    def has(self, target: str, loss: str) -> bool:
        return any(cell.target == target and cell.loss == loss for cell in self.cells)

    def losses(self, target: str) -> dict[str, str]:
        """Loss -> family, in the order measured."""
        return {cell.loss: cell.family for cell in self.cells if cell.target == target}

    @property
    def calls(self) -> int:
        """Those of the main comparison."""
        return self.cells[0].calls

    def over_dims(
        self, target: str, loss: str, dims: tuple[int, ...], stage: str, calls: int
    ) -> list[Cell]:
        cells = (self.get(target, loss, dim, stage, calls) for dim in dims)
        return [cell for cell in cells if cell is not None]

    def over_calls(self, target: str, loss: str, stage: str) -> list[Cell]:
        """At the lowest D, by the size of the batch."""
        some = [c for c in self.cells if (c.target, c.loss, c.stage) == (target, loss, stage)]
        lowest = min(cell.dim for cell in some)
        return sorted((c for c in some if c.dim == lowest), key=lambda cell: cell.paths)


def growth(cells: list[Cell]) -> Fit:
    """log(tr Cov / |E g|^2) against log D."""
    sound = [c for c in cells if relative(c.split).resolved]
    return _line(
        [c.dim for c in sound],
        [relative(c.split).value for c in sound],
        [spread_of_log_ratio(c.split) for c in sound],
    )


def fitted(cells: list[Cell]) -> Fit:
    """log tr Cov against log paths."""
    return _line(
        [c.paths for c in cells],
        [c.split.noise for c in cells],
        [spread_of_log(c.split) for c in cells],
    )


def _line(x: list[int], y: list[float], se: list[float]) -> Fit:
    """The slope in logarithms; its error is widened where the points do not lie on a line."""
    known = [row for row in zip(x, y, se, strict=True) if row[2] < math.inf]
    if len(known) < 3:
        return Fit(math.nan, math.nan)
    at, value, error = np.array(known).T
    a, b = np.log(at), np.log(value)
    (slope, cut), covariance = np.polyfit(a, b, 1, w=1 / error, cov="unscaled")
    misfit = float((((b - slope * a - cut) / error) ** 2).sum()) / (len(b) - 2)
    return Fit(float(slope), math.sqrt(float(covariance[0, 0]) * max(misfit, 1.0)))


def shown(interval: Interval) -> str:
    if interval.resolved:
        return f"{interval.value:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
    return f"> {interval.low:.3g}" if interval.low < math.inf else "no signal seen"
