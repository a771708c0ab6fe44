"""Pictures of the study of the bias."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tiltbench.report.pictures.style import GREY, picture
from tiltbench.studies.bias.regressed import Bias

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TINTS = {"CSM": "#777777", "TSM": "#ddaa33", "NSM": "#117733", "AM": "#332288"}


def draw(path: Path, times: tuple[float, ...], biases: list[Bias]) -> None:
    """Closed forms as lines, twins as points: unweighted, and NSM with tempered weights."""
    biases = [b for b in biases if b.loss in TINTS and (b.loss, b.ends) in SHOWN]
    names = list(dict.fromkeys(b.world for b in biases))
    strengths = sorted({b.strength for b in biases})
    shown = strengths[0], strengths[len(strengths) // 2]
    with picture(path, len(names), 3, (3.4, 2.3)) as (_, grid):
        for line, name in zip(grid, names, strict=True):
            here = [b for b in biases if b.world == name]
            for axes, strength in zip(line, shown, strict=False):
                now = [b for b in here if b.strength == strength]
                for b in now:
                    _curve(axes, times, b)
                axes.plot(times, now[0].before, color="black", lw=0.8, ls=":", label="E|u_λ − u*|²")
                axes.set_yscale("log")
                axes.set_ylim(1e-4, 30)
                axes.set_title(f"{name}, λ = {strength:g}", fontsize=8)
            for key in SHOWN:
                _left(line[2], [b for b in here if (b.loss, b.ends) == key])
            line[2].axhline(1, color=GREY, lw=0.6)
            line[2].set_yscale("symlog", linthresh=0.01)
            line[2].set_ylim(-0.01, 3e4)
            line[2].set_title(f"{name}", fontsize=8)
            line[0].set_ylabel("E|E[T|X_t] − u*|²")
            line[2].set_ylabel("left of ∫ E|u_λ − u*|² dt")
        for axes, label in zip(grid[-1], ("t", "t", "λ"), strict=True):
            axes.set_xlabel(label)
        grid[0, 1].legend(fontsize=5.5, ncols=2, loc="lower left")


SHOWN = (*((loss, "unweighted") for loss in TINTS), ("NSM", "tempered"))


def _curve(axes: Axes, times: tuple[float, ...], b: Bias) -> None:
    assert b.exact is not None
    colour = TINTS[b.loss]
    if b.ends == "tempered":
        axes.plot(times, b.exact, color=colour, lw=1, ls="--", label=f"{b.loss}, tempered")
        return
    axes.plot(times, b.exact, color=colour, lw=1)
    axes.errorbar(times, b.square, b.se, color=colour, ls="none", lw=0.8, ms=3, marker="o",
                  label=b.loss)  # fmt: skip


def _left(axes: Axes, some: list[Bias]) -> None:
    dashed = some[0].ends == "tempered"
    axes.errorbar([b.strength for b in some], [b.left.value for b in some],
                  [b.left.se for b in some], color=TINTS[some[0].loss], lw=1, ms=3,
                  marker="x" if dashed else "o", ls="--" if dashed else "-")  # fmt: skip


def draw_apart(path: Path, apart: dict[float, list[Bias]]) -> None:
    """CSM and NSM of every half distance."""
    with picture(path, 1, 1, (4.2, 3.0)) as (_, grid):
        axes = grid[0, 0]
        for i, name in ((0, "CSM"), (2, "NSM = AS = AM")):
            left = [few[i].left for few in apart.values()]
            axes.errorbar(list(apart), [s.value for s in left], [s.se for s in left], lw=1, ms=3,
                          color=TINTS[name[:3]], marker="o", label=name)  # fmt: skip
        axes.set_xlabel("half the distance of the modes  (sd of a mode)")
        axes.set_ylabel("left of ∫ E|u − u*|² dt")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7)
