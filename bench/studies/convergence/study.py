"""How fast does each estimator of log Z converge in the step size?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import curve_fit
from torch import Generator, Tensor

from tiltbench.estimators import jarzynski, reverse
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.report.pictures.style import GREY, picture
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.common.trained import shaken, trained
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.bases.process import Path as Steps
from tiltbench.targets.problem import Problem, pose

STEPS = (4, 8, 16, 32, 64)
PATHS, CHUNK = 100_000, 20_000
POINTS, LEARNED = 20_000, 32  # calls and steps of the training of a control, where there is one
SMALL = "model=Mlp[width=32,layers=3]"
# sqrt 2 std > scale = sqrt(mean^2 + std^2): the reverse weights of u = 0 have a finite variance
WIDE = "gaussian[mean=0.4,std=0.8]"


class Case(NamedTuple):
    """An estimator, both ways, with one control at every number of steps {K}."""

    panel: str
    name: str
    target: str
    sampler: str
    exact: bool  # whether it claims no bias at any K
    shake: float  # size of a random last layer; 0: the control is trained instead
    corrected: bool = False  # weights of the law of the base, not of its chain (math.md 5.1)


CASES = (
    Case("path weights", "Gaussian base", WIDE,
         f"log_variance[reference=Brownian[steps={{K}}],{SMALL}]", True, 0.3),
    Case("path weights", "ancestral chain", "tilt_linear[steps={K}]",
         f"log_variance[{SMALL}]", False, 0.0),
    Case("path weights", "Euler chain", "tilt_linear[steps={K},stepping=Constant[level=1]]",
         f"log_variance[{SMALL}]", False, 0.0),
    Case("Crooks", "static base", WIDE,
         f"cmcd_lv[reference=Stationary[steps={{K}}],{SMALL}]", True, 0.3),
    Case("Crooks", "pretrained base", "tilt_linear[steps={K}]",
         f"cmcd_lv[{SMALL}]", False, 0.0),
    Case("Jarzynski", "pretrained base", "tilt_linear[steps={K}]",
         f"nets_pinn[{SMALL}]", False, 0.5),
    Case("path weights", "ancestral chain, corrected to its law", "tilt_linear[steps={K}]",
         f"log_variance[{SMALL}]", True, 0.0, True),
    Case("path weights", "Euler chain, corrected to its law",
         "tilt_linear[steps={K},stepping=Constant[level=1]]",
         f"log_variance[{SMALL}]", True, 0.0, True),
    Case("Crooks", "pretrained base, corrected to its law", "tilt_linear[steps={K}]",
         f"cmcd_lv[{SMALL}]", True, 0.0, True),
)  # fmt: skip
SIDES = {"forward": ("#332288", "o"), "backward": ("#cc6677", "s")}


class ErrorSeries(NamedTuple):
    """log Z estimate - log Z at each of STEPS."""

    case: Case
    side: str
    errors: list[Estimate]

    @property
    def name(self) -> str:
        return f"{self.case.panel}, {self.side}, {self.case.name}"


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    series = [one for case in CASES for one in _error_series(case, device)]
    _draw(folder / "convergence.png", series)
    words = (
        f"Bias of log Z with {PATHS:,} paths against the number of steps K, forward from the "
        "model's own paths and backward from exact target draws. The forms that claim to be exact "
        "at any K without the law of the base (math.md 5.1) have a random control that has "
        "nothing to do with the problem, and so has Jarzynski; the others one that was trained "
        f"with {POINTS:,} calls at K = {LEARNED} and is the same at every K, so that the paths' "
        "scatter does not hide the bias. (Backward weights of a random control have an infinite "
        "variance where the base is wider than sqrt 2 times the target, so the Gaussian is not "
        f"narrower: `{WIDE}`.) *Order* is p of a fit a K^p to all K, where three biases or more "
        "are above three errors. *Limit* is c of a fit c + a/K + b/K^2 to all K."
    )
    return Answer(DataFrame([_table_row(one) for one in series]), words, _claims(series))


def _table_row(one: ErrorSeries) -> dict[str, str | float]:
    return {
        "estimator": one.name,
        **{f"K = {k}": _text(e) for k, e in zip(STEPS, one.errors, strict=True)},
        "claims": "exact at any K" if one.case.exact else "O(1/K)",
        f"z at K = {STEPS[0]}": one.errors[0].value / one.errors[0].se,
        "order": "–" if one.case.exact else _order(*slope_of(one.errors)),
        "limit": _text(limit_of(one.errors)),
    }


def _claims(series: list[ErrorSeries]) -> tuple[Claim, ...]:
    exact = {one.name: one.errors for one in series if one.case.exact}
    biased = {one.name: one.errors for one in series if not one.case.exact}
    first = max(abs(e[0].value / e[0].se) for e in exact.values())
    worst = max(abs(e.value / e.se) for errors in exact.values() for e in errors)
    fitted = {name: slope_of(errors) for name, errors in biased.items()}
    orders = {name: pair for name, pair in fitted.items() if not math.isnan(pair[0])}
    above = [(slope + 1) / se for slope, se in orders.values()]
    limits = [limit_of(errors) for errors in biased.values()]
    off = max(abs(e.value / e.se) for e in limits)
    return (
        Claim(
            "Path weights of a Gaussian base, Crooks weights of a static base, and both of a "
            "mixture base where they are told of its law, are exact at any number of steps, "
            "forward and backward.",
            verdict(first < 4 and worst < 4, first > 5),
            f"The furthest is {first:.1f} standard errors from log Z at K = {STEPS[0]}, "
            f"{worst:.1f} at any K ({len(exact) * len(STEPS)} estimates).",
        ),
        Claim(
            "All other forms converge to log Z as K grows.",
            verdict(off < 3.5, off > 5),
            f"Extrapolated by c + a/K + b/K^2, {len(limits)} of them end within {off:.1f} standard "
            f"errors of log Z (themselves {min(e.se for e in limits):.4f} to "
            f"{max(e.se for e in limits):.4f}).",
        ),
        Claim(
            "Their bias falls at least as fast as 1/K.",
            verdict(bool(above) and max(above) < 3, bool(above) and max(above) > 5),
            "Fitted orders: "
            + "; ".join(f"{name} {_order(*pair)}" for name, pair in orders.items())
            + f". {len(biased) - len(orders)} have too few resolved biases to fit one.",
        ),
    )


def _error_series(case: Case, device: str) -> list[ErrorSeries]:
    taught = None
    if not case.shake:
        taught = trained(*_built(case, LEARNED), POINTS, device)
    errors_of: dict[str, list[Estimate]] = {side: [] for side in SIDES}
    for steps in STEPS:
        target, sampler = _built(case, steps)
        state = taught or shaken(trained(target, sampler, 0, device), case.shake)
        truth, problem = target.truth(), sampler.posed(pose(target, sampler.reference))
        source = Generator(device).manual_seed(steps)
        ahead: list[Tensor] = []
        back: list[Tensor] = []
        for _ in range(PATHS // CHUNK):
            ends = truth.sample(CHUNK, source).float()
            with torch.no_grad():
                forth = sampler.recipe.simulate(problem, state.model, CHUNK, source)
                behind = sampler.recipe.retrace(problem, state.model, ends, source)
                for path, weights in ((forth, ahead), (behind, back)):
                    whole = sampler.recipe.weighed(problem, state.model, path)
                    weights.append(_weight(case, problem, whole).cpu())
        both = jarzynski(torch.cat(ahead)), reverse(torch.cat(back))
        for side, estimate in zip(errors_of, both, strict=True):
            errors_of[side].append(estimate._replace(value=estimate.value - truth.log_Z))
    return [ErrorSeries(case, side, errors) for side, errors in errors_of.items()]


def _weight(case: Case, problem: Problem, path: Steps) -> Tensor:
    chain = problem.reward(path.x[-1]).double() - problem.base.log_ratio(path)
    return chain + problem.base.log_law_over_chain(path) if case.corrected else chain


def _built(case: Case, steps: int) -> tuple[Any, Any]:
    target = build_target(parse(case.target.format(K=steps)))
    return target, build_sampler(parse(case.sampler.format(K=steps)))


def limit_of(errors: list[Estimate]) -> Estimate:
    """c of c + a/K + b/K^2, by least squares weighted with the errors."""
    powers = np.arange(min(3, len(STEPS)))
    weight = np.array([1 / e.se for e in errors])
    design = np.array(STEPS, dtype=float)[:, None] ** -powers * weight[:, None]
    covariance = np.linalg.inv(design.T @ design)
    c = covariance @ design.T @ (weight * [e.value for e in errors])
    return Estimate(float(c[0]), math.sqrt(float(covariance[0, 0])), len(errors))


def slope_of(errors: list[Estimate]) -> tuple[float, float]:
    """p of the law a K^p, by least squares weighted with the errors, and its error.

    From all K and with the sign: to leave out biases that are not resolved would keep the lucky
    ones.  nan where fewer than three are above three errors."""
    if sum(abs(e.value) > 3 * e.se for e in errors) < 3:
        return math.nan, math.nan

    def law(k: Any, a: float, p: float) -> Any:
        return a * (k / STEPS[0]) ** p

    values, spread = [e.value for e in errors], [e.se for e in errors]
    start = (values[0], -1.0)
    fit, covariance = curve_fit(law, STEPS, values, start, spread, absolute_sigma=True)
    return float(fit[1]), math.sqrt(float(covariance[1, 1]))


def _order(slope: float, se: float) -> str:
    return "no bias resolved" if math.isnan(slope) else f"{slope:.2f} ± {se:.2f}"


def _text(error: Estimate) -> str:
    return f"{error.value:+.4f} ± {error.se:.4f}"


def _draw(path: Path, series: list[ErrorSeries]) -> None:
    """Signed biases where none is claimed, sizes on logarithmic axes elsewhere, the negative ones
    hollow."""
    cases = list(dict.fromkeys(one.case for one in series))
    with picture(path, -(-len(cases) // 3), 3, (3.3, 2.6)) as (figure, grid):
        for axes, case in zip(grid.flat, sorted(cases, key=lambda c: not c.exact), strict=False):
            shown = [one for one in series if one.case is case]
            for i, one in enumerate(shown):
                at = [k * 1.06 ** (2 * i - 1) for k in STEPS]
                _points(axes, at, one)
            axes.set_title(f"{case.panel}, {case.name}")
            axes.set_xscale("log", base=2)
            axes.set_xticks(STEPS, [str(k) for k in STEPS])
            axes.set_xlabel("steps K")
            if case.exact:
                axes.axhline(0, color=GREY, lw=0.7)
                axes.set_ylabel("bias of log Z (nats)")
                continue
            size = max(abs(e.value) for one in shown for e in one.errors)
            axes.plot(STEPS, [size * STEPS[0] / k for k in STEPS], color=GREY, ls=":", lw=1)
            axes.set_yscale("log")
            axes.set_ylim(3e-4, 3 * size)
            axes.set_ylabel("|bias of log Z| (nats)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        figure.suptitle("hollow: below log Z; dotted: 1/K; bars: 1 standard error", fontsize=9)


def _points(axes: Any, at: list[float], one: ErrorSeries) -> None:
    tint, marker = SIDES[one.side]
    values = [e.value if one.case.exact else abs(e.value) for e in one.errors]
    axes.errorbar(at, values, [e.se for e in one.errors], color=tint, lw=1, elinewidth=0.8)
    axes.plot([], [], color=tint, marker=marker, ms=4, lw=1, label=one.side)
    for x, y, e in zip(at, values, one.errors, strict=True):
        fill = tint if e.value > 0 or one.case.exact else "white"
        axes.plot(x, y, color=tint, marker=marker, ms=4, mfc=fill)


convergence = Study("convergence", "Order of convergence of every estimator of log Z", run)
