"""Histograms of log-weights from both sides: they meet at log Z where the sampler is good."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from tiltbench.metric import Outcome
from tiltbench.records.record import Record
from tiltbench.report.pictures.axes import span
from tiltbench.report.pictures.scatter import first_runs, outcomes
from tiltbench.report.pictures.style import GREY, INK, picture, plain, size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def weights(
    path: Path, runs: Path, log_Z: float | None, records: list[Record], colour: Mapping[str, str]
) -> bool:
    """A panel for each sampler with weights (first finished seed): log_w - log Z of its own paths
    filled, of paths from exact draws as an outline.  False where no sampler has weights."""
    pairs = {}
    for name, outcome in outcomes(runs, first_runs(records)).items():
        forward, backward = sides(outcome, log_Z)
        if len(forward) > 1:
            pairs[name] = (forward, backward)
    if not pairs:
        return False
    from matplotlib.patches import Patch

    columns = min(len(pairs), 4)
    rows = math.ceil(len(pairs) / columns)
    with picture(path, rows, columns, (2.9, 2.1)) as (figure, grid):
        panels = list(grid.flat)
        for axes in panels[len(pairs) :]:
            axes.remove()
        for axes, (name, (forward, backward)) in zip(panels, pairs.items(), strict=False):
            _panel(axes, name, forward, backward, log_Z is not None, colour[name])
        handles = [Patch(color=GREY, alpha=0.45), Patch(fill=False, edgecolor=INK)]
        names = ["forward paths", "reverse paths, from exact draws"]
        figure.legend(handles, names, loc="outside upper left", ncols=2, fontsize=8)
        label = "log_w − log Z  (nats)" if log_Z is not None else "log_w  (nats)"
        figure.supxlabel(label, fontsize=9)
    return True


def _panel(
    axes: Axes, name: str, forward: np.ndarray, backward: np.ndarray, known: bool, colour: str
) -> None:
    low, high = window(forward, backward, known)
    bins = np.linspace(low, high, 50).tolist()
    axes.hist(forward.clip(low, high), bins, density=True, color=colour, alpha=0.45)
    if len(backward):
        seen = backward.clip(low, high)
        axes.hist(seen, bins, density=True, histtype="step", color=INK, lw=1.1)
    if known:
        axes.axvline(0, color=INK, lw=0.8, ls=":")
    axes.set_yticks([])
    axes.set_title(plain(name), fontsize=size_of(name))


def sides(outcome: Outcome, log_Z: float | None) -> tuple[np.ndarray, np.ndarray]:
    """log_w - log Z (0 where it is not known) of a run's forward paths and of its reverse paths,
    from exact draws, where they are finite; empty where there are none."""
    return _finite(outcome.draws.log_w, log_Z), _finite(outcome.log_w_reverse, log_Z)


def window(forward: np.ndarray, backward: np.ndarray, known: bool) -> tuple[float, float]:
    """What a histogram of both shows: nearly all of them, and 0 where log Z is `known`.  Where it
    is not, the low tail of weights that carry nothing is cut at 8 interquartile ranges."""
    both = np.concatenate([forward, backward])
    low, high = np.quantile(both, [0.005, 0.995])
    if known:
        low, high = min(low, 0.0), max(high, 0.0)
    else:
        low = max(low, span([both])[0])
    margin = 0.05 * (high - low) + 1e-3
    return low - margin, high + margin


def _finite(log_w: Tensor | None, log_Z: float | None) -> np.ndarray:
    if log_w is None:
        return np.empty(0)
    log_w = log_w.double()
    return (log_w[log_w.isfinite()] - (log_Z or 0.0)).numpy()
