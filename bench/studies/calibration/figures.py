"""Pictures of the study `calibration`: ranks against their band, and posteriors as images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tiltbench.report.pictures.style import COLOURS, GREY, PALE, bare, picture
from tiltbench.studies.calibration.inverse import STATISTICS
from tiltbench.studies.calibration.ranks import LEVEL, band, excess
from tiltbench.targets.digits.images import square

if TYPE_CHECKING:
    from tiltbench.studies.calibration.results import MethodResult, UniformityTests

COLUMNS = 3
IMAGES = 3  # replicates pictured
MEANS = ("exact", "guidance", "adjoint matching", "adjoint matching, weighted")
SDS = ("exact", "adjoint matching")
DRAW_METHODS = ("exact", "guidance", "adjoint matching")


def draw_ranks(path: Path, results: list[MethodResult], tests: UniformityTests) -> None:
    """ECDF of the ranks less the diagonal, within what uniform ranks would stay in."""
    at = np.linspace(0, 1, 201)
    width = band(len(results[0].ranks))
    with picture(path, -(-len(results) // COLUMNS), COLUMNS, (2.8, 2.0)) as (figure, grid):
        for axes, result in zip(grid.flat, results, strict=False):
            axes.axhspan(-width, width, color=PALE, lw=0)
            axes.axhline(0, color=GREY, lw=0.6)
            for u, f, colour in zip(result.ranks.T.numpy(), STATISTICS, COLOURS, strict=False):
                thick = 1.8 if f in tests.of(result.method) else 0.8
                axes.step(at, excess(u, at), color=colour, lw=thick, where="post", label=f)
            axes.set(title=result.method, xlim=(0, 1), ylim=(-0.7, 0.7))
        for axes in grid.flat[len(results) :]:
            axes.set_visible(False)
        figure.supxlabel(
            f"rank of f(x); the band holds all of an ECDF of uniform ranks {1 - LEVEL:.0%} of the "
            "time, thick lines differ significantly from uniform (Holm's correction)",
            fontsize=8,
        )
        figure.supylabel("ECDF less the diagonal", fontsize=8)
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=8)


def draw_posteriors(
    path: Path,
    truth: Float[Tensor, "l 64"],
    seen: Float[Tensor, "l 64"],
    results: list[MethodResult],
) -> None:
    """Of some replicates the truth, what is seen of it, and means, sds and draws by method."""
    by = {result.method: result for result in results}
    panels = {
        "truth x": truth,
        "y": seen,
        **{f"mean:\n{name}": by[name].mean for name in MEANS},
        **{f"sd:\n{name}": by[name].sd for name in SDS},
        **{f"draw {i + 1}:\n{name}": by[name].shown[:, i] for name in DRAW_METHODS for i in (0, 1)},
    }
    with picture(path, min(IMAGES, len(truth)), len(panels), (0.95, 1.05)) as (_, grid):
        for i, row in enumerate(grid):
            for axes, (name, images) in zip(row, panels.items(), strict=True):
                low, scheme = (0, "magma") if name.startswith("sd") else (-1, "Greys")
                axes.imshow(square(images[i]).numpy(), cmap=scheme, vmin=low, vmax=1)
                bare(axes)
                if i == 0:
                    axes.set_title(name.replace(", ", ",\n"), fontsize=6)
