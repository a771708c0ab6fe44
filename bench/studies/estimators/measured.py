"""The numbers behind the claims on estimators, from their repeated estimates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tiltbench.samplers.weights import Estimate
from tiltbench.studies.estimators.repeated import Repeated, bias, coverage, jensen, order, rmse, sd


@dataclass(frozen=True, eq=False)
class Result:
    """One estimator in one setting, at every number of calls."""

    setting: str
    control: str
    family: str
    direction: str
    exact: bool  # E[exp A] = Z at any number of steps
    log_Z: float
    limit: Estimate  # from the whole pool: where the chain of K steps leads
    quality: float  # ess of the pool's weights on its own side; Bennett: the overlap
    paths: list[int]
    repeated: list[Repeated]

    @property
    def aim(self) -> float:
        """What honest intervals cover: log Z, or what the chain of K steps has instead."""
        return self.log_Z if self.exact else self.limit.value

    @property
    def target(self) -> str:
        return self.setting.split("[")[0]

    @property
    def name(self) -> str:
        return f"{self.family} {self.direction} ({self.target}, {self.control})"

    @property
    def where(self) -> str:
        return f"{self.family}, {self.target}, {self.control}"


def pooled(values: Iterable[Estimate]) -> Estimate:
    """The mean weighted by inverse variance."""
    values = list(values)
    weight = np.array([1 / e.se**2 for e in values])
    mean = float((weight * [e.value for e in values]).sum() / weight.sum())
    return Estimate(mean, float(weight.sum()) ** -0.5, len(values))


def score(e: Estimate, aim: float) -> float:
    """The distance from `aim` in standard errors."""
    return abs(e.value - aim) / e.se


def _ratio(a: Estimate, b: Estimate) -> Estimate:
    value = a.value / b.value
    return Estimate(value, value * math.hypot(a.se / a.value, b.se / b.value), 1)


class Beside(NamedTuple):
    """Bennett's estimate over the better one-sided one, averaged over the numbers of calls."""

    where: str
    rmse: Estimate
    sd: Estimate
    law: float  # the ratio of the sds with many paths


def bennett(results: list[Result]) -> list[Beside]:
    comparisons = []
    for both in (r for r in results if r.direction == "Bennett"):
        sides = [r for r in results if r.where == both.where and r is not both]
        rows = list(zip(*(r.repeated for r in (both, *sides)), strict=True))
        whole, part = (
            pooled(_ratio(each[0], min(each[1:], key=lambda e: e.value)) for each in every)
            for every in (
                [[rmse(f, both.log_Z) for f in row] for row in rows],
                [[sd(f) for f in row] for row in rows],
            )
        )
        quality = max(r.quality for r in sides)
        law = math.sqrt(4 * (1 / both.quality - 1) / (1 / quality - 1))
        comparisons.append(Beside(both.where, whole, part, law))
    return comparisons


class Jensen(NamedTuple):
    """The bias that the logarithm adds to one-sided estimates."""

    estimates: int
    slope: Estimate  # its order in n
    ratio: Estimate  # over the first-order value, at the most calls
    wrong: float  # the largest bias of the wrong sign, in standard errors, at the fewest calls


def jensens(results: list[Result]) -> Jensen:
    one_sided = [r for r in results if r.direction != "Bennett"]
    slopes, ratios, wrong = [], [], []
    for r in one_sided:
        sign = 1 if r.direction == "forward" else -1
        gaps = [jensen(repeated.value, sign) for repeated in r.repeated]
        slopes.append(order(np.array(r.paths), gaps))
        first = -sign * (1 / r.quality - 1) / (2 * r.paths[-1])
        ratios.append(Estimate(gaps[-1].value / first, gaps[-1].se / abs(first), 1))
        offset = bias(r.repeated[0], r.aim)
        wrong.append(sign * offset.value / offset.se)
    return Jensen(len(one_sided), pooled(slopes), pooled(ratios), max(wrong))


