"""Which estimator of log Z is best at equal calls, and does it know its own error?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from tiltbench.estimators import overlap
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.report.pictures.style import GREY, PALE, picture
from tiltbench.run.meter import Meter
from tiltbench.samplers.weights import Estimate, ess
from tiltbench.studies.common.trained import trained
from tiltbench.studies.estimators.claims import claims
from tiltbench.studies.estimators.measured import Result
from tiltbench.studies.estimators.repeated import DIRECTIONS, bias, coverage, repeat, rmse, sd
from tiltbench.study import Answer, Study
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Target

CALLS = (256, 1024, 4096)
REPETITIONS, CHUNK = 200, 8192
TRAINING = 100_000  # calls
SMALL = "model=Mlp[width=32,layers=3]"


class Family(NamedTuple):
    name: str
    sampler: str
    exact: bool  # E[exp A] = Z at any number of steps


class Setting(NamedTuple):
    target: str
    families: tuple[Family, ...]


SETTINGS = (
    Setting(
        "gaussian[dim=3]",
        (
            Family("path weights", f"log_variance[reference=Brownian[steps=16],{SMALL}]", True),
            Family("Crooks", f"cmcd_lv[reference=Stationary[steps=16],{SMALL}]", True),
            Family("Jarzynski", f"nets_pinn[reference=Stationary[steps=16],{SMALL}]", False),
        ),
    ),
    Setting(
        "tilt_linear[steps=20]",
        (
            Family("path weights", f"log_variance[{SMALL}]", True),
            Family("Crooks", f"cmcd_lv[{SMALL}]", True),
            Family("Jarzynski", f"nets_pinn[{SMALL}]", False),
        ),
    ),
)
CONTROLS = {"untrained": 0.0, "trained": 1.0}  # the part of TRAINING
COLOURS = {"path weights": "#332288", "Crooks": "#cc6677", "Jarzynski": "#117733"}
LINES = {"forward": ("-", "^"), "reverse": (":", "v"), "Bennett": ("--", "o")}


class Side(NamedTuple):
    log_w: Tensor  # (REPETITIONS, paths), float64
    price: Cost  # of a path


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    results: list[Result] = []
    prices: dict[str, Cost] = {}
    rarest: dict[str, float] = {}
    for setting in SETTINGS:
        target = build_target(parse(setting.target))
        modes = target.truth().modes
        if modes is not None:
            rarest[setting.target.split("[")[0]] = float(modes.weight.min())
        for control, part in CONTROLS.items():
            for family in setting.families:
                sides = pools_of(target, family, int(part * TRAINING), device)
                prices[f"{family.name} on {setting.target}"] = sides[0].price
                results += _results(setting, control, family, target, sides)
    _draw(folder / "estimators.png", results)
    return Answer(
        DataFrame([_table_row(r) for r in results]),
        _explanation(prices) + _missed(rarest, results),
        claims(results),
    )


def pools_of(target: Target, family: Family, points: int, device: str) -> tuple[Side, Side]:
    """Pools of independent log-weights, forward and reverse, for the largest of CALLS."""
    sampler: Any = build_sampler(parse(family.sampler))
    state = trained(target, sampler, points, device)
    truth = target.truth()
    assert truth.sample is not None
    exact = truth.sample

    def forward(problem: Any, n: int, source: Generator) -> Tensor:
        log_w: Tensor = sampler.draw(problem, state, n, source).log_w
        return log_w

    def backward(problem: Any, n: int, source: Generator) -> Tensor:
        log_w: Tensor = sampler.reverse(problem, state, exact(n, source), source).log_w
        return log_w

    sides = []
    for seed, draw in enumerate((forward, backward)):
        trial = Meter(Cost(10**9, 10**9))
        draw(pose(target, sampler.reference, trial.watch), 64, Generator(device).manual_seed(0))
        price = Cost(trial.spent.values // 64, trial.spent.grads // 64)
        n = REPETITIONS * (max(CALLS) // price.calls)
        meter = Meter(price.times(n))  # refuses anything beyond
        problem = pose(target, sampler.reference, meter.watch)
        source = Generator(device).manual_seed(11 + seed)
        counts = [min(CHUNK, n - start) for start in range(0, n, CHUNK)]
        pool = torch.cat([draw(problem, count, source).cpu() for count in counts])
        sides.append(Side(pool.reshape(REPETITIONS, -1), price))
    return sides[0], sides[1]


def _results(
    setting: Setting, control: str, family: Family, target: Target, sides: tuple[Side, Side]
) -> list[Result]:
    log_Z = target.truth().log_Z
    assert log_Z is not None
    forward, backward = (side.log_w for side in sides)
    each = (sides[0].price.calls, sides[1].price.calls)
    quality = {
        "forward": ess(forward.flatten()),
        "reverse": ess(-backward.flatten()),
        "Bennett": overlap(forward.flatten(), backward.flatten()).value,
    }
    results = []
    for name, direction in DIRECTIONS.items():
        counts = [direction.paths(calls, each) for calls in CALLS]
        results.append(
            Result(
                setting.target, control, family.name, name, family.exact, log_Z,
                direction.estimate(forward.flatten(), backward.flatten()), quality[name],
                [sum(pair) for pair in counts],
                [repeat(direction, forward, backward, pair) for pair in counts],
            )
        )  # fmt: skip
    return results


def _table_row(r: Result) -> dict[str, str | float]:
    last = r.repeated[-1]
    return {
        "setting": r.setting.split("[")[0],
        "control": r.control,
        "estimator": f"{r.family}, {r.direction}",
        "paths": r.paths[-1],
        "ESS or overlap": r.quality,
        "bias": _pm(bias(last, r.log_Z)),
        "of which the chain": "exact" if r.exact else _pm(_offset(r)),
        "sd": _pm(sd(last)),
        "mean reported se": float(last.se.mean()),
        "rmse": float(rmse(last, r.log_Z).value),
        **{
            f"log Z covered, {calls} calls": _pm(coverage(repeated, r.log_Z))
            for calls, repeated in zip((CALLS[0], CALLS[-1]), (r.repeated[0], last), strict=True)
        },
        "own limit covered": _pm(coverage(last, r.aim)),
    }


def _offset(r: Result) -> Estimate:
    return r.limit._replace(value=r.limit.value - r.log_Z)


def _pm(e: Estimate) -> str:
    digits = max(2, min(4, 1 - math.floor(math.log10(e.se)))) if 0 < e.se < math.inf else 3
    return f"{e.value:.{digits}f} ± {e.se:.{digits}f}"


def _explanation(prices: dict[str, Cost]) -> str:
    paid = "; ".join(f"{name} {p.values} and {p.grads}" for name, p in prices.items())
    return (
        f"log Z from {', '.join(map(str, CALLS))} calls, {REPETITIONS} independent times "
        f"each, the control untrained (u = 0) or trained with {TRAINING:,} calls. Values and "
        f"gradients a path, as the meter counts them: {paid}; a gradient comes with its value, so "
        "calls are the larger of the two. Bennett spends half of its calls on either side. "
        "*Reverse and Bennett start from exact target draws, which cost no call here and which "
        "nobody has in practice*: they are a benchmark's privilege. Escorts are exact at any K on "
        "the density (Crooks) or as K grows (Jarzynski, and everything on the mixture base): *of "
        f"which the chain* is what all {REPETITIONS} blocks of paths together are off by, the rest "
        "of the bias is the logarithm's. ESS is that of the pooled weights on the estimate's own "
        "side; reverse path weights of the untrained control on the Gaussian have an infinite "
        "variance, since the base is wider than the target by more than a factor of sqrt 2. On the "
        "mixture base path weights trace exact draws back by the base's kernels, whose joint law "
        "is not that of the chain: untrained they cancel and reverse is exact, trained it is off "
        "by O(1/K), not by what forward is off. Intervals are "
        "value ± 1.96 reported standard errors; coverage carries its binomial error. In the figure "
        "the band is where a coverage of 95 % falls 95 times in 100."
    )


def _missed(rarest: dict[str, float], results: list[Result]) -> str:
    """How often a few exact draws leave out the smallest mode."""
    sentences = ""
    for name, weight in rarest.items():
        n = min(
            r.paths[0] for r in results if r.setting.startswith(name) and r.direction != "Bennett"
        )
        sentences += (
            f" With {n} paths reverse intervals on `{name}` cannot cover: {(1 - weight) ** n:.2f} "
            f"of the repetitions have no exact draw from its smaller mode (mass {weight:.3f}), "
            "where the weights differ most, and their scatter does not tell."
        )
    return sentences


def _draw(path: Path, results: list[Result]) -> None:
    panels = list(dict.fromkeys((r.setting, r.control) for r in results))
    with picture(path, len(panels), 3, (3.5, 2.3)) as (figure, grid):
        for row, (setting, control) in zip(grid, panels, strict=True):
            shown = [r for r in results if (r.setting, r.control) == (setting, control)]
            for i, r in enumerate(shown):
                _plot(row, r, 1.05 ** (i - len(shown) / 2))
            row[0].set_yscale("log")
            row[1].axhline(0, color=GREY, lw=0.7)
            row[1].set_yscale("symlog", linthresh=0.01)
            width = 1.96 * math.sqrt(0.95 * 0.05 / REPETITIONS)
            row[2].axhspan(0.95 - width, min(0.95 + width, 1), color=PALE)
            row[2].axhline(0.95, color=GREY, lw=0.7)
            row[2].set_ylim(-0.03, 1.03)
            names = ("rmse (nats)", "bias (nats)", "coverage of log Z")
            for axes, name in zip(row, names, strict=True):
                axes.set_xscale("log", base=2)
                axes.set_xticks(CALLS, [f"{c:,}" for c in CALLS])
                axes.minorticks_off()
                axes.set_ylabel(name)
            row[1].set_title(f"{setting.split('[')[0]}, {control}")
        for axes in grid[-1]:
            axes.set_xlabel("calls an estimate")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)


def _plot(row: Any, r: Result, shift: float) -> None:
    line, marker = LINES[r.direction]
    panels = [
        [rmse(repeated, r.log_Z) for repeated in r.repeated],
        [bias(repeated, r.log_Z) for repeated in r.repeated],
        [coverage(repeated, r.log_Z) for repeated in r.repeated],
    ]
    for axes, values in zip(row, panels, strict=True):
        axes.errorbar(
            [calls * shift for calls in CALLS], [e.value for e in values], [e.se for e in values],
            color=COLOURS[r.family], ls=line, marker=marker, ms=3.5, lw=1, elinewidth=0.7,
            label=f"{r.family}, {r.direction}",
        )  # fmt: skip


estimators = Study("estimators", "Estimators of log Z at equal calls, and their error bars", run)
