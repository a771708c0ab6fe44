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


class Measurement(NamedTuple):
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


class Measurements(NamedTuple):
    measurements: list[Measurement]

    def get(self, target: str, loss: str, dim: int, stage: str, calls: int) -> Measurement | None:
        wanted = (target, dim, stage, calls, loss)
        return next(
            (measurement for measurement in self.measurements if measurement[:5] == wanted), None
        )

    def at(self, target: str, loss: str, dim: int, stage: str, calls: int) -> Measurement:
        measurement = self.get(target, loss, dim, stage, calls)
        assert measurement is not None, f"{loss} was not measured on {target} at D = {dim}, {stage}"
        return measurement

    def has(self, target: str, loss: str) -> bool:
        return any(
            measurement.target == target and measurement.loss == loss
            for measurement in self.measurements
        )

    def losses(self, target: str) -> dict[str, str]:
        """Loss -> family, in the order measured."""
        return {
            measurement.loss: measurement.family
            for measurement in self.measurements
            if measurement.target == target
        }

    @property
    def calls(self) -> int:
        """Those of the main comparison."""
        return self.measurements[0].calls

    def over_dims(
        self, target: str, loss: str, dims: tuple[int, ...], stage: str, calls: int
    ) -> list[Measurement]:
        measurements = (self.get(target, loss, dim, stage, calls) for dim in dims)
        return [measurement for measurement in measurements if measurement is not None]

    def over_calls(self, target: str, loss: str, stage: str) -> list[Measurement]:
        """At the lowest D, by the size of the batch."""
        some = [
            c for c in self.measurements if (c.target, c.loss, c.stage) == (target, loss, stage)
        ]
        lowest = min(measurement.dim for measurement in some)
        return sorted(
            (c for c in some if c.dim == lowest), key=lambda measurement: measurement.paths
        )


def growth(measurements: list[Measurement]) -> Fit:
    """log(tr Cov / |E g|^2) against log D."""
    sound = [c for c in measurements if relative(c.split).resolved]
    return _power_law(
        [c.dim for c in sound],
        [relative(c.split).value for c in sound],
        [spread_of_log_ratio(c.split) for c in sound],
    )


def fitted(measurements: list[Measurement]) -> Fit:
    """log tr Cov against log paths."""
    return _power_law(
        [c.paths for c in measurements],
        [c.split.noise for c in measurements],
        [spread_of_log(c.split) for c in measurements],
    )


def _power_law(x: list[int], y: list[float], se: list[float]) -> Fit:
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
