"""What study `estimators` concludes: the rules that judge its numbers, and the sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiltbench.samplers.weights import Estimate
from tiltbench.studies.common.rules import Same
from tiltbench.studies.estimators.measured import (
    Beside,
    Heavy,
    Jensen,
    Price,
    Result,
    Scatter,
    Weight,
    bennett,
    by_weight,
    covered,
    covered_truth,
    heavy,
    jensens,
    mean_coverage,
    pooled,
    prices,
    scattered,
    score,
)
from tiltbench.study import Claim, verdict

LOW, HIGH = 0.90, 0.98  # what an honest 95 % interval may cover
FEW = 10.0  # effective paths
SMALLER = Same(agrees=2.0, apart=3.0)  # standard errors: surely below, surely above
LAW = Same(agrees=3.0, apart=5.0)  # standard errors of a pooled order or ratio
ONE_OF_MANY = Same(agrees=3.5, apart=5.0)  # of the furthest of many orders
BROKEN = Same(agrees=3.0, apart=4.0)  # of both orders of one estimate
HONEST = Same(agrees=2.0, apart=3.5)  # standard errors of a coverage outside LOW to HIGH
SURE = 3.0  # standard errors by which a coverage is below LOW
LISTED = 5  # of those that fall short


def claims(results: Sequence[Result]) -> tuple[Claim, ...]:
    trained = [r for r in results if r.control == "trained"]
    untrained = [r for r in results if r.control == "untrained"]
    behind = [r for r in untrained if r.exact and r.direction == "reverse"]
    return (
        no_larger_rmse(
            "Where the chain is exact at any K, Bennett's estimate has at equal calls no larger an "
            "rmse than the better single side.",
            bennett([r for r in results if r.exact]),
        ),
        no_larger_rmse(
            "Where the chain is exact only as K grows, Bennett's estimate has at equal calls no "
            "larger an rmse than the better single side.",
            bennett([r for r in results if not r.exact]),
        ),
        jensen_bias(jensens(trained)),
        square_root_law(scattered(trained)),
        heavy_tails(heavy(behind)),
        honest(trained, -1, "the most"),
        honest(trained, 0, "the fewest"),
        covers_truth(trained),
        few_paths(by_weight(untrained, FEW)),
        cheaper(prices(results)),
    )


def no_larger_rmse(text: str, comparisons: list[Beside]) -> Claim:
    mean = pooled(b.rmse for b in comparisons)
    above = max((b.rmse.value - 1) / b.rmse.se for b in comparisons)
    listed = "; ".join(
        f"{b.where} {_pm(b.rmse)} (sd {_pm(b.sd)}, law {b.law:.2f})" for b in comparisons
    )
    return Claim(
        text,
        verdict(
            above < SMALLER.agrees and mean.value + SMALLER.agrees * mean.se < 1,
            above > SMALLER.apart,
        ),
        "Bennett's rmse over that of the better side, averaged over the numbers of calls (*law*: "
        "sqrt[4 (1/overlap - 1) / (1/ESS - 1)] of the pools, the ratio of the sds with many "
        f"paths): {listed}; mean {_pm(mean)}.",
    )


def jensen_bias(jensen: Jensen) -> Claim:
    off = max(score(jensen.slope, -1), score(jensen.ratio, 1))
    return Claim(
        "With a trained control forward estimates are biased low and reverse ones high (Jensen), "
        "by -+(1/ESS - 1) / 2n to first order.",
        verdict(
            off < LAW.agrees and jensen.wrong < LAW.agrees,
            off > LAW.apart or jensen.wrong > LAW.apart,
        ),
        f"Over {jensen.estimates} one-sided estimates the bias that the logarithm adds falls with "
        f"the order {_pm(jensen.slope)} in n, and is {_pm(jensen.ratio)} of the first-order value "
        f"at the most calls; at the fewest calls no bias has the wrong sign by more than "
        f"{max(jensen.wrong, 0):.1f} standard errors.",
    )


def square_root_law(scatter: Scatter) -> Claim:
    off, mean = score(scatter.worst, -0.5), score(scatter.mean, -0.5)
    return Claim(
        "With a trained control the standard deviation falls like n^(-1/2).",
        verdict(
            off < ONE_OF_MANY.agrees and mean < LAW.agrees,
            off > ONE_OF_MANY.apart or mean > LAW.apart,
        ),
        f"Fitted orders of {scatter.estimates} estimators: {_pm(scatter.mean)} on average, the "
        f"furthest from -1/2 {_pm(scatter.worst)} of {scatter.name}.",
    )


def heavy_tails(tails: list[Heavy]) -> Claim:
    listed = "; ".join(
        f"{h.name}: bias {_pm(h.few[1])} with {h.few[0]} paths, {_pm(h.many[1])} with {h.many[0]}; "
        f"orders {_pm(h.bias)} of the bias, {_pm(h.sd)} of the sd"
        for h in tails
    )
    off = [h.off for h in tails]
    return Claim(
        "The same laws, 1/n and n^(-1/2), hold for the reverse estimate with an untrained control.",
        verdict(max(off) < BROKEN.agrees, min(off) > BROKEN.apart),
        f"{listed}.",
    )


def honest(results: list[Result], at: int, when: str) -> Claim:
    held = covered(results, at)
    shares = [c.share for c in held]
    low = max((LOW - c.value) / c.se for c in shares)
    high = max((c.value - HIGH) / c.se for c in shares)
    short = sorted((c for c in held if c.share.value < LOW), key=lambda c: c.share.value)[:LISTED]
    listed = ", ".join(f"{c.result.name} {_pm(c.share)} with {c.paths} paths" for c in short)
    return Claim(
        f"With a trained control and {when} calls the reported error covers the "
        "scatter: 95 % intervals cover the limit of the chain in 90 to 98 % of repetitions.",
        verdict(max(low, high) < HONEST.agrees, max(low, high) > HONEST.apart),
        f"Coverage {min(c.value for c in shares):.3f} to {max(c.value for c in shares):.3f} over "
        f"{len(held)} estimators (each ± {max(c.se for c in shares):.3f} or less), "
        f"{float(np.mean([c.value for c in shares])):.3f} on average."
        + (f" Below {LOW:.2f}: {listed}." if listed else ""),
    )


def covers_truth(results: list[Result]) -> Claim:
    held = covered_truth(results)
    short = [c for c in held if c.share.value + SURE * c.share.se < LOW]
    listed = ", ".join(
        f"{c.result.name} {_pm(c.share)} (the chain is off by "
        f"{c.result.limit.value - c.result.log_Z:+.4f} ± {c.result.limit.se:.4f})"
        for c in short
    )
    return Claim(
        "With a trained control the intervals cover log Z itself as often.",
        verdict(all(c.share.value + HONEST.agrees * c.share.se > LOW for c in held), bool(short)),
        f"At the most calls {len(short)} of {len(held)} fall short: {listed or 'none'}. "
        "An error bar knows nothing of the step size.",
    )


def few_paths(groups: Weight) -> Claim:
    (few, error), (many, _) = (mean_coverage(group) for group in (groups.few, groups.many))
    worst = min(groups.few, key=lambda c: c.share.value, default=None)
    lowest = groups.bennett
    return Claim(
        "With an untrained control the reported error of a one-sided estimate is too small where "
        f"few paths carry the weight (n ESS below {FEW:g}).",
        verdict(few + SURE * error < LOW and many > LOW, few - SURE * error > LOW),
        f"Mean coverage of {len(groups.few)} cases below that: {few:.3f}, of "
        f"{len(groups.many)} above: {many:.3f}."
        + (f" Worst: {worst.result.name}, {_pm(worst.share)}." if worst else "")
        + f" Bennett with the least overlap ({lowest.quality:.2f}, {lowest.where}) still covers "
        + ", ".join(f"{c.value:.3f}" for c in groups.held)
        + ".",
    )


def cheaper(prices: list[Price]) -> Claim:
    listed = "; ".join(
        f"{p.result.target}, {p.result.control}, {p.result.direction} {_pm(p.ratio)}"
        for p in prices
    )
    return Claim(
        "At equal calls, training and drawing, path weights have a smaller rmse than escorts.",
        verdict(
            min((1 - p.ratio.value) / p.ratio.se for p in prices) > SMALLER.agrees,
            max((p.ratio.value - 1) / p.ratio.se for p in prices) > SMALLER.apart,
        ),
        f"rmse of path weights over that of the better escort, at the most calls: {listed}.",
    )


def _pm(e: Estimate) -> str:
    return f"{e.value:.3f} ± {e.se:.3f}"