class Scatter(NamedTuple):
    """Orders in n of the standard deviation."""

    estimates: int
    mean: Estimate
    worst: Estimate  # the one furthest from -1/2
    name: str  # whose it is


def scattered(results: list[Result]) -> Scatter:
    slopes = {
        r: order(np.array(r.paths), [sd(repeated) for repeated in r.repeated]) for r in results
    }
    worst = max(slopes, key=lambda r: score(slopes[r], -0.5))
    return Scatter(len(slopes), pooled(slopes.values()), slopes[worst], worst.name)


class Heavy(NamedTuple):
    """Bias and scatter of one estimate with an untrained control."""

    name: str
    few: tuple[int, Estimate]  # paths and bias
    many: tuple[int, Estimate]
    bias: Estimate  # orders in n
    sd: Estimate

    @property
    def off(self) -> float:
        """From the orders -1 and -1/2, in standard errors."""
        return max(score(self.bias, -1), score(self.sd, -0.5))


def heavy(results: list[Result]) -> list[Heavy]:
    tails = []
    for r in results:
        n = np.array(r.paths)
        offsets = [bias(repeated, r.log_Z) for repeated in r.repeated]
        orders = order(n, offsets), order(n, [sd(repeated) for repeated in r.repeated])
        tails.append(Heavy(r.name, (n[0], offsets[0]), (n[-1], offsets[-1]), *orders))
    return tails


class Coverage(NamedTuple):
    """How often an estimator's intervals hold what they should."""

    result: Result
    paths: int
    share: Estimate


def covered(results: Sequence[Result], at: int) -> list[Coverage]:
    """The aim, at the number of calls with index `at`."""
    return [Coverage(r, r.paths[at], coverage(r.repeated[at], r.aim)) for r in results]


def covered_truth(results: Sequence[Result]) -> list[Coverage]:
    """log Z itself, at the most calls."""
    return [Coverage(r, r.paths[-1], coverage(r.repeated[-1], r.log_Z)) for r in results]


class Weight(NamedTuple):
    """Coverage where few paths carry the weight and where many do, and Bennett's beside it."""

    few: list[Coverage]
    many: list[Coverage]
    bennett: Result  # with the least overlap
    held: list[Estimate]  # its coverage, at every number of calls


def by_weight(results: list[Result], few: float) -> Weight:
    """`few`: effective paths, n ESS, that separate the two."""
    groups: tuple[list[Coverage], list[Coverage]] = ([], [])
    for r in (r for r in results if r.direction != "Bennett"):
        for n, repeated in zip(r.paths, r.repeated, strict=True):
            groups[n * r.quality >= few].append(Coverage(r, n, coverage(repeated, r.aim)))
    bennett = [r for r in results if r.direction == "Bennett"]
    lowest = min(bennett, key=lambda r: r.quality)
    return Weight(*groups, lowest, [coverage(repeated, lowest.aim) for repeated in lowest.repeated])


def mean_coverage(group: list[Coverage]) -> tuple[float, float]:
    """And its largest possible error."""
    mean = float(np.mean([c.share.value for c in group]))
    return mean, 0.5 / math.sqrt(sum(c.share.n for c in group) or 1)


class Price(NamedTuple):
    """The rmse of path weights over that of the better escort, at the most calls."""

    result: Result
    ratio: Estimate


def prices(results: Sequence[Result]) -> list[Price]:
    pairs = []
    for path in (r for r in results if r.family == "path weights" and r.direction != "reverse"):
        rivals = [
            r for r in results
            if (r.setting, r.control, r.direction) == (path.setting, path.control, path.direction)
            and r.family != "path weights"
        ]  # fmt: skip
        best = min((_rmse(r) for r in rivals), key=lambda e: e.value)
        pairs.append(Price(path, _ratio(_rmse(path), best)))
    return pairs


def _rmse(r: Result) -> Estimate:
    return rmse(r.repeated[-1], r.log_Z)
