"""What the page draws of a target, small enough to travel in it: points, contours, histograms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tiltbench.metric import Outcome
from tiltbench.metrics.distance_w2 import distances
from tiltbench.records.store import warn
from tiltbench.report.pictures.axes import span
from tiltbench.report.pictures.images import spread
from tiltbench.report.pictures.ramachandran import LEVELS, torus
from tiltbench.report.pictures.ramachandran import plane as angles_of
from tiltbench.report.pictures.scatter import view
from tiltbench.report.pictures.strips import reference
from tiltbench.report.pictures.weights import sides, window
from tiltbench.targets.target import Density, Target, Tilt

POINTS = 500  # of a run that are drawn
IMAGES = 25  # of a run that are drawn
COORDINATES = 4  # marginals of a target in many dimensions
BINS = 40
SIDE = 4096  # a coordinate in the plane is a whole number below it: two digits of base 64
DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
OVER_CONTOURS = "over the contours of the density (1, 2 and 3 sd from the highest mode)"
OVER_EXACT = "first two coordinates, over exact draws (grey)"

Json = dict[str, Any]


class Statistic(NamedTuple):
    """A statistic of draws, (n, D) -> values, whose law a histogram shows."""

    title: str
    of: Callable[[Tensor], Tensor]


def plane(target: Target, exact: Tensor, draws: Mapping[str, Tensor]) -> Json | None:
    """Draws in the plane of the first two coordinates or, of molecules, of two torsions: {"what" (a
    caption), "low", "high", "contours" (SVG paths; of 2-D densities and of torsions), "exact" and
    "runs" (points)}.  None for other particles, lattices and images, whose coordinates have no
    meaning one by one, and on the line."""
    on_torus = torus(target)
    if on_torus is not None:
        exact = on_torus.exact
        draws = {run: angles_of(target, x) for run, x in draws.items()}
        across, up = list(target.torsions())[:2]
        over = "over contours of the free energy of exact draws, " + LEVELS if len(exact) else ""
        what = f"{across} across and {up} upwards, −180° to 180°{over and ', ' + over}"
        return _plane(on_torus.low, on_torus.high, on_torus.grid, what, exact, draws)
    if target.dim < 2 or target.particles or target.lattice or target.pixels:
        return None
    seen = view(target, len(exact) or 1, list(draws.values()))
    if seen is not None:
        low, high, grid = seen.low, seen.high, seen.grid
    else:
        low, high = _box(exact if len(exact) else torch.cat(list(draws.values())))
        grid = None
    what = OVER_CONTOURS if grid is not None else OVER_EXACT
    return _plane(low, high, grid, what, exact, draws)


def _plane(
    low: Tensor,
    high: Tensor,
    grid: Tensor | None,
    what: str,
    exact: Tensor,
    draws: Mapping[str, Tensor],
) -> Json:
    return {
        "what": what,
        "low": low.tolist(),
        "high": high.tolist(),
        "contours": _contours(grid) if grid is not None else [],
        "exact": _points(exact, low, high),
        "runs": {run: _points(x, low, high) for run, x in draws.items()},
    }


def images(target: Target, exact: Tensor, draws: Mapping[str, Tensor]) -> Json | None:
    """Draws as images: {"rows", "columns", "exact" and "runs" (a letter a pixel, 64 greys)}.  None
    where the draws are no images."""
    if not target.pixels:
        return None
    rows, columns = target.pixels
    return {
        "rows": rows,
        "columns": columns,
        "exact": _greys(exact),
        "runs": {run: _greys(x) for run, x in draws.items()},
    }


def _greys(x: Tensor) -> str:
    """IMAGES of the draws, evenly spread, row by row."""
    levels = ((spread(x, IMAGES).clamp(-1, 1) + 1) * 31.5).round().long()
    return "".join(DIGITS[level] for level in levels.flatten().tolist())


def _box(x: Tensor) -> tuple[Tensor, Tensor]:
    """Nearly all of the first two coordinates, and a little more."""
    low, high = x[:, :2].quantile(torch.tensor([0.002, 0.998], dtype=x.dtype), dim=0)
    margin = 0.15 * (high - low) + 1e-9
    return low - margin, high + margin


def _points(x: Tensor, low: Tensor, high: Tensor) -> Json:
    """{"points": four digits of base 64 each, "outside": the share that the window does not hold}.

    At most POINTS of the draws, evenly spread."""
    kept = x[torch.linspace(0, len(x) - 1, min(len(x), POINTS)).round().long(), :2]
    inside = ((kept >= low) & (kept <= high)).all(-1)
    positions = ((kept[inside] - low) / (high - low) * (SIDE - 1)).round().long().tolist()
    text = "".join(DIGITS[c >> 6] + DIGITS[c & 63] for position in positions for c in position)
    return {"points": text, "outside": 1 - float(inside.double().mean()) if len(kept) else 0.0}


def decoded(text: str) -> list[list[float]]:
    """The points of `_points`, as shares of the window's sides."""
    digits = [DIGITS.index(c) for c in text]
    values = [(64 * a + b) / (SIDE - 1) for a, b in zip(digits[::2], digits[1::2], strict=True)]
    return [list(point) for point in zip(values[::2], values[1::2], strict=True)]


def _contours(grid: Tensor) -> list[str]:
    """SVG paths on a square of side 1000, y upwards, 1, 2 and 3 sd from the highest mode."""
    from contourpy import contour_generator

    scale = 1000 / (len(grid) - 1)
    generator = contour_generator(z=grid.clamp(min=-1e6).numpy())
    paths = []
    for level in (-4.5, -2.0, -0.5):
        lines: Iterable[Any] = generator.lines(level)
        rounded = (np.round(line * scale).astype(int).tolist() for line in lines)
        parts = ("M" + "L".join(f"{x} {y}" for x, y in line) for line in rounded)
        paths.append("".join(parts))
    return paths


