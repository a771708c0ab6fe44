"""The learning curve of one run: error of log Z and distance at each spend; where there is nothing
to hold them against, what can be had without a truth."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Generator, Tensor

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome, Unknown, of_kind
from tiltbench.metrics._congruence import aligner
from tiltbench.plan.spec import METRICS
from tiltbench.records.files import read_arrays
from tiltbench.samplers.sampler import Draws
from tiltbench.score.floor import Floors
from tiltbench.score.result import CurvePoint, CurveScore
from tiltbench.targets.target import Target, Truth

DISTANCES = ("config_w2", "energy_distance")  # samplers are placed by the first there is
ENERGY = "energy_w2"  # shown beside it in the learning curves of particles
UNJUDGED = {  # metrics of curves without a truth, by what must hold of the target
    "log_Z_forward": ("unknown_log_Z",),
    "elbo": ("unknown_log_Z",),
    "ess_model": ("unknown_log_Z",),  # elsewhere it is never read alone
    "ksd": ("density", "unknown_law"),
}


def curve_scores(
    runs: Path, run: str, target: Target, truth: Truth, floors: Floors
) -> CurveScore | None:
    """None where the run has no learning curve."""
    path = runs / f"{run}.curve.npz"
    if not path.exists():
        return None
    arrays = read_arrays(path)
    x = arrays["x"].double()
    log_w = arrays.get("log_w", torch.full(x.shape[:2], torch.nan))
    n, name = x.shape[1], curve_distance(target)
    spends = arrays["spend"].tolist()
    points = tuple(
        _point(spend, draws, weights, target, truth)
        for spend, draws, weights in zip(spends, x, log_w, strict=True)
    )
    here = floors.get(n, {})
    seconds = tuple(arrays["seconds"].tolist()) if "seconds" in arrays else ()
    flops = tuple(arrays["flops"].tolist()) if "flops" in arrays else ()
    energy = ENERGY if target.particles else ""
    floors_here = here.get(name), energy, here.get(ENERGY)
    return CurveScore(points, flops, seconds, n, name, *floors_here, unjudged(target, truth))


def unjudged(target: Target, truth: Truth) -> tuple[str, ...]:
    """Those of UNJUDGED that a curve on this target has: estimates and weights where log Z is not
    known, ksd where no draws are."""
    return tuple(
        name
        for name, kinds in UNJUDGED.items()
        if all(of_kind(kind, target, truth) for kind in kinds)
    )


def _point(spend: float, draws: Tensor, log_w: Tensor, target: Target, truth: Truth) -> CurvePoint:
    error, se, distance, energy = None, None, None, None
    estimates = _estimates(target, truth, draws, log_w)
    log_w = log_w[~log_w.isnan()]
    if len(log_w) and truth.log_Z is not None:
        value, known, n = estimators.jarzynski(log_w)
        k = estimators.k_hat(log_w)  # the other side has no paths here
        error, se = value - truth.log_Z, None if k > estimators.steepest(n) else known
    draws = draws[draws.isfinite().all(-1)]
    if 1 < len(draws) <= truth.held and truth.sample is not None:
        metric: Metric = METRICS.load(curve_distance(target))
        distance = metric.fn(target, truth, Outcome(Draws(draws), None, {}), Generator()).value
        if target.particles:
            energy = _energy(target, truth, draws)
    return CurvePoint(spend, error, se, distance, energy, estimates)


def _estimates(
    target: Target, truth: Truth, draws: Tensor, log_w: Tensor
) -> dict[str, float | None]:
    """Values of `unjudged`, of the finite draws at one spend.  A curve keeps no groups: where draws
    share their weights, as those of islands do, only the mean weight says something."""
    known = draws.isfinite().all(-1)
    draws, log_w = draws[known], log_w[known]
    weighted = len(log_w) > 1 and not bool(log_w.isnan().any() or (log_w == torch.inf).any())
    shared = weighted and len(log_w.unique()) < len(log_w)
    estimates: dict[str, float | None] = {}
    for name in unjudged(target, truth):
        metric: Metric = METRICS.load(name)
        apt = (weighted and not (shared and name != "log_Z_forward")) or name == "ksd"
        estimates[name] = None
        if apt and len(draws) > 1:
            given = Draws(draws, log_w if weighted else None)
            estimates[name] = _value(metric, target, truth, given)
    return estimates


def _value(metric: Metric, target: Target, truth: Truth, draws: Draws) -> float | None:
    """None where the metric has no number."""
    try:
        estimate = metric.fn(target, truth, Outcome(draws, None, {}), Generator())
    except Unknown:
        return None
    return float(estimate.value) if math.isfinite(estimate.value) else None


def curve_distance(target: Target) -> str:
    """That of DISTANCES which the target has."""
    return DISTANCES[0] if aligner(target) else DISTANCES[1]


def _energy(target: Target, truth: Truth, points: Tensor) -> float | None:
    """None where a draw has no density."""
    return _value(METRICS.load(ENERGY), target, truth, Draws(points))
