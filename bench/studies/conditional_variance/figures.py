"""Pictures of conditional variances against time: under P*, and at the stages of training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.report.pictures.style import COLOURS, GREY, INK, picture

if TYPE_CHECKING:
    from pandas import DataFrame

MARKS = {
    "CSM": (COLOURS[1], "o", 4),
    "TSM": (COLOURS[2], "s", 4),
    "NSM": (COLOURS[0], "o", 7),
    "AM": (COLOURS[9], "D", 3.5),
    "AS": (INK, "x", 4),
}
HOLLOW = {"NSM"}
STAGES = {"init": (COLOURS[1], "v"), "mid": (COLOURS[3], "s"), "trained": (COLOURS[0], "o")}
LEAST = 1e-5  # what is shown of AM near t = 1


def draw_optimum(path: Path, data: DataFrame, names: list[str], curves: DataFrame) -> None:
    """Rows of targets, columns of schedules; lines are the closed forms in `curves`."""
    star = data[data.law == "P*"]
    schedules = list(star.schedule.unique())
    size = (3.0, 2.1) if len(names) > 1 else (3.0, 2.6)
    with picture(path, len(names), len(schedules), size) as (figure, grid):
        for row, name in zip(grid, names, strict=True):
            for axes, schedule in zip(row, schedules, strict=True):
                part = star[(star.target == name) & (star.schedule == schedule)]
                for loss, (colour, marker, size_) in MARKS.items():
                    one = part[part.loss == loss].sort_values("t")
                    one = one[one.variance > LEAST]
                    if one.empty:
                        continue
                    _curve(axes, curves, (name, schedule, "P*", loss), colour)
                    face = "none" if loss in HOLLOW else colour
                    axes.errorbar(
                        one.t,
                        one.variance,
                        one.se,
                        color=colour,
                        ls="",
                        marker=marker,
                        ms=size_,
                        mfc=face,
                        elinewidth=0.8,
                        label=loss,
                    )
                axes.set_yscale("log")
                axes.set_title(f"{name}, {schedule}")
        for axes in grid[-1]:
            axes.set_xlabel("t")
        for axes in grid[:, 0]:
            axes.set_ylabel("E tr Cov(T | X_t)")
        _legend(figure, grid[0, 0])


def draw_stages(path: Path, data: DataFrame, schedule: str, coarse: int, curves: DataFrame) -> None:
    """Rows of targets, columns of losses; grey: measured under P* on the same grid."""
    here = data[data.schedule == schedule]
    names = list(here[here.law == "trained"].target.unique())
    losses = ("CSM", "TSM", "AM")
    with picture(path, len(names), len(losses), (3.0, 2.1)) as (figure, grid):
        for row, name in zip(grid, names, strict=True):
            for axes, loss in zip(row, losses, strict=True):
                part = here[(here.target == name) & (here.loss == loss)]
                _stages(axes, part, coarse)
                for law, colour in (("P*", GREY), ("init", STAGES["init"][0])):
                    _curve(axes, curves, (name, schedule, law, loss), colour)
                axes.set_title(f"{name}, {loss}")
        for axes in grid[-1]:
            axes.set_xlabel(f"t   ({schedule})")
        for axes in grid[:, 0]:
            axes.set_ylabel("E tr Cov(T | X_t)")
        _legend(figure, grid[0, 0])


def _stages(axes: Any, part: DataFrame, coarse: int) -> None:
    star = part[part.law == f"P*, {coarse} steps"].sort_values("t")
    low, high = star.variance - 2 * star.se, star.variance + 2 * star.se
    axes.fill_between(star.t, low.clip(lower=star.variance / 10), high, color=GREY, alpha=0.4, lw=0)
    axes.errorbar(star.t, star.variance, color=GREY, lw=1.2, ls=":", marker="_", label="P*")
    for law, (colour, marker) in STAGES.items():
        one = part[part.law == law].sort_values("t")
        axes.errorbar(
            one.t,
            one.variance,
            one.se,
            color=colour,
            ls="",
            marker=marker,
            ms=4,
            elinewidth=0.8,
            label=law,
        )
    axes.set_yscale("log")


def _curve(axes: Any, curves: DataFrame, key: tuple[str, str, str, str], colour: str) -> None:
    """Where there is a closed form, its line."""
    target, schedule, law, loss = key
    here = curves[(curves.target == target) & (curves.schedule == schedule)]
    here = here[(here.law == law) & (here.loss == loss)]
    axes.plot(here.t, here.exact, color=colour, lw=1, label="_")


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8)
