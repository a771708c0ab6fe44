"""What every varied parameter of a method does: a panel a parameter, a line a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tiltbench.report.frame import Frames
from tiltbench.report.pictures.style import GREY, HUES, MARKERS, fixed_ticks, picture, plain
from tiltbench.report.settings import Method, choice, methods, number, standings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 12  # panels
COLUMNS = 3
TOP = 12.0  # doublings at which a failed run is drawn


def sensitivity(path: Path, frames: Frames) -> bool:
    """The worst score over the edge of the noise floor, as a logarithm, against the value of each
    parameter that differs among the settings of a method: a point a setting and target, over all
    seeds; the line is the median of the settings that share the value.  False where there is
    nothing to draw."""
    panels = [(m, key) for m in methods(frames) if len(m.settings) > 1 for key in m.varied][:MOST]
    if not panels:
        return False
    scores = frames.scores
    seeds = sorted({int(seed) for seed in scores["seed"]})
    judgements, targets = standings(scores, seeds), choice(frames).targets
    if not any(judgements.values()):
        return False
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    with picture(path, rows, columns, (2.9, 2.3)) as (figure, axes):
        every_axes = list(axes.flat)
        for panel, (method, key) in zip(every_axes, panels, strict=False):
            values = _values(method, key)
            for i, target in enumerate(targets):
                off = [
                    judgements[target][s.label].doublings
                    if s.label in judgements[target]
                    else math.nan
                    for s in method.settings
                ]
                _plot_target(
                    panel, values, off, HUES[i % len(HUES)], MARKERS[i % len(MARKERS)], target
                )
            _axes(panel, method, key)
        for panel in every_axes[len(panels) :]:
            panel.set_visible(False)
        every_axes[0].set_ylabel("log2(worst score / floor)")
        handles, labels = every_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return True


def _values(method: Method, key: str) -> list[float]:
    """Numbers as they are, words and switches by their index among those that occur."""
    given = [setting.params.get(key) for setting in method.settings]
    if all(_numeric(value) for value in given):
        return [float(str(value)) for value in given]
    names = _names(method, key)
    return [float(names.index(number(value))) for value in given]


def _names(method: Method, key: str) -> list[str]:
    return list(dict.fromkeys(number(setting.params.get(key)) for setting in method.settings))


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plot_target(
    axes: Axes, values: Sequence[float], off: Sequence[float], colour: str, marker: str, target: str
) -> None:
    x, y = np.asarray(values), np.minimum(np.asarray(off, float), TOP)
    axes.plot(x, y, marker, color=colour, markersize=3.5, label=plain(target))
    levels = [
        (v, float(np.nanmedian(y[x == v]))) for v in np.unique(x) if np.isfinite(y[x == v]).any()
    ]
    if levels:
        axes.plot(*zip(*levels, strict=True), color=colour, linewidth=1)


def _axes(axes: Axes, method: Method, key: str) -> None:
    given = [setting.params.get(key) for setting in method.settings]
    axes.set_title(plain(method.name))
    axes.set_xlabel(plain(key))
    axes.axhline(0, color=GREY, linewidth=0.7)
    if not all(_numeric(value) for value in given):
        names = _names(method, key)
        axes.set_xticks(range(len(names)), [plain(name, 14) for name in names])
        return
    values = sorted({float(str(value)) for value in given})
    if values[0] > 0 and values[-1] >= 8 * values[0]:
        axes.set_xscale("log")
    if len(values) <= 6:
        fixed_ticks(axes.xaxis, values)
