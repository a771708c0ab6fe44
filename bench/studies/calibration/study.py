"""Are posteriors of an inverse problem calibrated?  Ranks of the truth, intervals, and means."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate, ess
from tiltbench.studies.calibration import inverse
from tiltbench.studies.calibration.figures import draw_posteriors, draw_ranks
from tiltbench.studies.calibration.inverse import (
    STATISTICS,
    Pair,
    moments,
    pairs,
    picked,
    posteriors,
)
from tiltbench.studies.calibration.ranks import LEVEL, ranks
from tiltbench.studies.calibration.results import (
    MethodResult,
    UniformityTests,
    mean_of,
    uniformity_tests,
)
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.digits.pool import draws as stored

REPLICATES = 50
RANKED = 99  # draws that the truth is ranked among
LEAST = 400  # draws that the pool is worth: replicates with fewer are counted
MARGIN = 0.05  # of coverage


def method_results(replicates: list[Pair], device: str) -> list[MethodResult]:
    pool = stored(torch.empty(0, device=device, dtype=torch.float64))
    by: dict[str, list[tuple[Tensor, ...]]] = {}
    for seed, pair in enumerate(replicates):
        source = Generator(device).manual_seed(1_000 + seed)
        for method, draws in posteriors(pair.seen, pool, seed).items():
            by.setdefault(method, []).append(_one(pair, draws, source))
    return [
        MethodResult(method, *(torch.stack(column).cpu() for column in zip(*ones, strict=True)))
        for method, ones in by.items()
    ]


def _one(pair: Pair, draws: Draws, source: Generator) -> tuple[Tensor, ...]:
    few = picked(draws, RANKED, source)
    at, among = (
        torch.stack([f(x, pair.seen) for f in STATISTICS.values()], -1) for x in (pair.x, few)
    )
    n = len(draws.x)
    worth = n if draws.log_w is None else n * ess(draws.log_w)
    return (
        ranks(at, among, source),
        ranks(pair.x, few, source),
        pair.x.new_tensor(worth),
        *moments(draws),
        few[:2],
    )


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    replicates = pairs(REPLICATES, device)
    results = method_results(replicates, device)
    truth = torch.stack([pair.x for pair in replicates]).cpu()
    seen = torch.tensor([pair.seen.y for pair in replicates], dtype=torch.float64)
    naive = {
        "y, enlarged": enlarge(seen),
        "mean of the base": _of_method(results, "base").mean.mean(0),
    }
    tests = uniformity_tests(results)
    draw_ranks(folder / "calibration.png", results, tests)
    draw_posteriors(folder / "posteriors.png", truth, naive["y, enlarged"], results)
    pool = _of_method(results, "exact").ess
    words = (
        f"The digits flow as prior, y = A x + noise xi, A the means of 2 x 2 blocks, noise "
        f"{inverse.NOISE}; {REPLICATES} pairs of an image x, drawn afresh from the flow's chain, "
        "and its y. *Exact*: importance sampling from the stored draws of that chain, worth "
        f"{pool.median():,.0f} draws in the median, {pool.min():,.0f} at least, and fewer than "
        f"{LEAST} for {int((pool < LEAST).sum())} of the {REPLICATES}. *{inverse.TWICE}*, "
        f"*{inverse.HALF}*: the same, too sure of y on purpose. *base*: no y at all. Adjoint "
        f"matching is trained anew for every y, `{inverse.LEARNT}`, {inverse.POINTS:,} calls; it "
        f"and guidance draw {inverse.PATHS:,}. *weighted*: by path weights. The six columns after "
        f"ESS: p value (Kolmogorov and Smirnov) that the ranks of f(x) among {RANKED} draws are "
        f"uniform, a star where Holm's correction over all {len(tests.all)} lets a rejection at "
        f"{LEVEL:.0%} stand. *contrast*: two pixels of one block, of which y knows nothing but "
        "through the prior; *3 or 8*: log-odds by the classifier; *r*: the log-likelihood of y. "
        "*50 %, 90 %*: part of the true pixels in these central intervals. *mean off*: rms "
        "distance of the posterior mean from the exact one, in posterior standard deviations, "
        "median; in brackets the standard error of the method's own mean. *MSE*: of the posterior "
        "mean to x."
    )
    table = DataFrame(
        [_table_row(result, _of_method(results, "exact"), tests, truth) for result in results]
    )
    return Answer(table, words, _claims(results, tests, truth, naive))


def _of_method(results: list[MethodResult], method: str) -> MethodResult:
    return next(result for result in results if result.method == method)


def enlarge(y: Float[Tensor, "l 16"]) -> Float[Tensor, "l 64"]:
    """Every pixel that of its block."""
    return y.unflatten(-1, (4, 4)).repeat_interleave(2, -1).repeat_interleave(2, -2).flatten(-2)


def _errors(mean: Float[Tensor, "*l 64"], truth: Float[Tensor, "l 64"]) -> Float[Tensor, " l"]:
    return (mean - truth).square().mean(1)


def _table_row(
    result: MethodResult, exact: MethodResult, tests: UniformityTests, truth: Tensor
) -> dict[str, object]:
    error = mean_of(_errors(result.mean, truth))
    stars = tests.of(result.method)
    return {
        "method": result.method,
        "ESS, draws": f"{result.ess.median():,.0f}",
        **{f: f"{p:.2g}" + "*" * (f in stars) for f, p in result.p.items()},
        **{f"{level * 100:.0f} %": _shown(result.coverage(level)) for level in (0.5, 0.9)},
        "mean off": f"{result.off(exact).median():.2f} ({result.noise(exact).median():.2f})",
        "MSE": _shown(error),
    }


def _shown(e: Estimate) -> str:
    return f"{e.value:.3f} ± {e.se:.3f}"


def _claims(
    results: list[MethodResult], tests: UniformityTests, truth: Tensor, naive: dict[str, Tensor]
) -> tuple[Claim, ...]:
    exact, twice, half, _, *others = results
    blind = [f for f in STATISTICS if f != "r"]
    p = tests.all
    worst = min(blind, key=lambda f: p["base", f])
    tilted = [result for result in others if result.method.endswith("weighted")]
    return (
        is_calibrated(exact, tests),
        *(
            Claim(
                f"{REPLICATES} replicates are enough to see a posterior too narrow: "
                f"{result.method}",
                verdict(bool(tests.of(result.method)), min(result.p.values()) > LEVEL),
                _ranked(result, tests),
            )
            for result in (twice, half)
        ),
        Claim(
            "Functions of x alone cannot tell the prior from a posterior, the log-likelihood of y "
            "can (arXiv 2211.02383)",
            verdict(tests.of("base") == ["r"], "r" not in tests.of("base")),
            f"p = {p['base', 'r']:.2g} for r, at least {p['base', worst]:.2g} ({worst}) for the "
            "others.",
        ),
        *(is_calibrated(result, tests) for result in others),
        *(
            repaired(_of_method(results, result.method.split(",")[0]), result, exact)
            for result in tilted
        ),
        *square_errors(exact, truth, naive | {result.method: result.mean for result in others}),
    )


def is_calibrated(result: MethodResult, tests: UniformityTests) -> Claim:
    half, most = result.coverage(0.5), result.coverage(0.9)
    away = [(abs(e.value - level), e.se) for e, level in ((half, 0.5), (most, 0.9))]
    inside = all(d + 2 * se < MARGIN for d, se in away)
    outside = any(d - 3 * se > 0 for d, se in away)
    rejected = bool(tests.of(result.method))
    return Claim(
        f"Calibrated: {result.method}",
        verdict(inside and not rejected, outside or rejected),
        f"{_ranked(result, tests)} Intervals of 50 % and 90 % cover {_shown(half)} and "
        f"{_shown(most)}.",
    )


def _ranked(result: MethodResult, tests: UniformityTests) -> str:
    stars, (f, p) = tests.of(result.method), min(result.p.items(), key=lambda item: item[1])
    return f"Ranks not uniform: {', '.join(stars) or 'none'}; smallest p {p:.2g} ({f})."


def repaired(plain: MethodResult, weighted: MethodResult, exact: MethodResult) -> Claim:
    gain = mean_of(plain.off(exact) - weighted.off(exact))
    return Claim(
        f"Path weights bring the posterior mean of {plain.method} nearer to the exact one",
        verdict(gain.value > 3 * gain.se, gain.value < -3 * gain.se),
        f"off by {plain.off(exact).mean():.3f} posterior sd as drawn, by "
        f"{weighted.off(exact).mean():.3f} weighted, {gain.value:+.3f} ± {gain.se:.3f} less; the "
        f"weights are worth {weighted.ess.median():.0f} of {inverse.PATHS} draws.",
    )


def square_errors(
    exact: MethodResult, truth: Tensor, means: dict[str, Tensor]
) -> tuple[Claim, ...]:
    least = _errors(exact.mean, truth)
    due = mean_of(least - exact.sd.square().mean(1))
    more = {name: mean_of(_errors(mean, truth) - least) for name, mean in means.items()}
    z = {name: e.value / e.se for name, e in more.items()}
    return (
        Claim(
            "The squared error of the exact posterior mean is the posterior variance",
            verdict(abs(due.value) < 2 * due.se, abs(due.value) > 4 * due.se),
            f"{_shown(mean_of(least))} a pixel; less the variance {due.value:+.3f} ± {due.se:.3f}.",
        ),
        Claim(
            "No other estimate is nearer to x in the mean square",
            verdict(min(z.values()) > -2, min(z.values()) < -4),
            "more than that: "
            + ", ".join(f"{name} {e.value:+.3f} ± {e.se:.3f}" for name, e in more.items())
            + ".",
        ),
    )


calibration = Study("calibration", "An inverse problem: calibration and posterior means", run)
