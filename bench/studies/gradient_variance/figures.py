"""Pictures of the gradient study: against the dimension, sorted, and against the batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tiltbench.report.pictures.style import COLOURS, GREY, INK, picture
from tiltbench.studies.gradient_variance.cases import FAMILIES
from tiltbench.studies.gradient_variance.gradients import relative, spread_of_log
from tiltbench.studies.gradient_variance.measurements import (
    HALFWAY,
    RANDOM,
    Measurement,
    Measurements,
)

VARIANTS = {"_plain": "--", "_unweighted": ":", "_rejection": "--", "_kl": ":", "_full": "--"}


def draw(folder: Path, data: Measurements, dims: tuple[int, ...]) -> None:
    targets = list(dict.fromkeys(measurement.target for measurement in data.measurements))
    _over_dims(folder / "gradient_variance.png", data, targets, dims)
    _sorted(folder / "gradient_variance_sorted.png", data, targets, dims[0])
    _over_batches(folder / "gradient_variance_batch.png", data)


def _over_dims(path: Path, data: Measurements, targets: list[str], dims: tuple[int, ...]) -> None:
    with picture(path, len(targets), len(FAMILIES), (3.1, 4.0)) as (_, grid):
        for row, target in zip(grid, targets, strict=True):
            for axes, family in zip(row, FAMILIES, strict=True):
                styles = _styles(data, family)
                for i, (loss, (colour, line)) in enumerate(styles.items()):
                    measurements = data.over_dims(target, loss, dims, HALFWAY, data.calls)
                    _ratios(axes, measurements, 1.025 ** (i - len(styles) / 2), loss, colour, line)
                guide = [0.05 * d / dims[0] for d in dims]
                axes.plot(dims, guide, color=GREY, ls=(0, (1, 2)), lw=1, label="slope 1")
                axes.set_xscale("log")
                axes.set_yscale("log")
                axes.set_xticks(dims, [str(d) for d in dims])
                axes.minorticks_off()
                axes.set_title(f"{family}, {target}", color=INK)
                if target == targets[-1]:
                    axes.set_xlabel("dimension D")
                    _legend(axes)
            row[0].set_ylabel("tr Cov(g) / |E g|²  (mid-training)")
            low = min(axes.get_ylim()[0] for axes in row)
            high = max(axes.get_ylim()[1] for axes in row)
            for axes in row:
                axes.set_ylim(low, high)


def _ratios(
    axes: Any, measurements: list[Measurement], nudge: float, loss: str, colour: str, line: str
) -> None:
    """Points with intervals; an arrow up from the lower end where the upper one is unknown."""
    ratios = [(one.dim * nudge, relative(one.split)) for one in measurements]
    good = [(d, r) for d, r in ratios if r.resolved]
    open_ = [(d, r) for d, r in ratios if not r.resolved and math.isfinite(r.low)]
    if not ratios:
        return
    axes.errorbar(
        [d for d, _ in good],
        [r.value for _, r in good],
        [[max(r.value - r.low, 0) for _, r in good], [max(r.high - r.value, 0) for _, r in good]],
        color=colour, ls=line, lw=1, marker="o", ms=2.5, elinewidth=0.6, label=loss,
    )  # fmt: skip
    lows = [r.low for _, r in open_]
    axes.errorbar(
        [d for d, _ in open_], lows, [1.5 * low for low in lows], lolims=True,
        color=colour, ls="", marker="_", ms=4, lw=0.8,
    )  # fmt: skip


def _sorted(path: Path, data: Measurements, targets: list[str], dim: int) -> None:
    tint = dict(zip(FAMILIES, COLOURS, strict=False))
    with picture(path, 1, len(targets), (5.6, 5.2)) as (_, grid):
        for axes, target in zip(grid[0], targets, strict=True):
            rows = []
            for loss, family in data.losses(target).items():
                if not data.get(target, loss, dim, HALFWAY, data.calls):
                    continue
                measurements = (
                    data.at(target, loss, dim, s, data.calls) for s in (HALFWAY, RANDOM)
                )
                mid, random = (relative(measurement.split) for measurement in measurements)
                order = mid.value if mid.resolved else mid.low * 1e3
                rows.append((order, loss, family, mid, random))
            for y, (_, _, family, mid, random) in enumerate(sorted(rows, key=lambda r: r[0])):
                for ratio, marker, fill in (
                    (mid, "o", tint[family]),
                    (random, "s", "white"),
                ):
                    if ratio.low == math.inf:
                        continue
                    shift = 0.13 if marker == "o" else -0.13
                    high = ratio.high if ratio.resolved else ratio.low * 30
                    axes.plot([ratio.low, high], [y + shift] * 2, color=tint[family], lw=0.8)
                    if ratio.resolved:
                        axes.plot(
                            ratio.value, y + shift, marker, color=tint[family], mfc=fill, ms=4
                        )
                    else:
                        axes.plot(high, y + shift, ">", color=tint[family], mfc=fill, ms=4)
            names = [loss for _, loss, *_ in sorted(rows, key=lambda r: r[0])]
            axes.set_yticks(range(len(names)), names, fontsize=6.5)
            axes.set_xscale("log")
            axes.set_title(f"{target}, D = {dim}", color=INK)
            axes.set_xlabel("tr Cov(g) / |E g|²  (dots: mid-training; squares: random)")
            for family in FAMILIES:
                axes.plot([], [], "o", color=tint[family], ms=4, label=family)
            axes.legend(fontsize=7, loc="lower right")


def _over_batches(path: Path, data: Measurements) -> None:
    target = next(
        c.target for c in data.measurements if c.stage == HALFWAY and c.calls != data.calls
    )
    with picture(path, 1, len(FAMILIES), (3.1, 5.2)) as (_, grid):
        for axes, family in zip(grid[0], FAMILIES, strict=True):
            for loss, (colour, line) in _styles(data, family).items():
                if not data.has(target, loss):
                    continue
                measurements = data.over_calls(target, loss, HALFWAY)
                axes.errorbar(
                    [c.paths for c in measurements],
                    [c.split.noise for c in measurements],
                    [2 * c.split.noise * spread_of_log(c.split) for c in measurements],
                    color=colour, ls=line, lw=1, marker="o", ms=2.5, elinewidth=0.6, label=loss,
                )  # fmt: skip
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
            start = math.sqrt(low * high) * math.sqrt(right / left)
            axes.plot([left, right], [start, start * left / right], color=GREY, ls=":", lw=1)
            axes.set_ylim(low, high)
            axes.set_xlabel("paths a batch")
            axes.set_title(f"{family}, {target}", color=INK)
            _legend(axes)
        grid[0, 0].set_ylabel("tr Cov(g) ± 2 se   (dotted: slope −1)")


def _legend(axes: Any) -> None:
    """Below the panel, where no point lies."""
    axes.legend(fontsize=6.5, loc="upper center", bbox_to_anchor=(0.5, -0.19), borderaxespad=0.0)


def _styles(data: Measurements, family: str) -> dict[str, tuple[str, str]]:
    """Loss -> colour and line: a variant shares the colour of what it varies."""
    losses = dict.fromkeys(c.loss for c in data.measurements if c.family == family)
    styles: dict[str, tuple[str, str]] = {}
    tint: dict[str, str] = {}
    for loss in losses:
        ending = next((end for end in VARIANTS if loss.endswith(end)), "")
        stem = loss.removesuffix(ending)
        tint.setdefault(stem, COLOURS[len(tint) % len(COLOURS)])
        styles[loss] = (tint[stem], VARIANTS.get(ending, "-"))
    return styles
