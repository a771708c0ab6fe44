"""How well may the optimum itself score, on a grid of K steps?

A chain of K steps that follows the optimal control of continuous time is not exact: its weights
differ, and its draws are not of p*.  What is lost there no training wins back but by departing from
that control.  So the grid and the noise of a base are chosen before anything is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator

from tiltbench.estimators import elbo, ess_model
from tiltbench.metric import Outcome
from tiltbench.plan.spec import METRICS, build_target, parse
from tiltbench.report.pictures.style import COLOURS, GREY, picture
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.score.floor import measure
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.process import simulate
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.problem import log_weight, pose

STEPS = (16, 32, 48, 64, 128)
BASES = {  # by target: (scale, ratio) of Brownian
    "gmm40": ((1.0, 6.0), (1.0, 12.0), (1.0, 24.0)),
    "funnel": ((0.2, 16.0), (0.5, 16.0), (0.5, 64.0), (1.0, 64.0)),
}
NARROW = 0.2  # scale of the base that is too narrow for the funnel's mouth
NEAR = 5  # times the floor's edge
DRAWS = 2_000


class GridResult(NamedTuple):
    target: str
    scale: float
    ratio: float
    steps: int
    ess: Estimate
    gap: Estimate  # log Z less the ELBO, nats
    distance: float  # energy distance of the draws, in units of its floor's upper edge


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    results = [
        result for name, bases in BASES.items() for result in _grid_results(name, bases, device)
    ]
    _draw(folder / "discretisation.png", results)
    words = (
        "Paths that follow u*, in closed form or by quadrature, from a Brownian base whose noise "
        f"falls by *ratio* and whose spread is *scale* of the target's; {DRAWS:,} draws. *Gap*: "
        "log Z less the mean log-weight, 0 in continuous time. *Distance*: energy distance of the "
        "draws as they are, over the upper edge of its floor (mean + 2 sd of exact draws)."
    )
    rows = [
        {
            "target": f"`{result.target}`",
            "scale": result.scale,
            "ratio": result.ratio,
            "steps": result.steps,
            "ess_model": f"{result.ess.value:.3f} ± {result.ess.se:.3f}",
            "gap": f"{result.gap.value:.3f} ± {result.gap.se:.3f}",
            "distance": f"{result.distance:.2g}",
        }
        for result in results
    ]
    return Answer(DataFrame(rows), words, _claims(results))


def _grid_results(
    name: str, bases: tuple[tuple[float, float], ...], device: str
) -> list[GridResult]:
    target, metric = build_target(parse(name)), METRICS.load("energy_distance")
    truth, floor = target.truth(), measure(target, {metric.name: metric}, DRAWS)[metric.name]
    assert truth.noised_score is not None and truth.log_Z is not None and floor is not None
    results = []
    for scale, ratio in bases:
        for steps in STEPS:
            posed = pose(target, Brownian(steps=steps, scale=scale, ratio=ratio))
            best = Optimal(posed.base, truth.noised_score)  # type: ignore[arg-type]
            source = Generator(device).manual_seed(1)
            with torch.no_grad():
                path = simulate(posed.base, best, (DRAWS, posed.dim), source)
                log_w = log_weight(posed, path).cpu()
            value, se, n = elbo(log_w)
            outcome = Outcome(Draws(path.x[-1].double().cpu()), None, {})
            distance = metric.fn(target, truth, outcome, Generator().manual_seed(3)).value
            gap = Estimate(truth.log_Z - value, se, n)
            off = distance / (floor.mean + 2 * floor.sd)
            results.append(GridResult(name, scale, ratio, steps, ess_model(log_w), gap, off))
    return results


def _claims(results: list[GridResult]) -> tuple[Claim, ...]:
    mixture = [result for result in results if result.target == "gmm40"]
    funnel = [result for result in results if result.target == "funnel"]
    even, falling = (
        [result for result in mixture if result.ratio == pick(each.ratio for each in mixture)]
        for pick in (min, max)
    )
    apart = [
        (b.ess.value - a.ess.value) / (a.ess.se**2 + b.ess.se**2) ** 0.5
        for a, b in zip(even, falling, strict=True)
    ]
    finest = max(result.steps for result in results)
    narrow, wide = (
        [
            result
            for result in funnel
            if result.steps == finest and (result.scale == NARROW) == is_narrow
        ]
        for is_narrow in (True, False)
    )
    least, best = min(result.distance for result in narrow), min(result.distance for result in wide)
    halved = min(
        result.distance for result in funnel if NARROW < result.scale and result.steps < finest
    )
    return (
        Claim(
            "On the mixture, noise that falls far raises what the optimum reaches at every "
            "number of steps",
            verdict(min(apart) > 2, min(apart) < -2),
            ", ".join(
                f"{a.steps} steps: ESS {a.ess.value:.2f} at ratio {a.ratio:g}, "
                f"{b.ess.value:.2f} at {b.ratio:g}"
                for a, b in zip(even, falling, strict=True)
            ),
        ),
        Claim(
            f"From a base of {NARROW:g} of the funnel's spread the optimum does not reach the "
            "mouth, however fine the grid",
            verdict(least > 2 * NEAR and best < NEAR, least < NEAR),
            f"at {finest} steps its draws are {least:.2g} times the floor's edge off, from wider "
            f"bases {best:.2g}",
        ),
        Claim(
            f"From a wide base {finest // 2} steps leave the optimum's draws more than "
            f"{NEAR} times the floor's edge off the funnel, {finest} do not",
            verdict(halved > NEAR and best < NEAR, halved < NEAR),
            f"{halved:.2g} and {best:.2g} times, at best over the bases",
        ),
    )


def _draw(path: Path, results: list[GridResult]) -> None:
    targets = list(BASES)
    with picture(path, 1, len(targets), (3.4, 2.6)) as (_, grid):
        for axes, name in zip(grid[0], targets, strict=True):
            for colour, (scale, ratio) in zip(COLOURS, BASES[name], strict=False):
                here = [result for result in results if result[:3] == (name, scale, ratio)]
                axes.errorbar(
                    [result.steps for result in here],
                    [result.ess.value for result in here],
                    [result.ess.se for result in here],
                    color=colour,
                    marker="o",
                    ms=3,
                    lw=1,
                    label=f"scale {scale:g}, ratio {ratio:g}",
                )
            axes.axhline(1, color=GREY, lw=0.6)
            axes.set_title(name)
            axes.set_xscale("log", base=2)
            axes.set_ylim(0, 1.05)
            axes.set_xlabel("steps K")
            axes.legend(fontsize=6)
        grid[0][0].set_ylabel("ESS of the optimum")


discretisation = Study("discretisation", "What the optimum scores on K steps", run)
