"""Floors: what exact draws score, at the same number of draws (protocol.md 4).

A sample metric is not zero for a perfect sampler; its floor is the metric between two independent
exact sets, 20 times over.  Floors of the suites' targets ship in data/floors.json; others are
measured on demand and kept with the results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Generator, Tensor

from tiltbench.metric import KINDS, Metric, Outcome, of_kind
from tiltbench.plan.plugins import plugin_hash
from tiltbench.plan.spec import METRICS, Spec, build_target
from tiltbench.records.files import read_json, write_json
from tiltbench.run.streams import generator
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.settings import standard
from tiltbench.targets.target import Target, Truth

SHIPPED = Path(__file__).parents[1] / "data" / "floors.json"
REPETITIONS = 20
SIZES = (250, 500, 600, 1000, 2000)  # draws of the suites and of their learning curves
MOST = 2000  # draws that a comparison with exact ones uses: exact transport grows like the cube
COMPARED = frozenset({"sample", "modes", "observables"})  # with draws, so that a floor exists
SAMPLE_NEEDS = COMPARED | frozenset(KINDS)


def compared(n: int) -> int:
    """How many of n draws are compared with exact ones: the hundreds of n (five hundreds from 1,000
    on, 2,000 at most), so that runs which drew a few more or less share a floor."""
    if n < 100:
        return n
    return n // 100 * 100 if n < 1000 else min(n // 500 * 500, MOST)


class Floor(NamedTuple):
    """Mean and standard deviation of a metric over pairs of exact sets of n draws."""

    mean: float
    sd: float
    n: int
    repetitions: int = REPETITIONS

    def unfit(self, metric: Metric) -> bool:
        """Too noisy to rank by: a distance between points whose floor has sd above a third of its
        mean (where that is not 0 by design).  W2 on a funnel is set by a few far points.

        Distances on the line, as of energies, are exempt: without any heavy tail their floor is
        about as wide as its mean (|N(0, 1)|: 0.6 and 0.8), and 2 sd above it still tell."""
        distance = metric.perfect == "floor" and metric.needs == {"sample"}
        return distance and self.sd > self.mean / 3


TargetFloors = dict[
    str, Floor | None
]  # by `metric_key` of a metric; None: measured, and there is none
FloorTable = dict[str, TargetFloors]  # by target, version and number of draws


def floors_key(target: Spec, version: int, n: int, file: str = "") -> str:
    """The key of a target's floors: its complete spec, its version, the `truth_hash` of its name
    (nothing for the package's own) and the number of draws."""
    return f"{json.dumps(target, sort_keys=True)} v{version}{file and f' file {file}'} n={n}"


def metric_key(metric: str) -> str:
    """The name of a metric's floors in a table, with its `plugin_hash` where it is not the
    package's own and may change."""
    return f"{metric} {plugin_hash(metric)}".strip()


def sample_metrics() -> dict[str, Metric]:
    """The registered metrics that compare draws with the truth: those that have a floor."""
    loaded = {name: METRICS.load(name) for name in METRICS.entries}
    return {n: m for n, m in loaded.items() if m.needs & COMPARED and m.needs <= SAMPLE_NEEDS}


def draw_metrics() -> dict[str, Metric]:
    """Those that score a set of draws by itself or beside exact ones: `sample_metrics`, and what
    stands in for them where the law is unknown."""
    loaded = {name: METRICS.load(name) for name in METRICS.entries}
    alone = {
        n: m for n, m in loaded.items() if "unknown_law" in m.needs and m.needs <= SAMPLE_NEEDS
    }
    return {**sample_metrics(), **alone}


def known(metric: Metric, target: Target, truth: Truth) -> bool:
    """Whether the target is of the kind, and `truth` has what a sample metric needs."""
    have = {
        "sample": truth.sample is not None,
        "modes": truth.modes is not None,
        "observables": bool(truth.observables),
    }
    return all(have[n] if n in have else of_kind(n, target, truth) for n in metric.needs)


def measure(
    target: Target,
    metrics: Mapping[str, Metric],
    n: int,
    seed: int = 0,
    repetitions: int = REPETITIONS,
) -> TargetFloors:
    """The floors of `metrics`, None where the target's truth does not allow one.

    Each repetition takes 2 n exact draws at once and scores one half against the other, so that a
    finite reference set is split, not used twice; there is no floor where it holds fewer."""
    truth = target.truth()
    if truth.sample is None or short(truth, n):
        return dict.fromkeys(metrics)
    fit = {name: metric for name, metric in metrics.items() if known(metric, target, truth)}
    if not fit:
        return dict.fromkeys(metrics)
    stream = generator(seed, "floor", part=n)
    values: dict[str, list[float]] = {}
    for _ in range(repetitions):
        x, y = truth.sample(2 * n, stream).split(n)
        half = truth._replace(sample=partial(_first, y))
        outcome = Outcome(Draws(x), None, {})
        for name, metric in fit.items():
            try:
                value = metric.fn(target, half, outcome.copy(), stream).value
            except Exception:  # no floor; the scores say why
                value = math.nan
            values.setdefault(name, []).append(value)
    floors: TargetFloors = dict.fromkeys(metrics)
    for name, v in values.items():
        if np.isfinite(v).all():
            floors[name] = Floor(float(np.mean(v)), float(np.std(v, ddof=1)), n, repetitions)
    return floors


def short(truth: Truth, n: int) -> str:
    """Why n exact draws cannot be compared with n others; empty where they can."""
    if truth.sample is None or 2 * n <= truth.held:
        return ""
    return f"no floor: two sets of {n} exact draws cannot be had of {truth.held:.0f}"


def _first(points: Tensor, n: int, generator: Generator) -> Tensor:
    return points[:n].clone()


class BrokenFloors(ValueError):
    """A file of floors that cannot be used; the message names it and the remedy."""


def read_floors(path: Path) -> FloorTable:
    """The floors of a file; none where there is no file.  Raises BrokenFloors."""
    if not path.exists():
        return {}
    try:
        entries = read_json(path)["floors"]
        table: FloorTable = {}
        for e in entries:
            floors = table.setdefault(
                floors_key(e["target"], e["version"], e["n"], e.get("file", "")), {}
            )
            for name, pair in e["metrics"].items():
                mean, sd = pair or (math.nan, math.nan)
                floors[name] = Floor(mean, sd, e["n"], e["repetitions"]) if pair else None
        return table
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenFloors(
            f"{path} holds no floors ({error}); delete it: they are made anew"
        ) from error


def entry(
    target: Spec, version: int, n: int, floors: TargetFloors, file: str = ""
) -> dict[str, Any]:
    """What a file of floors holds of one target at one n; `file` as in `floors_key`."""
    return {
        "target": target,
        "version": version,
        "n": n,
        **({"file": file} if file else {}),
        "repetitions": REPETITIONS,
        "metrics": {
            metric_key(name): [float(f"{floor.mean:.6g}"), float(f"{floor.sd:.6g}")]
            if floor
            else None
            for name, floor in sorted(floors.items())
        },
    }


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def write_floors(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    about = (
        "metric: [mean, sd] between independent exact sets of n draws; made by `tiltbench floor`"
    )
    write_json(path, {"about": about, "floors": list(entries)})


@standard()
def regenerate(
    targets: Iterable[Spec], ns: Iterable[int] = SIZES, path: Path = SHIPPED
) -> list[dict[str, Any]]:
    """Measures every (target, n) anew and writes them to `path`; `targets` are complete specs.

    About 20 s a target at n = 1000 and 1 to 2 minutes at 2000, nearly all of it W2."""
    metrics, entries = sample_metrics(), []
    for spec in targets:
        target = build_target(spec)
        for n in ns:
            entries.append(entry(spec, target.version, n, measure(target, metrics, n)))
    write_floors(path, entries)
    return entries


Floors = Mapping[int, Mapping[str, Floor | None]]  # by number of draws, by metric
