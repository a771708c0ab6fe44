"""How fast does each estimator of log Z converge in the step size?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator

from tiltbench.estimators import jarzynski, reverse
from tiltbench.report.style import GREY, colours, picture
from tiltbench.samplers.weights import Estimate
from tiltbench.spec import build_sampler, build_target, parse
from tiltbench.studies._trained import shaken, trained
from tiltbench.study import Answer, Study
from tiltbench.targets.problem import pose

STEPS = (4, 8, 16, 32, 64)
PATHS, CHUNK = 100_000, 20_000


class Case(NamedTuple):
    """An estimator with a random, untrained control; {K} is the number of steps."""

    name: str
    target: str
    sampler: str
    backward: bool
    exact: bool  # whether it claims no bias at any K


CASES = (
    Case("path weights, forward, Gaussian base", "gaussian",
         "log_variance[reference=Brownian[steps={K}]]", False, True),
    Case("path weights, backward, Gaussian base", "gaussian",
         "log_variance[reference=Brownian[steps={K}]]", True, True),
    Case("path weights, forward, ancestral chain", "tilt_linear[steps={K}]",
         "log_variance", False, False),
    Case("path weights, backward, ancestral chain", "tilt_linear[steps={K}]",
         "log_variance", True, False),
    Case("path weights, forward, Euler chain",
         "tilt_linear[steps={K},stepping=Constant[level=1]]", "log_variance", False, False),
    Case("Crooks, forward, static base", "gaussian",
         "cmcd_lv[reference=Stationary[steps={K}]]", False, True),
    Case("Crooks, backward, static base", "gaussian",
         "cmcd_lv[reference=Stationary[steps={K}]]", True, True),
    Case("Crooks, forward, pretrained base", "tilt_linear[steps={K}]", "cmcd_lv", False, False),
    Case("Crooks, backward, pretrained base", "tilt_linear[steps={K}]", "cmcd_lv", True, False),
    Case("Jarzynski, forward, static base", "gaussian",
         "nets_pinn[reference=Stationary[steps={K}]]", False, False),
    Case("Jarzynski, forward, pretrained base", "tilt_linear[steps={K}]",
         "nets_pinn", False, False),
)  # fmt: skip


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    rows, found = [], {}
    for case in CASES:
        errors = [_error(case, steps, device) for steps in STEPS]
        found[case.name] = errors
        slope, se = _slope(errors)
        rows.append(
            {
                "estimator": case.name,
                **{f"K = {k}": _text(e) for k, e in zip(STEPS, errors, strict=True)},
                "claims": "exact at any K" if case.exact else "order in 1/K",
                f"z at K = {STEPS[0]}": errors[0].value / errors[0].se,
                "fitted slope": "–" if case.exact else _order(slope, se),
            }
        )
    _draw(folder / "convergence.png", found)
    table = DataFrame(rows)
    exact = table["claims"].str.startswith("exact")
    worst = table[exact][f"z at K = {STEPS[0]}"].abs().max()
    words = (
        f"Bias of log Z with {PATHS:,} paths of a random, untrained control, against the number of "
        f"steps K. The forms that claim to be exact at any K are within {worst:.1f} standard "
        f"errors of the truth at K = {STEPS[0]}. Slopes are those of log |bias| against log K, by "
        "least squares weighted with the errors, over the K whose bias is above three of them."
    )
    return Answer(table, words)


def _error(case: Case, steps: int, device: str) -> Estimate:
    target = build_target(parse(case.target.format(K=steps)))
    sampler: Any = build_sampler(parse(case.sampler.format(K=steps)))
    truth = target.truth()
    assert truth.sample is not None and truth.log_Z is not None
    state = shaken(trained(target, sampler, 0, device), 0.3)
    problem = pose(target, sampler.reference)
    source = Generator(device).manual_seed(steps)
    parts = []
    for _ in range(PATHS // CHUNK):
        if case.backward:
            traced = sampler.reverse(problem, state, truth.sample(CHUNK, source), source)
            parts.append(traced.log_w.cpu())
        else:
            parts.append(sampler.draw(problem, state, CHUNK, source).log_w.cpu())
    estimate = (reverse if case.backward else jarzynski)(torch.cat(parts))
    return estimate._replace(value=estimate.value - truth.log_Z)


def _slope(errors: list[Estimate]) -> tuple[float, float]:
    pairs = [(k, e) for k, e in zip(STEPS, errors, strict=True) if abs(e.value) > 3 * e.se]
    if len(pairs) < 3:
        return math.nan, math.nan
    x = np.log([k for k, _ in pairs])
    y = np.log([abs(e.value) for _, e in pairs])
    spread = np.array([e.se / abs(e.value) for _, e in pairs])
    (slope, _), covariance = np.polyfit(x, y, 1, w=1 / spread, cov="unscaled")
    return float(slope), float(math.sqrt(covariance[0, 0]))


def _order(slope: float, se: float) -> str:
    return "no bias resolved" if math.isnan(slope) else f"{slope:.2f} ± {se:.2f}"


def _text(error: Estimate) -> str:
    return f"{error.value:+.4f} ± {error.se:.4f}"


def _draw(path: Path, found: dict[str, list[Estimate]]) -> None:
    with picture(path, 1, 1, (7.2, 4.2)) as (_, grid):
        axes, tint = grid[0, 0], colours(found)
        for name, errors in found.items():
            axes.errorbar(
                STEPS,
                [abs(e.value) for e in errors],
                [e.se for e in errors],
                color=tint[name],
                lw=1,
                marker="o",
                ms=3,
                label=name,
            )
        guide = [0.5 / k for k in STEPS]
        axes.plot(STEPS, guide, color=GREY, ls=":", lw=1, label="1/K")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_ylim(1e-4, 3)
        axes.set_xlabel("steps K")
        axes.set_ylabel("|log Z estimate − log Z|  (nats)")
        axes.legend(fontsize=6.5, ncols=2)


convergence = Study("convergence", "Order of convergence of every estimator of log Z", run)
