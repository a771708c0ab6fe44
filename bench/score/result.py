"""What the scoring of a run comes to, and how it is written into `<id>.scores.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tiltbench.metric import Metric
from tiltbench.score.floor import Floor


@dataclass(frozen=True)
class Score:
    """A metric of one run: its value with standard error and number of independent draws, beside
    its floor; or why there is none, never 0."""

    value: float | None
    se: float | None = None
    n: int | None = None
    floor: Floor | None = None
    unfit: bool = False  # the floor is too noisy to rank by
    reason: str = ""  # where there is no value
    no_floor: str = ""  # where there might be a floor and is none
    no_error: str = ""  # why a value that has a standard error elsewhere has none here
    ess: float | None = None  # of the weights that the draws were resampled by
    raised: bool = False  # no value, because something failed: a later try may succeed

    @staticmethod
    def unknown(reason: str) -> Score:
        return Score(None, reason=reason)

    def beside(self, floor: Floor | None, metric: Metric) -> Score:
        if floor is None or self.value is None:
            return self
        return replace(self, floor=floor, unfit=floor.unfit(metric))

    def without_floor(self, reason: str) -> Score:
        return self if self.value is None else replace(self, no_floor=reason)

    def json(self) -> dict[str, Any]:
        if self.value is None:
            data: dict[str, Any] = {"value": None, "reason": self.reason}
        else:
            data = {"value": self.value, "se": self.se, "n": self.n}
        if self.floor is not None:
            data["floor"] = {**_shown(self.floor), "unfit": self.unfit}
        if self.no_floor:
            data["no_floor"] = self.no_floor
        if self.no_error:
            data["no_error"] = self.no_error
        if self.ess is not None:
            data["ess"] = self.ess
        return data


@dataclass(frozen=True)
class CurvePoint:
    """One spend of a learning curve; None where there is no number."""

    spend: float  # calls
    log_Z_err: float | None = None  # nats
    log_Z_se: float | None = None
    distance: float | None = None
    energy: float | None = None  # energy_w2, of particles
    estimates: Mapping[str, float | None] = field(default_factory=dict)  # without a truth


@dataclass(frozen=True)
class CurveScore:
    """The learning curve of one run: at each spend the error of log Z and a distance to n exact
    draws."""

    points: tuple[CurvePoint, ...]
    flops: tuple[float, ...]  # of training at each spend; () where they were not kept
    seconds: tuple[float, ...]  # the same
    n: int
    metric: str  # what `distance` is
    floor: Floor | None
    second: str = ""  # what `energy` is; "" of a target without particles
    second_floor: Floor | None = None
    unjudged: tuple[str, ...] = ()  # metrics of `estimates`: what can be had without a truth

    def json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"spend": [point.spend for point in self.points]}
        for key in ("flops", "seconds"):
            if each := getattr(self, key):
                data[key] = list(each)
        data |= {"n": self.n, "metric": self.metric}
        for key in ("log_Z_err", "log_Z_se", "distance"):
            data[key] = [getattr(point, key) for point in self.points]
        data["floor"] = _shown(self.floor, self.n) if self.floor else None
        if self.second:
            data[self.second] = [point.energy for point in self.points]
            if self.second_floor:
                data["floor_" + self.second] = _shown(self.second_floor, self.n)
        for name in self.unjudged:
            data[name] = [point.estimates.get(name) for point in self.points]
        return data


@dataclass(frozen=True)
class Evaluation:
    """All scores of a run, by metric, with its learning curve; or what went wrong."""

    run: str
    scores: Mapping[str, Score]
    seconds: float
    draws: int | None = None
    curve: CurveScore | None = None
    zero_weights: float | None = None  # share of weights that are 0; None where there are none
    error: str = ""  # of the scores as a whole: each of them is unknown
    unbuilt: str = ""  # why the target cannot be built here
    curve_error: str = ""

    def json(self) -> dict[str, Any]:
        data: dict[str, Any] = {
            "run": self.run,
            "draws": self.draws,
            "curve": self.curve.json() if self.curve else None,
        }
        if self.zero_weights is not None:
            data["zero_weights"] = self.zero_weights
        for key in ("error", "unbuilt", "curve_error"):
            if message := getattr(self, key):
                data[key] = message
        data["scores"] = {name: score.json() for name, score in self.scores.items()}
        data["seconds"] = self.seconds
        return data


def _shown(floor: Floor, n: int | None = None) -> dict[str, Any]:
    return {"mean": floor.mean, "sd": floor.sd, "n": floor.n if n is None else n}
