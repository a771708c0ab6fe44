"""How does the integral of a loss's conditional variance depend on the cut-off at both ends?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import Generator

from tiltbench.report.pictures.style import COLOURS, INK, picture
from tiltbench.studies.common.regression import sigmas
from tiltbench.studies.integrated_variance.claims import claims, explanation
from tiltbench.studies.integrated_variance.exact import gaussian_variance, integral
from tiltbench.studies.integrated_variance.integrated import (
    Array,
    Case,
    Integrals,
    Profile,
    at_the_end,
    by_pairs,
    by_paths,
    gauss,
    on_gaussian,
    on_mixture,
    slope,
    trapezoid,
    value,
)
from tiltbench.studies.integrated_variance.lean_moment import chain, halves, lean_moment
from tiltbench.studies.integrated_variance.measured import EXPONENT, HALF, identity
from tiltbench.study import Answer, Study
from tiltbench.targets.bases.schedules import (
    Foellmer,
    RectifiedFlow,
    Schedule,
    Trigonometric,
    VariancePreserving,
)
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.densities.gmm9 import Gmm9
from tiltbench.targets.target import Density, Tilt
from tiltbench.targets.tilts.tilt_linear import TiltLinear
from tiltbench.targets.tilts.tilt_quadratic import TiltQuadratic

CUTS = (0.1, 0.03, 0.01, 0.003, 0.001)
FINE = (1e-4, 3e-5, 1e-5)  # where powers and logarithms are fitted
REPLICATES, PAIRS, PATHS, DRAWS = 16, 400, 512, 10_000  # pairs a node, paths, draws a replicate
ORDER, PATH_STEP, GRID_STEP = 6, 0.08, 0.16  # nodes a piece; steps in log-odds
REACH, POINTS = 5.5, 96  # of the plane of `lean_moment`
MEAN, VAR = 1.2, 0.3  # math.md 11
IDENTITY_DRAWS = 20_000
CURVE = 25  # points of a curve

_BOTH = (RectifiedFlow(), VariancePreserving())
_NORMAL = Gaussian(dim=1, mean=MEAN, std=math.sqrt(VAR))
PROBLEMS: tuple[tuple[Density | Tilt, Schedule], ...] = (
    *((_NORMAL, s) for s in (*_BOTH, Trigonometric(), Foellmer())),
    *((Gmm9(), s) for s in _BOTH),
    *((TiltLinear(schedule=s), s) for s in _BOTH),
    *((TiltQuadratic(schedule=s), s) for s in _BOTH),
)
TINT = dict(zip(("CSM", "TSM", "NSM", "AM", "AS"), COLOURS, strict=False))


ASIDE = {"NSM": 1.1, "AS": 0.9}  # of the cut-off: NSM, AM and AS may coincide


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    integrals = [
        measure(target, schedule, Generator(device).manual_seed(seed))
        for seed, (target, schedule) in enumerate(PROBLEMS)
    ]
    pulls = identity(IDENTITY_DRAWS)
    _draw(folder / "integrated_variance.png", integrals)
    table = DataFrame([_table_row(f, loss) for f in integrals for loss in TINT if loss in f.whole])
    return Answer(table, explanation(integrals, pulls), claims(integrals, pulls))


def _knots(cuts: tuple[float, ...]) -> tuple[float, ...]:
    return (*sorted(cuts), 0.2, 0.5, *(1 - c for c in sorted(cuts, reverse=True)))


def _pose(target: Density | Tilt, schedule: Schedule, rule: Any) -> Case:
    """gaussian on N(0, 1), as in math.md 11; other densities on their public scale."""
    if isinstance(target, Tilt):
        return on_mixture(target, rule)
    return on_gaussian(target, schedule, 1.0 if target == _NORMAL else target.scale, rule)


def measure(target: Density | Tilt, schedule: Schedule, source: Generator) -> Integrals:
    cuts = (*CUTS, *FINE)
    rule, line = gauss(_knots(cuts), ORDER), trapezoid(_knots(cuts), PATH_STEP)
    case, walked = _pose(target, schedule, rule), _pose(target, schedule, line)
    runs = [by_pairs(case, PAIRS, source) for _ in range(REPLICATES)]
    pairs = {name: np.stack([r[name] for r in runs]) for name in runs[0]}
    windows = np.stack([rule.over(c, 1 - c) for c in cuts])
    whole = {name: pairs[name] @ windows.T for name in ("CSM", "TSM", "NSM", "AS", "u*")}
    paths = by_paths(walked, REPLICATES * PATHS, source).reshape(-1, REPLICATES, PATHS)
    whole["AM"] = paths.mean(-1).T @ np.stack([line.over(c, 1 - c) for c in cuts]).T
    drift = whole.pop("u*").mean(0)
    exact = {name: np.full(len(cuts), math.nan) for name in whole}
    profile = None
    if target == _NORMAL:
        exact = {name: _closed(name, schedule, cuts) for name in whole}
    if isinstance(target, Tilt):
        del whole["AS"]  # c grad r is the lean adjoint of a Gaussian base only
        held = sigma_square(walked) * lean_moment(walked, REACH, POINTS, chain)
        exact["AM"] = np.stack([line.over(c, 1 - c) for c in cuts]) @ held - drift
        carried = line.over(CUTS[-1], 1 - CUTS[-1]) @ paths.reshape(len(line.times), -1)
        profile = _profile(target, carried, drift[: len(CUTS)], source)
    return Integrals(
        target.name, schedule, case.problem.dim, cuts, len(FINE), whole,
        pairs["CSM"] @ np.stack([rule.over(0.5, 1 - c) for c in cuts]).T,
        pairs["TSM"] @ np.stack([rule.over(c, 0.5) for c in cuts]).T,
        at_the_end(case, DRAWS, REPLICATES, source),
        exact,
        profile,
    )  # fmt: skip


def _closed(loss: str, schedule: Schedule, cuts: tuple[float, ...]) -> Array:
    def at(t: float) -> float:
        return gaussian_variance(loss, schedule, t, VAR, 1.0)

    return np.array([integral(at, c, 1 - c) for c in cuts])


def _profile(tilt: Tilt, carried: Array, drift: Array, source: Generator) -> Profile:
    """carried: AM's integral of each path; drift: int E|u*|^2 dt at CUTS.  The integral of E|a|^2
    is extrapolated from two steps of order two."""
    rules = [trapezoid(_knots(CUTS), step) for step in (GRID_STEP / 2, GRID_STEP)]
    cases = [on_mixture(tilt, rule) for rule in rules]
    powers = [sigma_square(c) * lean_moment(c, REACH, POINTS, halves) for c in cases]
    small, large = (
        np.stack([rule.over(c, 1 - c) for c in CUTS]) @ power
        for rule, power in zip(rules, powers, strict=True)
    )
    second = small + (small - large) / 3
    runs = [by_pairs(cases[0], PAIRS // 4, source) for _ in range(REPLICATES)]
    squares = {name: np.stack([r[name] for r in runs]) for name in ("CSM", "NSM", "u*")}
    # by the factor of the integral: it hardly depends on t where AM matters
    lean = powers[0] * second[-1] / small[-1] - squares.pop("u*").mean(0)
    top = np.sort(carried)[-max(1, len(carried) // 100) :].sum() / carried.sum()
    change = float(abs(second[-1] / small[-1] - 1))
    return Profile(
        rules[0].times, squares, lean, second - drift, float(top), change,
        len(trapezoid(_knots((*CUTS, *FINE)), PATH_STEP).times) + 1,
    )  # fmt: skip


def sigma_square(case: Case) -> Array:
    return np.array(sigmas(case.base))[1:-1] ** 2


def _table_row(f: Integrals, loss: str) -> dict[str, Any]:
    means = [value(column) for column in f.whole[loss].T]
    n, tail = len(CUTS), f.cuts[-f.fitted :]
    if loss == "CSM":
        what, fitted = "slope in log 1/δ at t → 1", slope(f.upper[:, -f.fitted :], tail)
        expected = 2 * HALF[f.schedule.name] * f.dim
    elif loss == "TSM":
        what, fitted = "power of 1/δ at t → 0", slope(np.log(f.lower[:, -f.fitted :]), tail)
        expected = EXPONENT[f.schedule.name]
    else:
        grown = f.whole[loss][:, n - 1] / f.whole[loss][:, n - 2] - 1
        what, fitted, expected = f"growth from {CUTS[-2]} to {CUTS[-1]}", value(grown), 0.0
    zs = [(m.mean - e) / m.se for m, e in zip(means, f.exact[loss], strict=True) if e == e]
    return {
        "target": f.target,
        "schedule": f.schedule.name,
        "loss": loss,
        **{f"δ = {c:g}": str(m) for c, m in zip(CUTS, means, strict=False)},
        "fitted": what,
        "measured": str(fitted),
        "expected": expected,
        f"exact at δ = {CUTS[-1]}": float(f.exact[loss][n - 1]),
        "worst z to exact": max(zs, key=abs) if zs else math.nan,
        "as K → ∞": float(f.profile.limit[-1]) if f.profile and loss == "AM" else math.nan,
    }


def _draw(path: Path, integrals: list[Integrals]) -> None:
    shown = [f for f in integrals if f.profile and f.schedule.name == "RectifiedFlow"]
    columns = 4
    rows = math.ceil((len(integrals) + len(shown)) / columns)
    with picture(path, rows, columns, (3.1, 2.8)) as (_, grid):
        for axes, f in zip(grid.flat, integrals, strict=False):
            _integrals(axes, f)
        for axes, f in zip(list(grid.flat)[len(integrals) :], shown, strict=False):
            _times(axes, f)
        for axes in list(grid.flat)[len(integrals) + len(shown) :]:
            axes.set_visible(False)
        grid[0, 0].legend(fontsize=7)


def _integrals(axes: Any, f: Integrals) -> None:
    n = len(CUTS)
    for loss in TINT:
        if loss not in f.whole:
            continue
        means = [value(column) for column in f.whole[loss].T[:n]]
        at = np.array(CUTS) * ASIDE.get(loss, 1.0)
        axes.errorbar(at, [m.mean for m in means], [2 * m.se for m in means],
                      color=TINT[loss], fmt="o", ms=3, lw=1, label=loss)  # fmt: skip
        if f.target == _NORMAL.name:
            places = np.geomspace(CUTS[-1], CUTS[0], CURVE)
            exact = _closed(loss, f.schedule, tuple(places.tolist()))
            axes.plot(places, exact, color=TINT[loss], lw=0.8)
        else:
            axes.plot(CUTS, f.exact[loss][:n], color=TINT[loss], lw=0.8)
    if f.profile:
        axes.plot(CUTS, f.profile.limit, color=TINT["AM"], lw=1.2, ls="--")
    else:
        axes.axhline(value(f.ends.bound).mean, color=INK, lw=0.7, ls=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.set_title(f.label)
    axes.set_xlabel("cut-off δ at both ends")
    axes.set_ylabel("∫ E tr Cov(T|X) dt")


def _times(axes: Any, f: Integrals) -> None:
    assert f.profile is not None
    for loss, rows in f.profile.squares.items():
        axes.plot(f.profile.times, rows.mean(0), color=TINT[loss], lw=1, label=loss)
    axes.plot(f.profile.times, f.profile.lean, color=TINT["AM"], lw=1.4, label="AM, K → ∞")
    axes.set_yscale("log")
    axes.set_ylim(0.05, None)
    axes.set_title(f"{f.label}, each time")
    axes.set_xlabel("time t")
    axes.set_ylabel("E tr Cov(T|X)")
    axes.legend(fontsize=7)


integrated_variance = Study(
    "integrated_variance", "Integrated conditional variance against the cut-off", run
)