def laws(target: Target) -> list[Statistic]:
    """What is worth a histogram: energies of densities; distances of particles, torsions of
    molecules, the mean field of lattices, the mean grey level of images, the first coordinates of
    others; the reward of a tilt."""
    shown = []
    if isinstance(target, Density):
        shown.append(Statistic("energy −log ρ (nats)", partial(_energy, target)))
    if target.particles:
        shown.append(
            Statistic("interatomic distance", partial(distances, space=target.particles[1]))
        )
    shown += [Statistic(f"{name} (rad)", angle) for name, angle in target.torsions().items()]
    if target.lattice:
        shown.append(Statistic("mean field", partial(torch.mean, dim=-1)))
    elif target.pixels:
        shown.append(Statistic("mean grey level", partial(torch.mean, dim=-1)))
    elif not (target.particles or target.torsions()):
        many = range(min(target.dim, COORDINATES))
        shown += [Statistic(f"x{i + 1}", partial(_coordinate, i)) for i in many]
    if isinstance(target, Tilt):
        shown.append(Statistic("reward (nats)", partial(_reward, target)))
    return shown


def _reward(target: Tilt, x: Tensor) -> Tensor:
    with torch.no_grad():
        return target.reward(x)


def _energy(target: Density, x: Tensor) -> Tensor:
    with torch.no_grad():
        return -target.log_rho(x)


def _coordinate(i: int, x: Tensor) -> Tensor:
    return x[:, i]


def histograms(law: Statistic, exact: Tensor, draws: Mapping[str, Tensor]) -> Json | None:
    """{"title", "low", "high", "exact", "runs"}: for exact draws and each run the shares in BINS
    equal bins, in thousandths; what is missing from 1,000 lies outside.  None where no value is
    finite."""
    known = _finite(law.of(exact)) if len(exact) else np.empty(0)
    values = {run: law.of(x).numpy() for run, x in draws.items()}
    finite = [of_run[np.isfinite(of_run)] for of_run in values.values()]
    if not len(known) and not any(map(len, finite)):
        return None
    low, high = np.quantile(known, [0.001, 0.999]) if len(known) else span(finite)
    margin = (high - low) / 3 + 1e-9
    bins = np.linspace(low - margin, high + margin, BINS + 1)
    return {
        "title": law.title,
        "low": float(bins[0]),
        "high": float(bins[-1]),
        "exact": _shares(known, bins),
        "runs": {run: _shares(of_run, bins) for run, of_run in values.items()},
    }


def _finite(values: Tensor) -> np.ndarray:
    return values[values.isfinite()].numpy()


def _shares(values: np.ndarray, bins: np.ndarray) -> list[float]:
    inside = values[np.isfinite(values)]
    return [round(1000 * n / max(len(values), 1), 1) for n in np.histogram(inside, bins)[0]]


def both_sides(outcome: Outcome, log_Z: float | None) -> Json | None:
    """Histograms of log_w - log Z, values beyond the window in its outermost bins: {"low", "high",
    "forward", "backward"}.  None for a run without weights."""
    forward, backward = sides(outcome, log_Z)
    if len(forward) < 2:
        return None
    low, high = window(forward, backward, log_Z is not None)
    bins = np.linspace(low, high, BINS + 1)
    return {
        "low": low,
        "high": high,
        "forward": _shares(forward.clip(low, high), bins),
        "backward": _shares(backward.clip(low, high), bins) if len(backward) else [],
    }


def views(target: Target | None, outcomes: Mapping[str, Outcome]) -> Json:
    """{"plane", "images", "laws", "weights"} of the runs of one target, by id, and whether log Z is
    "known"; of a target that cannot be built here only the weights.  What cannot be drawn is named
    on stderr and left out."""
    log_Z = target.truth().log_Z if target is not None else None
    both = {run: both_sides(outcome, log_Z) for run, outcome in outcomes.items()}
    weights = {run: histogram for run, histogram in both.items() if histogram}
    content: Json = {
        "plane": None,
        "images": None,
        "laws": [],
        "weights": weights,
        "known": log_Z is not None,
    }
    draws = {} if target is None else _sound(outcomes, target.dim)
    if target is None or not draws:
        return content
    exact = _tried(target, "exact draws", partial(reference, target))
    exact = torch.empty(0, target.dim, dtype=torch.float64) if exact is None else exact
    content["plane"] = _tried(target, "scatter", partial(plane, target, exact, draws))
    content["images"] = _tried(target, "images", partial(images, target, exact, draws))
    for law in laws(target):
        histogram = _tried(target, law.title, partial(histograms, law, exact, draws))
        content["laws"] += [histogram] if histogram else []
    return content


def _sound(outcomes: Mapping[str, Outcome], dim: int) -> dict[str, Tensor]:
    """The finite draws of the runs whose draws have the target's dimension."""
    x = {run: outcome.draws.x for run, outcome in outcomes.items()}
    finite = {
        r: points[points.isfinite().all(-1)]
        for r, points in x.items()
        if points.shape[1:] == (dim,)
    }
    return {run: points for run, points in finite.items() if len(points)}


def _tried(target: Target, what: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:  # the scores are shown all the same
        warn(f"no {what} of {target.name} in the page: {type(error).__name__}: {error}")
        return None
