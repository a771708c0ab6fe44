"""Coverage of every case, before and now."""

from __future__ import annotations

from pathlib import Path

from tiltbench.report.pictures.style import COLOURS, INK, picture
from tiltbench.studies.coverage.claims import FEW, HIGH, LOW
from tiltbench.studies.coverage.measured import SIDES, SURE, MeasuredControl, covered


def draw(path: Path, controls: list[MeasuredControl]) -> None:
    """One panel an estimate, one line a control: before as a ring, now as a disc with its error,
    where FEW intervals or more are stated."""
    names = [f"{m.target}, {m.control}" for m in controls]
    with picture(path, 1, len(SIDES), (2.6, 0.6 + 0.2 * len(controls))) as (_, grid):
        for axes, side in zip(grid[0], SIDES, strict=True):
            axes.axvspan(LOW, HIGH, color=INK, alpha=0.12, lw=0)
            for i, m in enumerate(controls):
                old, new = covered(m.estimates[side].before), covered(m.estimates[side].after)
                axes.plot(old.value, -i, "o", ms=4, mfc="none", color=COLOURS[1])
                if new.n >= FEW:
                    bar = SURE * new.se
                    axes.errorbar(new.value, -i, xerr=bar, fmt="o", ms=4, lw=1, color=COLOURS[0])
            axes.set_xlim(-0.03, 1.03)
            axes.set_title(f"{side}: ring before, disc now", fontsize=7)
            axes.set_xlabel("share of intervals that hold log Z", fontsize=6)
            axes.set_yticks([-i for i in range(len(controls))], [""] * len(controls))
        grid[0, 0].set_yticks([-i for i in range(len(controls))], names, fontsize=5)
