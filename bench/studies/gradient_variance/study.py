"""How noisy is the gradient of each loss?  tr Cov(g) and |E g|^2 at fixed theta (math.md 7 c)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tiltbench.plan.spec import build_target, parse
from tiltbench.run.meter import Meter
from tiltbench.studies.gradient_variance import cases as sources
from tiltbench.studies.gradient_variance.cases import Case
from tiltbench.studies.gradient_variance.claims import claims
from tiltbench.studies.gradient_variance.figures import draw
from tiltbench.studies.gradient_variance.gradients import Split, gradients, relative, split
from tiltbench.studies.gradient_variance.measured import HEAVY
from tiltbench.studies.gradient_variance.measurements import (
    FINISHED,
    HALFWAY,
    RANDOM,
    Fit,
    Measurement,
    Measurements,
    fitted,
    growth,
    shown,
)
from tiltbench.studies.gradient_variance.tail import tail
from tiltbench.study import Answer, Study
from tiltbench.targets.problem import pose

TILT, DENSITY = "tilt_linear", "gaussian"
SPECS = {TILT: "tilt_linear[dim={D},steps={K}]", DENSITY: "gaussian[dim={D}]"}
STEPS, DIMS, NEXT = 16, (2, 10, 50, 100), 11  # NEXT: the first D with Hutchinson's divergence
CALLS, BATCHES = 512, 24
OTHER_CALLS = (128, 1024)  # of the slope against the batch
UPDATES, LONG = 25, 400
COMPARED = {  # with what the base of a tilt does not serve: measured at every D on the density
    "adjoint_matching",
    "adjoint_matching_full",
    "conditional_score_matching",
    "target_score_matching",
    "novel_score_matching",
    "relative_entropy",
    "log_variance",
    "trajectory_balance",
}
SHARE = {RANDOM: 1e-9, HALFWAY: 0.75, FINISHED: 1.0}


class Place(NamedTuple):
    """A target at one D, with the states that are shared there by stage and teacher."""

    name: str
    dim: int
    device: str

    @property
    def target(self) -> Any:
        return build_target(parse(SPECS[self.name].format(D=self.dim, K=STEPS)))


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    every = list(sources.cases(STEPS))
    data = Measurements(list(_measured(every, device)))
    rows = [
        _table_row(case, name, data)
        for name in SPECS
        for case in sorted(every, key=lambda c: sources.FAMILIES.index(c.family))
        if data.has(name, case.name)
    ]
    draw(folder, data, DIMS)
    words = f"{_explanation(data)}\n\n{_why(every, device)}"
    return Answer(DataFrame(rows), words, claims(data, TILT, DENSITY, DIMS, NEXT))


def _measured(every: list[Case], device: str) -> Iterator[Measurement]:
    first = DIMS[0]
    for name in SPECS:
        for dim in DIMS:
            place = Place(name, dim, device)
            stages = (RANDOM, HALFWAY) if dim == first else (HALFWAY,)
            some = [c for c in every if dim == first or name == TILT or _needed(c, device)]
            yield from _measurements(place, some, stages, (CALLS,))
    escorts = [case for case in every if case.family == sources.ESCORT]
    yield from _measurements(Place(TILT, NEXT, device), escorts, (HALFWAY,), (CALLS,))
    yield from _measurements(Place(DENSITY, first, device), every, (HALFWAY,), OTHER_CALLS)
    yield from _measurements(Place(DENSITY, first, device), every, (FINISHED,), (CALLS,))


def _needed(case: Case, device: str) -> bool:
    return case.name in COMPARED or not sources.serves(case, Place(TILT, DIMS[0], device).target)


def _measurements(
    place: Place, every: list[Case], stages: tuple[str, ...], budgets: tuple[int, ...]
) -> Iterator[Measurement]:
    target, device = place.target, place.device
    by_name = {case.name: case for case in every}
    for stage in stages:
        trained_state = {RANDOM: _random, HALFWAY: _half, FINISHED: _whole}[stage]
        taught: dict[str, Any] = {}
        for case in every:
            if not sources.serves(case, target):
                continue
            teacher = sources.teacher(case)
            if teacher not in taught:
                taught[teacher] = trained_state(by_name[teacher], target, device)
            state = taught[teacher]
            if teacher != case.name:
                state = sources.lent(case, target, state, device)
            state = sources.settled(case, target, state, device)
            for calls in budgets:
                yield _measurement(place, case, stage, state, calls)


def _random(case: Case, target: Any, device: str) -> Any:
    return sources.begun(case, target, device)


def _half(case: Case, target: Any, device: str) -> Any:
    return sources.halfway(case, target, UPDATES, device)


def _whole(case: Case, target: Any, device: str) -> Any:
    return sources.finished(case, target, LONG, device)


def _measurement(place: Place, case: Case, stage: str, state: Any, calls: int) -> Measurement:
    paths = sources.paths_for(case, calls)
    sampler = replace(case.sampler, paths=paths)
    meter = Meter(sources.PLENTY)
    problem = pose(place.target, sampler.reference, meter.watch)
    share = SHARE[stage]
    if sampler.loss.staged:  # the first batch of a stage decides which model is frozen
        gradients(sampler, problem, state.model, share, 1, seed=1)
        meter.spent = sources.FREE
    g = gradients(sampler, problem, state.model, share, BATCHES, seed=1_000)
    paid = meter.spent.calls / BATCHES
    return Measurement(
        place.name, place.dim, stage, calls, case.name, case.family, paths, paid, split(g @ g.T)
    )


def _table_row(case: Case, name: str, data: Measurements) -> dict[str, Any]:
    first = data.at(name, case.name, DIMS[0], HALFWAY, CALLS)
    random = data.at(name, case.name, DIMS[0], RANDOM, CALLS)
    row: dict[str, Any] = {
        "target": name,
        "family": case.family,
        "loss": case.name,
        "paths a batch": first.paths,
        "calls a batch, metered": first.paid,
        f"ratio, D = {DIMS[0]}, random theta": shown(relative(random.split)),
        f"tr Cov, D = {DIMS[0]}, mid": first.split.noise,
        f"|E g|², D = {DIMS[0]}, mid": first.split.signal,
    }
    for dim in DIMS:
        measurement = data.get(name, case.name, dim, HALFWAY, CALLS)
        row[f"ratio, D = {dim}, mid"] = shown(relative(measurement.split)) if measurement else "–"
    row["power of D"] = fit_text(growth(data.over_dims(name, case.name, DIMS, HALFWAY, CALLS)))
    batches = data.over_calls(name, case.name, HALFWAY)
    row["power of the batch"] = fit_text(fitted(batches)) if len(batches) > 2 else "–"
    row["tr Cov trained / |E g|² random"] = _left(data, name, case.name, random.split)
    return row


def _left(data: Measurements, name: str, loss: str, random: Split) -> float:
    trained = data.get(name, loss, DIMS[0], FINISHED, CALLS)
    return trained.split.noise / random.signal if trained else float("nan")


def fit_text(fit: Fit) -> str:
    return "–" if np.isnan(fit.slope) else f"{fit.slope:.2f} ± {fit.se:.2f}"


def _why(every: list[Case], device: str) -> str:
    parts = []
    for dim in (DIMS[0], DIMS[-1]):
        heavy = tail(every, Place(TILT, dim, device).target, CALLS, UPDATES, device)
        parts.append(
            f"at D = {dim} it grows up to {heavy.growth:.0f}-fold going backward, and the one "
            f"largest path of {CALLS} makes {heavy.share:.0%} of the sum of squared targets of the "
            "median batch"
        )
    return (
        f"Why adjoint matching and relative entropy have heavy tails on `{TILT}`: its base is a "
        "mixture, and the lean adjoint of a path that passes between the modes grows: "
        f"{'; '.join(parts)}. Intervals of such a loss rest on a few paths and are too narrow: a "
        "loss whose noise one batch makes up by more than "
        f"{HEAVY:.0%} is never called the less noisy."
    )


def _explanation(data: Measurements) -> str:
    unresolved = [c for c in data.measurements if not relative(c.split).resolved]
    return (
        f"Gradients over {BATCHES} mini-batches at fixed theta, each of as many paths as {CALLS} "
        "energy calls pay for (metered; a gradient comes with its value; on the linear tilt "
        "`cmcd_kl` has no second gradient to pay, so its batch costs less than its price). "
        "tr Cov(g) and |E g|² are the unbiased split of the Gram matrix; brackets are 95 % "
        "bootstrap intervals over batches, pairs of copies of one batch left out. Where "
        "|E g|² ≤ 0 in more than 2.5 % of the draws there is no upper end and the lower one "
        f"is given (> …): so for {len(unresolved)} of {len(data.measurements)} estimates. What "
        "only F(t) depends on (log Z of trajectory balance, F of NETS) is left out of g, and "
        "fitted at the same theta beforehand. `mid`: half-way through a training of "
        f"{2 * UPDATES} updates, network Mlp({sources.NET.width}, {sources.NET.layers}), "
        f"{STEPS} steps. All losses for a control stand at one theta, taught by "
        f"{sources.TEACHER}; cmcd and nets_pinn at one taught by {sources.ESCORT_TEACHER}; "
        "nets_action (a potential), the adjoint Schroedinger bridge (a corrector, another base), "
        "dds (another base), sub-trajectory and detailed balance (a flow, whose parameters count "
        "in g) and tilt matching (a frozen stage: at its last stage, from tilt 3/4 "
        "to 1) at thetas of their own. "
        "`importance_fine_tuning` is the same function as `conditional_score_matching_plain`, and "
        "tempered weights are plain ones wherever their ESS is above 0.8: equal figures are no "
        "accident, for batch i of all methods starts from one seed. The ratio does not depend on "
        "the scale of a loss; tr Cov does."
    )


gradient_variance = Study(
    "gradient_variance", "Noise and signal in the gradient of every loss, at equal calls", run
)
