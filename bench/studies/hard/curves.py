"""How a figure falls with training: a panel a goal, a line a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiltbench.report.frame import Frames
from tiltbench.report.pictures.style import COLOURS, GREY, picture
from tiltbench.studies.hard.goals import Goal

ENERGY = "energy_w2"
LEAST = 0.05


def draw(path: Path, goals: Sequence[Goal], frames: Frames) -> None:
    """The figure of every learning curve against the calls of its training; a line at the goal.

    Distances far below the line, which may be negative, are drawn at its LEAST part."""
    panels = [(goal, runs) for goal in goals if (runs := _with_curve(goal, frames))]
    if not panels:
        return
    with picture(path, 1, len(panels), (3.0, 2.8)) as (_, grid):
        for axes, (goal, runs) in zip(grid[0], panels, strict=True):
            limit = _limit(goal, runs[0][1])
            methods = dict.fromkeys(method for method, _ in runs)
            for colour, method in zip(COLOURS, methods, strict=False):
                figures = [(c["spend"], c[_figure(goal)]) for m, c in runs if m == method]
                for seed, (spend, figure) in enumerate(figures):
                    axes.plot(
                        spend,
                        np.maximum(figure, LEAST * limit),
                        color=colour,
                        lw=1,
                        marker="o",
                        ms=2,
                        label=None if seed else method,
                    )
            axes.axhline(limit, color=GREY, lw=0.6)
            axes.set(xscale="log", yscale="log", xlabel="calls", title=goal.target)
            axes.set_ylabel(runs[0][1]["metric"] if _figure(goal) == "distance" else ENERGY)
            axes.legend(fontsize=5)


def _with_curve(goal: Goal, frames: Frames) -> list[tuple[str, Mapping[str, Any]]]:
    """(method, learning curve) of every trained run on the goal's target."""
    runs = frames.runs
    here = runs[(runs["target"] == goal.target) & (runs["parameters"] > 0)]
    named = zip(here["sampler"], here["id"], strict=True)
    return [(method, frames.curves[run]) for method, run in named if run in frames.curves]


def _figure(goal: Goal) -> str:
    return ENERGY if ENERGY in goal.below else "distance"


def _limit(goal: Goal, curve: Mapping[str, Any]) -> float:
    """What the goal asks of the figure: a number, or so many times the edge of its noise floor."""
    if ENERGY in goal.below:
        return goal.below[ENERGY]
    floor = curve["floor"]
    return goal.times.get(curve["metric"], 1.0) * (floor["mean"] + 2 * floor["sd"])
