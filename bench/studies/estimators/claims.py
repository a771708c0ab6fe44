"""What study `estimators` concludes from its repeated estimates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tiltbench.samplers.weights import Estimate
from tiltbench.studies.estimators.repeated import Repeated, bias, coverage, jensen, order, rmse, sd
from tiltbench.study import Claim, verdict

LOW, HIGH = 0.90, 0.98  # what an honest 95 % interval may cover
FEW = 10.0  # effective paths


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
    found: list[Repeated]

    @property
    def aim(self) -> float:
        """What honest intervals cover: log Z, or what the chain of K steps has instead."""
        return self.log_Z if self.exact else self.limit.value

    @property
    def name(self) -> str:
        return f"{self.family} {self.direction} ({self.setting.split('[')[0]}, {self.control})"


def claims(results: Sequence[Result]) -> tuple[Claim, ...]:
    trained = [r for r in results if r.control == "trained"]
    untrained = [r for r in results if r.control == "untrained"]
    return (
        _bennett([r for r in results if r.exact], "Where the chain is exact at any K, Bennett's "
                 "estimate has at equal calls no larger an rmse than the better single side."),
        _bennett([r for r in results if not r.exact],
                 "The same where the chain is exact only as K grows."),
        _jensen(trained),
        _scatter(trained),
        _heavy([r for r in untrained if r.exact and r.direction == "reverse"]),
        _honest(trained, -1, "the most"),
        _honest(trained, 0, "the fewest"),
        _true(trained),
        _few(untrained),
        _cheap(results),
    )  # fmt: skip


def _bennett(results: list[Result], text: str) -> Claim:
    """Bennett's rmse over the better one-sided one's, averaged over the numbers of calls."""
    ratios, said = [], []
    for both in (r for r in results if r.direction == "Bennett"):
        sides = [r for r in results if _where(r) == _where(both) and r is not both]
        whole, part = (
            _pooled(_ratio(each[0], min(each[1:], key=lambda e: e.value)) for each in every)
            for every in (
                [[rmse(f, both.log_Z) for f in row] for row in _beside(both, *sides)],
                [[sd(f) for f in row] for row in _beside(both, *sides)],
            )
        )
        quality = max(r.quality for r in sides)
        law = math.sqrt(4 * (1 / both.quality - 1) / (1 / quality - 1))
        ratios.append(whole)
        said.append(f"{_where(both)} {_pm(whole)} (sd {_pm(part)}, law {law:.2f})")
    mean, above = _pooled(ratios), max((e.value - 1) / e.se for e in ratios)
    return Claim(
        text,
        verdict(above < 2 and mean.value + 2 * mean.se < 1, above > 3),
        "Bennett's rmse over that of the better side, averaged over the numbers of calls (*law*: "
        "sqrt[4 (1/overlap - 1) / (1/ESS - 1)] of the pools, the ratio of the sds with many "
        f"paths): {'; '.join(said)}; mean {_pm(mean)}.",
    )


def _beside(*results: Result) -> list[tuple[Repeated, ...]]:
    return list(zip(*(r.found for r in results), strict=True))


def _jensen(results: list[Result]) -> Claim:
    one_sided = [r for r in results if r.direction != "Bennett"]
    slopes, ratios, wrong = [], [], []
    for r in one_sided:
        sign = 1 if r.direction == "forward" else -1
        gaps = [jensen(found.value, sign) for found in r.found]
        slopes.append(order(np.array(r.paths), gaps))
        first = -sign * (1 / r.quality - 1) / (2 * r.paths[-1])
        ratios.append(Estimate(gaps[-1].value / first, gaps[-1].se / abs(first), 1))
        offset = bias(r.found[0], r.aim)
        wrong.append(sign * offset.value / offset.se)
    slope, ratio = _pooled(slopes), _pooled(ratios)
    off = max(_z(slope, -1), _z(ratio, 1))
    return Claim(
        "With a trained control forward estimates are biased low and reverse ones high (Jensen), "
        "by -+(1/ESS - 1) / 2n to first order.",
        verdict(off < 3 and max(wrong) < 3, off > 5 or max(wrong) > 5),
        f"Over {len(one_sided)} one-sided estimates the bias that the logarithm adds falls with "
        f"the order {_pm(slope)} in n, and is {_pm(ratio)} of the first-order value at the most "
        f"calls; at the fewest calls no bias has the wrong sign by more than "
        f"{max(max(wrong), 0):.1f} standard errors.",
    )


def _scatter(results: list[Result]) -> Claim:
    slopes = {r: order(np.array(r.paths), [sd(found) for found in r.found]) for r in results}
    worst = max(slopes, key=lambda r: _z(slopes[r], -0.5))
    off, mean = _z(slopes[worst], -0.5), _pooled(slopes.values())
    return Claim(
        "With a trained control the standard deviation falls like n^(-1/2).",
        verdict(off < 3.5 and _z(mean, -0.5) < 3, off > 5 or _z(mean, -0.5) > 5),
        f"Fitted orders of {len(slopes)} estimators: {_pm(mean)} on average, the furthest from "
        f"-1/2 {_pm(slopes[worst])} of {worst.name}.",
    )


def _heavy(results: list[Result]) -> Claim:
    said, furthest, nearest = [], math.inf, 0.0
    for r in results:
        n = np.array(r.paths)
        offsets = [bias(found, r.log_Z) for found in r.found]
        orders = order(n, offsets), order(n, [sd(found) for found in r.found])
        off = max(_z(orders[0], -1), _z(orders[1], -0.5))
        furthest, nearest = min(furthest, off), max(nearest, off)
        said.append(
            f"{r.name}: bias {_pm(offsets[0])} with {n[0]} paths, {_pm(offsets[-1])} with {n[-1]}; "
            f"orders {_pm(orders[0])} of the bias, {_pm(orders[1])} of the sd"
        )
    return Claim(
        "The same laws, 1/n and n^(-1/2), hold for the reverse estimate with an untrained control.",
        verdict(nearest < 3, furthest > 4),
        "; ".join(said) + ".",
    )


def _honest(results: list[Result], at: int, when: str) -> Claim:
    held = {r: coverage(r.found[at], r.aim) for r in results}
    low = max((LOW - c.value) / c.se for c in held.values())
    high = max((c.value - HIGH) / c.se for c in held.values())
    mean = float(np.mean([c.value for c in held.values()]))
    short = sorted((r for r in held if held[r].value < LOW), key=lambda r: held[r].value)[:5]
    said = ", ".join(f"{r.name} {_pm(held[r])} with {r.paths[at]} paths" for r in short)
    ends = min(c.value for c in held.values()), max(c.value for c in held.values())
    return Claim(
        f"With a trained control and {when} calls the reported error is honest about the "
        "scatter: 95 % intervals cover the limit of the chain in 90 to 98 % of repetitions.",
        verdict(max(low, high) < 2, max(low, high) > 3.5),
        f"Coverage {ends[0]:.3f} to {ends[1]:.3f} over {len(held)} estimators (each ± "
        f"{max(c.se for c in held.values()):.3f} or less), {mean:.3f} on average."
        + (f" Below {LOW:.2f}: {said}." if said else ""),
    )


def _true(results: list[Result]) -> Claim:
    held = {r: coverage(r.found[-1], r.log_Z) for r in results}
    short = {r: c for r, c in held.items() if c.value + 3 * c.se < LOW}
    said = ", ".join(
        f"{r.name} {_pm(c)} (the chain is off by {r.limit.value - r.log_Z:+.4f} ± {r.limit.se:.4f})"
        for r, c in short.items()
    )
    return Claim(
        "With a trained control the intervals cover log Z itself as often.",
        verdict(all(c.value + 2 * c.se > LOW for c in held.values()), bool(short)),
        f"At the most calls {len(short)} of {len(held)} fall short: {said or 'none'}. "
        "An error bar knows nothing of the step size.",
    )


def _few(results: list[Result]) -> Claim:
    groups: tuple[list[tuple[Result, Estimate]], ...] = ([], [])
    for r in (r for r in results if r.direction != "Bennett"):
        for n, found in zip(r.paths, r.found, strict=True):
            groups[n * r.quality >= FEW].append((r, coverage(found, r.aim)))
    means = [float(np.mean([c.value for _, c in group])) for group in groups]
    errors = [0.5 / math.sqrt(sum(c.n for _, c in group) or 1) for group in groups]
    worst, least = min(groups[0], key=lambda pair: pair[1].value, default=(None, None))
    bennett = [r for r in results if r.direction == "Bennett"]
    lowest = min(bennett, key=lambda r: r.quality)
    held = [coverage(found, lowest.aim) for found in lowest.found]
    small = means[0] + 3 * errors[0] < LOW
    return Claim(
        "With an untrained control the reported error of a one-sided estimate is too small where "
        f"few paths carry the weight (n ESS below {FEW:g}).",
        verdict(small and means[1] > LOW, means[0] - 3 * errors[0] > LOW),
        f"Mean coverage of {len(groups[0])} cases below that: {means[0]:.3f}, of "
        f"{len(groups[1])} above: {means[1]:.3f}."
        + (f" Worst: {worst.name}, {_pm(least)}." if worst and least else "")
        + f" Bennett with the least overlap ({lowest.quality:.2f}, {_where(lowest)}) still covers "
        + ", ".join(f"{c.value:.3f}" for c in held)
        + ".",
    )


def _cheap(results: Sequence[Result]) -> Claim:
    said, best, worst = [], [], []
    for path in (r for r in results if r.family == "path weights" and r.direction != "reverse"):
        rivals = [
            r for r in results
            if (r.setting, r.control, r.direction) == (path.setting, path.control, path.direction)
            and r.family != "path weights"
        ]  # fmt: skip
        ratio = _ratio(_rmse(path), min((_rmse(r) for r in rivals), key=lambda e: e.value))
        best.append((1 - ratio.value) / ratio.se)
        worst.append((ratio.value - 1) / ratio.se)
        said.append(f"{path.setting.split('[')[0]}, {path.control}, {path.direction} {_pm(ratio)}")
    return Claim(
        "At equal calls, training and drawing, path weights have a smaller rmse than escorts.",
        verdict(min(best) > 2, max(worst) > 3),
        f"rmse of path weights over that of the better escort, at the most calls: "
        f"{'; '.join(said)}.",
    )


def _where(r: Result) -> str:
    return f"{r.family}, {r.setting.split('[')[0]}, {r.control}"


def _rmse(r: Result) -> Estimate:
    return rmse(r.found[-1], r.log_Z)


def _ratio(a: Estimate, b: Estimate) -> Estimate:
    value = a.value / b.value
    return Estimate(value, value * math.hypot(a.se / a.value, b.se / b.value), 1)


def _pooled(values: Iterable[Estimate]) -> Estimate:
    """The mean weighted by inverse variance."""
    values = list(values)
    weight = np.array([1 / e.se**2 for e in values])
    mean = float((weight * [e.value for e in values]).sum() / weight.sum())
    return Estimate(mean, float(weight.sum()) ** -0.5, len(values))


def _z(e: Estimate, aim: float) -> float:
    return abs(e.value - aim) / e.se


def _pm(e: Estimate) -> str:
    return f"{e.value:.3f} ± {e.se:.3f}"
