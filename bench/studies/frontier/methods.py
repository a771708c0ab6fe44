"""One method at one strength of the digit tilts, over its seeds; and the exact tilt beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from jaxtyping import Float
from torch import Tensor

from tiltbench.plan.spec import Spec, build_target
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.frontier.exact import Exact, Least, ladder, least_kl
from tiltbench.targets.tilts.digits_class import DigitsClass

if TYPE_CHECKING:
    from pandas import DataFrame

    from tiltbench.report.frame import Frames

# By forward weights, exact for a network's chain: reverse ones trust its denoiser (digits_log_Z).
LOG_Z = ("log_Z_err", "log_Z_own_err")


class Truth(NamedTuple):
    strength: float
    exact: Exact  # of f = log P(digit | x)
    diversity: Estimate  # of exact draws


class MethodAtStrength(NamedTuple):
    """Means over seeds, nan where the method has no such number."""

    strength: float
    method: str
    log_p: Estimate  # E log P(digit | x)
    path_kl: Estimate
    gap: Estimate  # KL of the paths to the optimum's, nats
    tilt_kl: Estimate  # KL(p* | p_base) by the path weights
    diversity: Estimate
    distance: Estimate  # energy distance to the tilt: the median over seeds, as in the tables
    floor: tuple[float, float]  # mean and sd of that of exact draws
    log_Z_err: Estimate
    ess: float
    least: Least  # of any law with this log_p
    calls: tuple[int, int]  # the larger of values and gradients, in training and in drawing
    sampler: str  # its name without settings
    kl: float | None  # the weight of its KL, where it has one

    @property
    def off(self) -> float:
        """Standard deviations of the floor above its mean."""
        mean, sd = self.floor
        return (self.distance.value - mean) / sd if sd > 0 else math.nan

    @property
    def wasted(self) -> Estimate:
        """path_kl above the least KL, whose slope in log_p is a strength."""
        se = math.hypot(self.path_kl.se, self.least.strength * self.log_p.se)
        return Estimate(self.path_kl.value - self.least.kl, se, self.path_kl.n)


def tilts(frames: Frames, digit: int) -> dict[str, DigitsClass]:
    """The tilts towards the digit, by label, from the weakest to the strongest."""
    built = {r.labels["target"]: build_target(r.spec["target"]) for r in frames.records}
    towards_digit = {
        label: target
        for label, target in built.items()
        if isinstance(target, DigitsClass) and target.digit == digit
    }
    return dict(sorted(towards_digit.items(), key=lambda pair: pair[1].strength))


def methods_of(
    frames: Frames, targets: Mapping[str, DigitsClass], f: Float[Tensor, " n"]
) -> Iterator[MethodAtStrength]:
    """f = log P(digit | x) at draws of the base."""
    log_Z = ladder(f)
    stated = {record.labels["sampler"]: record.spec["sampler"] for record in frames.records}
    for label, target in targets.items():
        here = frames.scores[frames.scores["target"] == label]
        for method, scores in here.groupby("sampler", sort=False):
            yield method_at(target.strength, str(method), stated[method], scores, log_Z)


def method_at(
    strength: float, method: str, stated: Spec, scores: DataFrame, log_Z: Tensor
) -> MethodAtStrength:
    """`stated` is the sampler; `scores` has a row a seed and metric; log_Z is the `ladder` of
    log P."""

    def of(metric: str) -> Estimate:
        rows = scores[(scores["metric"] == metric) & scores["value"].notna()]
        return over_seeds(rows["value"].tolist(), rows["se"].tolist())

    def paid(phase: str) -> int:
        return int(scores[[f"{phase}_values", f"{phase}_grads"]].max().max())

    reward, distances = of("expected_reward"), scores[scores["metric"] == "energy_distance"]
    log_p = Estimate(reward.value / strength, reward.se / strength, reward.n)
    errors = [error for name in LOG_Z if (error := of(name)).n]
    return MethodAtStrength(
        strength,
        method,
        log_p,
        of("path_kl"),
        of("elbo_gap"),
        of("tilt_kl"),
        of("diversity"),
        of("energy_distance")._replace(value=float(distances["value"].median())),
        (float(distances["floor_mean"].mean()), float(distances["floor_sd"].mean())),
        errors[0] if errors else NONE,
        of("ess_model").value,
        least_kl(log_Z, log_p.value),
        (paid("train"), paid("draw")),
        stated["name"],
        stated["params"].get("kl"),
    )


NONE = Estimate(math.nan, math.nan, 0)


def over_seeds(values: list[float], errors: list[float]) -> Estimate:
    """The mean; its error is that over seeds or that of the single runs, whichever is larger, for
    the spread of a few seeds may be small by chance."""
    n = len(values)
    if n == 0:
        return NONE
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n * max(n - 1, 1)))
    within = math.sqrt(sum(se**2 for se in errors if math.isfinite(se))) / n
    return Estimate(mean, max(spread, within), n)
