"""A row for exact draws and one a sampler: measures of all draws, then some draws as they look."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from tiltbench.records.record import Record
from tiltbench.report.pictures.axes import span
from tiltbench.report.pictures.scatter import EXACT, first_runs, outcomes
from tiltbench.report.pictures.style import GREY, INK, picture, plain
from tiltbench.targets.target import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 6  # draws in a strip
MOST = 2000  # draws that are measured
WIDE, NARROW, HEIGHT = 2.3, 0.95, 1.02  # inches


class Sample(NamedTuple):
    """What a row shows: finite draws, and how many were not."""

    x: Tensor  # (n, D) float64
    lost: int


class Measure(NamedTuple):
    """A wide panel."""

    title: str
    draw: Callable[[Axes, Tensor, str], None]  # (axes, draws, colour)


def strips(
    path: Path,
    samples: Mapping[str, Sample],
    exact: Tensor,
    measures: Sequence[Measure],
    look: tuple[str, Callable[[Axes, Tensor, str], None]],
    colour: Mapping[str, str],
) -> None:
    """`look` is the caption of the strips and what draws one (D,) point on bare axes."""
    rows = {EXACT: Sample(exact, 0)} if len(exact) else {}
    rows |= samples
    widths = [WIDE] * len(measures) + [NARROW] * SHOWN
    size = (sum(widths) / len(widths), HEIGHT)
    with picture(path, len(rows), len(widths), size, widths) as (figure, grid):
        for index, (name, (x, lost)) in enumerate(rows.items()):
            line, last = grid[index], index == len(rows) - 1
            row_colour = INK if name == EXACT else colour[name]
            for axes, measure in zip(line, measures, strict=False):
                axes.set_yticks([])
                if len(x):
                    measure.draw(axes, x, row_colour)
                axes.tick_params(labelsize=7, length=2, labelbottom=last)
            label = plain(name) + (f"\n{lost} not finite" if lost else "")
            line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
            for axes, chosen in zip(line[len(measures) :], _spread(len(x)), strict=True):
                axes.set_axis_off()
                axes.set_anchor("N")
                if chosen is not None:
                    look[1](axes, x[chosen], row_colour)
        for axes, title in zip(grid[0], [m.title for m in measures] + [look[0]], strict=False):
            text = axes.annotate(
                title, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=8
            )
            text.set_in_layout(title != look[0])  # which is wider than its panel
        if len(exact):
            figure.supxlabel(
                f"{len(exact):,} {EXACT}, outlined in each row", fontsize=7, color=GREY
            )


def _spread(n: int) -> list[int | None]:
    if n < SHOWN:
        return [*range(n), *[None] * (SHOWN - n)]
    return [int(i) for i in np.linspace(0, n - 1, SHOWN).round()]


def gathered(runs: Path, records: list[Record]) -> dict[str, Sample]:
    """The draws of each sampler's first finished seed, at most 2,000 of them, spread evenly."""
    samples = {}
    for name, outcome in outcomes(runs, first_runs(records)).items():
        x = outcome.draws.x.double()
        x = x[torch.linspace(0, len(x) - 1, min(len(x), MOST)).round().long()]
        good = x.isfinite().all(-1)
        samples[name] = Sample(x[good], int((~good).sum()))
    return samples


def reference(target: Target) -> Tensor:
    """2,000 exact draws, or the most that there are of 1,000, 500 and 200; none where none are
    known."""
    sample = target.truth().sample
    for n in (MOST, 1000, 500, 200):
        if sample is None:
            break
        try:
            return sample(n, Generator().manual_seed(0)).double().cpu()
        except ValueError:  # a finite set that holds fewer
            continue
    return torch.empty(0, target.dim, dtype=torch.float64)


def histogram(
    statistic: Callable[[Tensor], Tensor], exact: Tensor, others: Sequence[Tensor]
) -> Callable[[Axes, Tensor, str], None]:
    """Draws the law of a statistic ((n, D) -> values), filled, over that of the exact draws, an
    outline.  The window holds the statistic of the exact draws, or where there are none the `span`
    of the `others`, and a third more on both sides; the share of the draws outside it is stated,
    not hidden."""
    known = _finite(statistic(exact))
    if len(known):
        low, high = np.quantile(known, [0.001, 0.999])
    else:
        low, high = span([_finite(statistic(x)) for x in others])
    margin = (high - low) / 3 + 1e-9
    bins = np.linspace(low - margin, high + margin, 51).tolist()
    top = max(np.histogram(known, bins)[0], default=0) / max(len(known), 1)

    def draw(axes: Axes, x: Tensor, colour: str) -> None:
        values = statistic(x).numpy()
        inside = values[(values >= bins[0]) & (values <= bins[-1])]
        axes.hist(inside, bins, weights=_equal(inside, values), color=colour, alpha=0.5)
        if len(known):
            axes.hist(known, bins, weights=_equal(known, known), histtype="step", color=INK, lw=0.9)
            axes.set_ylim(0, 2.2 * top)  # a narrow law is cut off: the outlines stay readable
        axes.set_xlim(bins[0], bins[-1])
        outside = 1 - len(inside) / len(values)
        if outside >= 0.0005:
            axes.text(0.98, 0.95, f"{outside:.1%} outside", transform=axes.transAxes, ha="right",
                      va="top", fontsize=7, color=GREY)  # fmt: skip

    return draw


def _finite(values: Tensor) -> np.ndarray:
    return values[values.isfinite()].numpy()


def _equal(inside: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.full(len(inside), 1 / max(len(values), 1))
