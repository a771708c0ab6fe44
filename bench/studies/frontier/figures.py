"""Pictures of the frontier, and digits to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.report.pictures.style import GREY, INK, looks, picture
from tiltbench.studies.frontier.exact import exact
from tiltbench.studies.frontier.methods import MethodAtStrength, Truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THICK = 4.0
FINE = 40  # strengths of the curve of exact tilts


def draw(
    path: Path, results: Sequence[MethodAtStrength], truths: Sequence[Truth], f: Float[Tensor, " n"]
) -> None:
    """log P against path KL and against diversity: a curve a method through its strengths, the
    exact tilts as a thick line."""
    strengths = torch.logspace(-1.3, 1, FINE, dtype=torch.float64).tolist()
    tilts = [exact(f, strength) for strength in strengths]
    with picture(path, 1, 2, (4.4, 4.0)) as (figure, (panels,)):
        kl, diversity = panels
        kl.plot(
            [tilt.kl.value for tilt in tilts],
            [-tilt.mean.value for tilt in tilts],
            color=GREY,
            lw=THICK,
            alpha=0.6,
            label="exact tilt",
        )
        diversity.plot(
            [truth.diversity.value for truth in truths],
            [-truth.exact.mean.value for truth in truths],
            color=GREY,
            lw=THICK,
            alpha=0.6,
        )
        for truth in truths:
            at = -truth.exact.mean.value
            for axes, x in ((kl, truth.exact.kl.value), (diversity, truth.diversity.value)):
                axes.plot(x, at, "o", color=INK, ms=7, mfc="none", zorder=5)
            label = f"strength {truth.strength:g} "
            kl.annotate(label, (truth.exact.kl.value, at), (-6, 2), fontsize=7,
                        textcoords="offset points", ha="right")  # fmt: skip
        for method, look in looks(result.method for result in results).items():
            of_method = sorted(
                (result for result in results if result.method == method),
                key=lambda result: result.strength,
            )
            style = {"color": look.colour, "marker": look.marker, "ls": look.line}
            style |= {"ms": 4, "lw": 1, "alpha": 0.9}
            height = [-result.log_p.value for result in of_method]
            kl.plot([result.path_kl.value for result in of_method], height, label=method, **style)
            diversity.plot([result.diversity.value for result in of_method], height, **style)
        kl.set_xscale("log")
        kl.set_xlabel("KL of the paths to the base's  (nats)")
        diversity.set_xlabel("diversity of the draws")
        for axes in panels:
            _reward_axis(axes)
        figure.legend(loc="outside lower center", ncols=3, fontsize=7)


def _reward_axis(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.invert_yaxis()
    axes.set_ylabel("−E log P(3|x)  (nats, downwards)")
