"""Do forward and backward weights cross at log Z?  Crooks' identity, on a tilt and a density."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Generator, Tensor

from tiltbench.estimators import NoOverlap, bar, elbo, eubo, jarzynski, overlap, reverse
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.report.pictures.style import INK, picture
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.common.trained import trained
from tiltbench.study import Answer, Study
from tiltbench.targets.problem import pose

CASES = {  # target: (sampler, points of training)
    "tilt_linear": ("cmcd_lv[paths=128]", 300_000),
    "gmm9": ("cmcd_lv[paths=128]", 3_000_000),
}
PATHS = 20_000


class Sides(NamedTuple):
    forward: Tensor
    backward: Tensor
    log_Z: float


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    cases = {}
    for target, (method, points) in CASES.items():
        cases[f"{target}, untrained"] = _weights(target, method, 0, device)
        cases[f"{target}, {points:,} points"] = _weights(target, method, points, device)
    _draw(folder / "fluctuation.png", cases)
    table = DataFrame([_table_row(name, sides) for name, sides in cases.items()])
    worst = (table["Bennett error"].abs() / table["± se"]).max()
    words = (
        f"Log-weights of {PATHS:,} forward and {PATHS:,} backward paths of `cmcd_lv`. Crooks: "
        "p_fwd(a) exp(a) = Z p_bwd(a), so the histograms cross at log Z, trained or not. On the "
        "tilt, with weights against the law of its base (math.md 5.1), they do so exactly at any "
        "number of steps, as on the density. *Slope* is that of log p_bwd/p_fwd against "
        f"a where both sides have paths: 1 by the identity. Bennett errs by at most {worst:.1f} "
        "standard errors."
    )
    return Answer(table, words)


def _weights(name: str, method: str, points: int, device: str) -> Sides:
    target, sampler = build_target(parse(name)), build_sampler(parse(method))
    truth = target.truth()
    assert truth.sample is not None and truth.log_Z is not None
    state = trained(target, sampler, points, device)
    problem = pose(target, sampler.reference)
    source = Generator(device).manual_seed(3)
    draws = sampler.draw(problem, state, PATHS, source)
    traced = sampler.reverse(problem, state, truth.sample(PATHS, source), source)
    assert draws.log_w is not None and traced is not None
    return Sides(draws.log_w.cpu(), traced.log_w.cpu(), truth.log_Z)


def _table_row(name: str, sides: Sides) -> dict[str, str | float]:
    forward, backward, log_Z = sides
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoOverlap)
        both = bar(forward, backward)
    slope, cross = crossing_of(sides)
    return {
        "case": name,
        "log Z": log_Z,
        "ELBO": elbo(forward).value,
        "EUBO": eubo(backward).value,
        "forward": _with_error(jarzynski(forward)),
        "reverse": _with_error(reverse(backward)),
        "Bennett error": both.value - log_Z,
        "± se": both.se,
        "overlap": overlap(forward, backward).value,
        "histograms cross at": cross,
        "slope": slope,
    }


def _with_error(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ± {estimate.se:.3f}"


def crossing_of(sides: Sides) -> tuple[float, float]:
    """(slope, root) of the straight line log(p_bwd / p_fwd) = slope (a - root), fitted to bins
    with 50 paths or more on both sides, by inverse variance."""
    forward, backward = sides.forward.numpy(), sides.backward.numpy()
    low, high = np.quantile(backward, 0.001), np.quantile(forward, 0.999)
    if not low < high:
        return math.nan, math.nan
    edges = np.linspace(low, high, 31)
    f, b = (np.histogram(side, edges)[0] for side in (forward, backward))
    populated = (f >= 50) & (b >= 50)
    if populated.sum() < 3:
        return math.nan, math.nan
    middle = (edges[1:] + edges[:-1])[populated] / 2
    ratio = np.log(b[populated] / len(backward)) - np.log(f[populated] / len(forward))
    slope, at = np.polyfit(middle, ratio, 1, w=1 / np.sqrt(1 / f[populated] + 1 / b[populated]))
    return float(slope), float(-at / slope)


def _draw(path: Path, cases: dict[str, Sides]) -> None:
    with picture(path, len(cases) // 2, 2, (4.2, 2.5)) as (figure, grid):
        for axes, (name, (forward, backward, log_Z)) in zip(grid.flat, cases.items(), strict=True):
            both = np.concatenate([forward.numpy(), backward.numpy()])
            low, high = np.quantile(both, [0.002, 0.998])
            bins = np.linspace(low, high, 61).tolist()
            axes.hist(forward.numpy(), bins, density=True, color="#332288", alpha=0.45)
            axes.hist(backward.numpy(), bins, density=True, histtype="step", color=INK, lw=1.2)
            heights, edges = np.histogram(forward.numpy(), bins, density=True)
            middle = (edges[1:] + edges[:-1]) / 2
            shown = heights > 0
            moved = heights[shown] * np.exp(middle[shown] - log_Z)
            axes.plot(middle[shown], moved, ".", color="#cc6677", ms=3)
            axes.set_ylim(0, 1.25 * max(axes.get_ylim()[1] * 0.8, heights.max()))
            axes.axvline(log_Z, color=INK, lw=0.8, ls=":")
            axes.set_title(name)
            axes.set_yticks([])
        figure.supxlabel(
            "log_w (nats): forward filled, backward outlined, forward × exp(log_w) / Z dotted",
            fontsize=9,
        )


fluctuation = Study("fluctuation", "Forward and backward weights cross at log Z", run)
