"""Draws of 2-D targets over the contours of their density."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from tiltbench.metric import Outcome
from tiltbench.records.record import Record, read_outcome
from tiltbench.records.store import warn
from tiltbench.report.pictures.axes import span
from tiltbench.report.pictures.style import GREY, INK, bare, picture, plain, size_of
from tiltbench.targets.target import Density, Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 1000  # points shown in a panel
EXACT = "exact draws"


class View(NamedTuple):
    """A window of the plane, and what the target looks like in it."""

    low: Tensor
    high: Tensor
    grid: Tensor | None  # (H, W) log density less its largest value
    exact: Tensor  # (n, 2); none where the target has no exact draws


def view(target: Target, n: int, others: Sequence[Tensor] = ()) -> View | None:
    """The window that holds the exact draws or, where there are none, the `span` of the `others`;
    None for other than two dimensions."""
    if target.dim != 2:
        return None
    truth = target.truth()
    if truth.sample is not None:
        exact = truth.sample(n, Generator().manual_seed(0)).double()
        low, high = exact.amin(0), exact.amax(0)
    elif others:
        exact = torch.empty(0, 2, dtype=torch.float64)
        ends = [span([x[x.isfinite().all(-1), i].numpy() for x in others]) for i in range(2)]
        low, high = torch.tensor(ends, dtype=torch.float64).T
    else:
        exact = torch.empty(0, 2, dtype=torch.float64)
        high = torch.full((2,), 2.5 * target.scale, dtype=torch.float64)
        low = -high
    middle, half = (low + high) / 2, 0.6 * (high - low).max()
    low, high = middle - half, middle + half
    return View(low, high, _grid(target, low, high), exact)


def _grid(target: Target, low: Tensor, high: Tensor, side: int = 200) -> Tensor | None:
    if not isinstance(target, Density):
        return None
    x = torch.linspace(float(low[0]), float(high[0]), side, dtype=torch.float64)
    y = torch.linspace(float(low[1]), float(high[1]), side, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    try:
        with torch.no_grad():
            log_rho = target.log_rho(points.reshape(-1, 2)).reshape(side, side)
    except Exception as error:  # a plug-in's fault; the draws can be shown without contours
        warn(f"no contours of {target.name}: {type(error).__name__}: {error}")
        return None
    return log_rho - log_rho.max()


def panel(axes: Axes, seen: View, x: Tensor, title: str, colour: str) -> None:
    """The draws (at most 1,000) over contours 1, 2 and 3 sd from the highest mode; the share of
    them outside the window is stated, not hidden."""
    low, high = seen.low.tolist(), seen.high.tolist()
    if seen.grid is not None:
        side = seen.grid.shape[0]
        axes.contour(
            np.linspace(low[0], high[0], side),
            np.linspace(low[1], high[1], side),
            seen.grid.numpy(),
            levels=[-4.5, -2.0, -0.5],
            colors=GREY,
            linewidths=0.5,
            linestyles="solid",
            alpha=0.7,
        )
    shown = x[:MOST]
    size = 5 if len(shown) > 500 else 9
    axes.scatter(
        shown[:, 0].numpy(), shown[:, 1].numpy(), s=size, color=colour, alpha=0.45, linewidths=0
    )
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set_aspect("equal", adjustable="box")
    bare(axes)
    axes.set_title(plain(title), color=INK, pad=4, fontsize=size_of(title))
    outside = float(((shown < seen.low) | (shown > seen.high)).any(-1).double().mean())
    if outside > 0:
        axes.text(0.97, 0.03, f"{outside:.1%} outside", transform=axes.transAxes, ha="right",
                  fontsize=7, color=GREY)  # fmt: skip


def first_runs(records: list[Record]) -> dict[str, Record]:
    """The finished run of the lowest seed, by sampler."""
    first: dict[str, Record] = {}
    for record in sorted(records, key=lambda r: (r.labels["sampler"], r.spec["seed"])):
        if record.status.finished:
            first.setdefault(record.labels["sampler"], record)
    return first


def outcomes(runs: Path, chosen: Mapping[str, Record]) -> dict[str, Outcome]:
    """What the chosen runs gave; those whose files cannot be read are named and left out, as are,
    silently, those of published sets, which have none."""
    by_name = {}
    for name, record in chosen.items():
        if not (runs / f"{record.id}.npz").exists():
            continue
        try:
            by_name[name] = read_outcome(runs, record.id)
        except Exception as error:
            again = f"delete {record.id}.json to run again"
            warn(f"{runs / record.id}.npz cannot be read ({error}); {again}")
    return by_name


def scatter(
    path: Path, runs: Path, target: Target, records: list[Record], colour: Mapping[str, str]
) -> bool:
    """A panel for the exact draws, if there are any, and one a sampler; False where the target is
    not 2-D."""
    chosen = outcomes(runs, first_runs(records))
    seen = view(target, MOST, [outcome.draws.x.double() for outcome in chosen.values()])
    if seen is None or not chosen:
        return False
    with panels(path, seen, {name: outcome.draws.x for name, outcome in chosen.items()}, colour):
        return True


@contextmanager
def panels(
    path: Path, seen: View, draws: Mapping[str, Tensor], colour: Mapping[str, str]
) -> Iterator[Figure]:
    """A figure with a panel for the exact draws, if there are any, and one a sampler."""
    first = int(len(seen.exact) > 0)
    count = len(draws) + first
    columns = min(count, 5)
    rows = math.ceil(count / columns)
    with picture(path, rows, columns, (2.3, 2.4)) as (figure, grid):
        every_axes = list(grid.flat)
        for axes in every_axes[count:]:
            axes.remove()
        if first:
            panel(every_axes[0], seen, seen.exact, EXACT, INK)
        for axes, (name, x) in zip(every_axes[first:], draws.items(), strict=False):
            panel(axes, seen, x, name, colour[name])
        yield figure
