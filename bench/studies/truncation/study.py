"""What does relative entropy lose when its gradient goes through the last steps only?"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Generator

from tiltbench.estimators import elbo, ess_model
from tiltbench.metric import Outcome
from tiltbench.plan.spec import METRICS, build_sampler, build_target, parse
from tiltbench.report.pictures.style import COLOURS, GREY, picture
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.score.floor import measure
from tiltbench.studies.common.trained import trained
from tiltbench.studies.memory.study import peak
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.problem import pose

STEPS = 50
LAST = (1, 5, 10, 25, 50)  # of STEPS
PATHS = 128
POINTS, DRAWS = 20_000, 1_000


class TruncationResult(NamedTuple):
    last: int
    gap: Estimate  # log Z less the ELBO, nats
    ess: float
    distance: float
    megabytes: float  # of a training step at most


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    target = build_target(parse(f"tilt_linear[steps={STEPS}]"))
    truth, metric = target.truth(), METRICS.load("energy_distance")
    floor = measure(target, {metric.name: metric}, DRAWS)[metric.name]
    assert floor is not None and truth.log_Z is not None
    results = []
    for last in LAST:
        text = f"relative_entropy[paths={PATHS},lr=0.01,recipe=Truncated[last={last}]]"
        sampler = build_sampler(parse(text))
        state = trained(target, sampler, POINTS, device)
        free = pose(target, sampler.reference)
        source = Generator(device).manual_seed(2)
        draws = sampler.draw(free, state, DRAWS, source)
        assert draws.log_w is not None
        x, log_w = draws.x.double().cpu(), draws.log_w.cpu()
        value, se, n = elbo(log_w)
        outcome = Outcome(Draws(x), None, {})
        distance = metric.fn(target, truth, outcome, Generator().manual_seed(3)).value
        held = peak(lambda: sampler.step(free, state, source))  # noqa: B023  # called at once
        gap = Estimate(truth.log_Z - value, se, n)
        results.append(TruncationResult(last, gap, ess_model(log_w).value, distance, held))
    _draw(folder / "truncation.png", results)
    words = (
        f"`tilt_linear` (D = 2), {STEPS} steps, {PATHS} paths, {POINTS:,} calls, {DRAWS:,} draws. "
        f"*Gap*: log Z less the mean log-weight, 0 at the optimum. Exact draws score "
        f"{floor.mean:.4f} ± {floor.sd:.4f}. *MB*: largest memory held in a training step."
    )
    rows = [
        {
            "last steps": result.last,
            "gap": f"{result.gap.value:.3f} ± {result.gap.se:.3f}",
            "ess_model": result.ess,
            "energy distance": result.distance,
            "MB": result.megabytes,
        }
        for result in results
    ]
    return Answer(DataFrame(rows), words, _claims(results))


def _claims(results: list[TruncationResult]) -> tuple[Claim, ...]:
    first, whole = results[0], results[-1]
    apart = first.gap.value - whole.gap.value
    se = (first.gap.se**2 + whole.gap.se**2) ** 0.5
    return (
        Claim(
            "A gradient through few steps is biased: the same training leaves a larger gap",
            verdict(apart > 4 * se, apart < 2 * se),
            f"{first.gap.value:.3f} ± {first.gap.se:.3f} nats with the last {first.last}, "
            f"{whole.gap.value:.3f} ± {whole.gap.se:.3f} with all {whole.last}; memory "
            f"{first.megabytes:.1f} and {whole.megabytes:.1f} MB.",
        ),
    )


def _draw(path: Path, results: list[TruncationResult]) -> None:
    with picture(path, 1, 2, (3.2, 2.6)) as (_, grid):
        gaps, held = grid[0]
        last = [result.last for result in results]
        gaps.errorbar(
            last,
            [result.gap.value for result in results],
            [result.gap.se for result in results],
            color=COLOURS[0],
            marker="o",
            ms=3,
            lw=1,
        )
        gaps.axhline(0, color=GREY, lw=0.6)
        gaps.set_ylabel("log Z less the ELBO  (nats)")
        held.plot(
            last, [result.megabytes for result in results], color=COLOURS[1], marker="o", ms=3
        )
        held.set_ylabel("memory of a training step  (MB)")
        held.set_ylim(bottom=0)
        for axes in (gaps, held):
            axes.set_xlabel(f"last steps of {STEPS} with a gradient")


truncation = Study("truncation", "Relative entropy with a truncated gradient", run)
