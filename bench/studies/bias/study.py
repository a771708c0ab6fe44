"""Bias: the field E[T | X_t] that a loss regresses to when the end points are the control's own.

The current control is optimal for lambda r, lambda < 1, so that everything about it is closed form
(_regressed).  Weights w^beta of its paths turn the law of its end points q_lambda into q_lambda',
lambda' = lambda + beta (1 - lambda).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import Generator, Tensor

from tiltbench.samplers.losses._matching import LEAST_ESS
from tiltbench.samplers.weights import temper
from tiltbench.studies.bias.claims import claims, table_row
from tiltbench.studies.bias.figures import draw, draw_apart
from tiltbench.studies.bias.regressed import Bias, Points, closed, continued, judged, points
from tiltbench.studies.common.regression import targets
from tiltbench.studies.common.tilts import Tilting, flow, linear, mixture, quadratic
from tiltbench.study import Answer, Study
from tiltbench.targets.bases.components import Components
from tiltbench.targets.bases.schedules import RectifiedFlow, Schedule, VariancePreserving
from tiltbench.targets.tilts.tilt_linear import TiltLinear
from tiltbench.targets.tilts.tilt_quadratic import TiltQuadratic

POINTS, CONTINUED = 2_000, 300  # points a time, and of those the ones with continuations
DRAWS = 8  # end points a twin is the mean of
STEPS = 100
TIMES = tuple((i + 0.5) / 10 for i in range(10))  # midpoints of a rule for the integral over t
STRENGTHS = (0.0, 0.25, 0.5, 0.75)
SCHEDULES: dict[str, Schedule] = {
    "rectified flow": RectifiedFlow(),
    "variance preserving": VariancePreserving(),
}
APART = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # half the distance of two modes, in units of their sd
LATE = len(TIMES) // 2  # the times past 1/2


class World(NamedTuple):
    name: str
    law: Components  # p_base
    tilting: Tilting
    gaussian: bool  # adjoint sampling is defined, and adjoint matching the same


def worlds() -> tuple[World, ...]:
    pair, single = TiltLinear().base.law, mixture((1.0,), ((0.0, 0.0),), (1.0,))
    straight, bowl = linear(TiltLinear().slope), quadratic(TiltQuadratic().centre, 0.5)
    sharp = quadratic(TiltQuadratic().centre, 0.1)
    return (
        World("Gaussian base, linear r", single, straight, True),
        World("Gaussian base, quadratic r", single, bowl, True),
        World("Gaussian base, sharp r", single, sharp, True),
        World("bimodal base, linear r", pair, straight, False),
        World("bimodal base, quadratic r", pair, quadratic(TiltQuadratic().centre), False),
        World("bimodal base, sharp r", pair, sharp, False),
    )


def stage(world: World, schedule: str, strength: float, seed: int) -> list[Bias]:
    base = flow(world.law, SCHEDULES[schedule], STEPS)
    now, best = (world.tilting.law(world.law, v) for v in (strength, 1.0))
    source = Generator().manual_seed(seed)
    p = points(base, now, best, TIMES, POINTS, source)
    log_w = (1 - strength) * world.tilting.reward(now.sample(10_000, source))
    reached = strength + float(temper(log_w, LEAST_ESS)) * (1 - strength)
    biases = []
    for ends, goal in (("unweighted", strength), ("tempered", reached), ("full", 1.0)):
        law = world.tilting.law(world.law, goal)
        means = closed(p, world.tilting, law, goal)
        pair = [means_of(p, p.ends(law, DRAWS, source), world.tilting.slope) for _ in range(2)]
        with_adjoints = ends == "unweighted" and world.gaussian
        for loss in ("CSM", "TSM", "NSM", "AS")[: 4 if with_adjoints else 3]:
            head = (world.name, schedule, strength, ends, loss)
            biases.append(judged(head, p, (pair[0][loss], pair[1][loss]), means[loss], LATE))
    few = p.first(CONTINUED)
    twins = [
        continued(few, world.tilting, few.ends(now, DRAWS, source), source).mean(0)
        for _ in range(2)
    ]
    mean = closed(p, world.tilting, now, strength)["AM"]
    head = (world.name, schedule, strength, "unweighted", "AM")
    return [*biases, judged(head, p, (twins[0], twins[1]), mean, LATE)]


def means_of(p: Points, x1: Tensor, slope: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    labels = targets(p.base, p.k, p.x, x1, slope(x1))
    return {loss: y.mean(0) for loss, y in labels.items()}


def lopsided(half: float) -> list[Bias]:
    """Two modes N(+-half e_1, I) of equal weight on a Gaussian base, and a control that has their
    shapes but gives them .8 and .2."""
    places = ((-half, 0.0), (half, 0.0))
    best, now = (mixture(w, places, (1.0, 1.0)) for w in ((0.5, 0.5), (0.8, 0.2)))
    base = flow(mixture((1.0,), ((0.0, 0.0),), (best.mean_square(),)), RectifiedFlow(), STEPS)
    source = Generator().manual_seed(3)
    p = points(base, now, best, TIMES, POINTS, source)

    def slope(x: Tensor) -> Tensor:
        return best.score(x) - base.law.score(x)

    twins = [means_of(p, p.ends(now, DRAWS, source), slope) for _ in range(2)]
    name = f"modes at ±{half:g} sd, weights .8/.2"
    biases = []
    for loss in ("CSM", "TSM", "NSM"):
        head = (name, "rectified flow", math.nan, "unweighted", loss)
        mean = p.now if loss == "CSM" else None
        biases.append(judged(head, p, (twins[0][loss], twins[1][loss]), mean, LATE))
    return biases


def run(folder: Path, device: str) -> Answer:
    """Small tensors in float64: on the CPU whatever the device."""
    from pandas import DataFrame

    cases = [(w, s, v) for w in worlds() for s in SCHEDULES for v in STRENGTHS]
    biases = [b for i, case in enumerate(cases) for b in stage(*case, seed=2 * i + 10)]
    apart = {half: lopsided(half) for half in APART}
    draw(folder / "bias.png", TIMES, [b for b in biases if b.schedule == next(iter(SCHEDULES))])
    draw_apart(folder / "bias_2.png", apart)
    one = {w.name for w in worlds() if w.gaussian}  # where NSM, AS and AM are one target
    keys = dict.fromkeys(
        b.key for b in biases
        if b.ends != "full" and b.loss != "AS" and (b.loss, b.world in one) != ("AM", True)
    )  # fmt: skip
    rows = [table_row([b for b in biases if b.key == key], STRENGTHS) for key in keys]
    rows += [table_row([b], STRENGTHS) for some in apart.values() for b in some if b.loss != "CSM"]
    words = (
        "What one exact regression leaves of the squared error of the control: `left` = "
        "∫ E|E[T | X_t] − u*|² dt / ∫ E|u_λ − u*|² dt, the midpoint rule at "
        f"{len(TIMES)} times from {TIMES[0]:g} to {TIMES[-1]:g}, {POINTS:,} points X_t of the "
        "current control a time. 1 is no signal, below 1 progress, above 1 divergence if it went "
        "on. The current control is u_λ, optimal for the reward λ r. E[T | X_t] is closed form "
        "but for misweighted modes: u_λ for CSM, and u_λ/λ for AM, which at λ = 0 is "
        "σ grad E_base[r | X_t]. The points of the pictures and `z of twins` are from pairs of "
        f"targets drawn independently given X_t ({DRAWS} end points each; for AM continuations "
        f"at {CONTINUED:,} points). Tempered weights keep an ESS of {LEAST_ESS:g}. On a Gaussian "
        "base NSM, AS and AM are one target. Errors are those of the average over X_t; of the "
        "twins of AM on the bimodal base a few paths between the modes carry most of the mean, so "
        "that their errors understate. TSM overshoots by (1 − λ) σ/α grad r, which grows without "
        "bound as α → 0: its `left` is set by the first times. NSM's share w of it is right for a "
        "Gaussian of the base's own width; within a narrow mode it is too much."
    )
    return Answer(DataFrame(rows), words, claims(biases, apart))


bias = Study("bias", "The field a loss regresses to when end points are its own", run)
