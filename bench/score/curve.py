"""The learning curve of one run: error of log Z and distance at each spend."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Generator, Tensor

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._congruence import aligner
from tiltbench.plan.spec import METRICS
from tiltbench.records.files import read_arrays
from tiltbench.samplers.sampler import Draws
from tiltbench.score.floor import Floors
from tiltbench.score.result import CurvePoint, CurveScore
from tiltbench.targets.target import Target, Truth

DISTANCES = ("config_w2", "energy_distance")  # samplers are placed by the first there is


ENERGY = "energy_w2"  # shown beside it in the learning curves of particles


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
    return CurveScore(points, flops, seconds, n, name, here.get(name), energy, here.get(ENERGY))


def _point(spend: float, draws: Tensor, log_w: Tensor, target: Target, truth: Truth) -> CurvePoint:
    error, se, distance, energy = None, None, None, None
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
    return CurvePoint(spend, error, se, distance, energy)


def curve_distance(target: Target) -> str:
    """That of DISTANCES which the target has."""
    return DISTANCES[0] if aligner(target) else DISTANCES[1]


def _energy(target: Target, truth: Truth, points: Tensor) -> float | None:
    """None where a draw has no density."""
    try:
        made = METRICS.load(ENERGY).fn(target, truth, Outcome(Draws(points), None, {}), Generator())
    except Unknown:
        return None
    return float(made.value) if math.isfinite(made.value) else None
