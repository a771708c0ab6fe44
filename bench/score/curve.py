"""The learning curve of one run: error of log Z and distance at each spend."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from tiltbench import estimators
from tiltbench.metric import Metric, Outcome, Unknown
from tiltbench.metrics._congruence import least
from tiltbench.plan.spec import METRICS
from tiltbench.records.files import read_arrays
from tiltbench.samplers.sampler import Draws
from tiltbench.score.floor import Floors
from tiltbench.targets.target import Target, Truth

DISTANCES = ("config_w2", "energy_distance")  # samplers are placed by the first there is


ENERGY = "energy_w2"  # shown beside it in the learning curves of particles


def curve_scores(
    runs: Path, run: str, target: Target, truth: Truth, floors: Floors
) -> dict[str, Any] | None:
    """Error of log Z and distance at each spend (calls); null where there is no number."""
    path = runs / f"{run}.curve.npz"
    if not path.exists():
        return None
    arrays = read_arrays(path)
    spends, x = arrays["spend"].tolist(), arrays["x"].double()
    n = x.shape[1]
    log_w = arrays.get("log_w", torch.full(x.shape[:2], torch.nan))
    name = curve_distance(target)
    metric: Metric = METRICS.load(name)
    rows = []
    for points, weights in zip(x, log_w, strict=True):
        row: dict[str, Any] = {"log_Z_err": None, "log_Z_se": None, "distance": None, ENERGY: None}
        weights = weights[~weights.isnan()]
        if len(weights) and truth.log_Z is not None:
            value, se, _ = estimators.jarzynski(weights)
            row |= {"log_Z_err": value - truth.log_Z, "log_Z_se": se}
        points = points[points.isfinite().all(-1)]
        if 1 < len(points) <= truth.held and truth.sample is not None:
            made = metric.fn(target, truth, Outcome(Draws(points), None, {}), Generator())
            row["distance"] = made.value
            if target.particles:
                row[ENERGY] = _energy(target, truth, points)
        rows.append(row)
    floor, second = floors.get(n, {}).get(name), floors.get(n, {}).get(ENERGY)
    energy: dict[str, Any] = {}
    if target.particles:
        energy[ENERGY] = [row[ENERGY] for row in rows]
    if energy and second:
        energy["floor_" + ENERGY] = {"mean": second.mean, "sd": second.sd, "n": n}
    clock = {"seconds": arrays["seconds"].tolist()} if "seconds" in arrays else {}
    return {
        "spend": spends,
        **clock,
        "n": n,
        "metric": name,
        **{key: [row[key] for row in rows] for key in ("log_Z_err", "log_Z_se", "distance")},
        "floor": {"mean": floor.mean, "sd": floor.sd, "n": n} if floor else None,
        **energy,
    }


def curve_distance(target: Target) -> str:
    """That of DISTANCES which the target has."""
    aligned = target.particles and least(*target.particles)
    return DISTANCES[0] if aligned else DISTANCES[1]


def _energy(target: Target, truth: Truth, points: Tensor) -> float | None:
    """None where a draw has no density."""
    try:
        made = METRICS.load(ENERGY).fn(target, truth, Outcome(Draws(points), None, {}), Generator())
    except Unknown:
        return None
    return float(made.value) if math.isfinite(made.value) else None
