"""How every picture looks: one colour a sampler, quiet axes, written whole."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.record import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf")
INK, GREY, PALE = "#1f2933", "#8a94a0", "#e4e8ec"
COLOURS = (  # Tol's "muted" scheme and two more: told apart by colour-blind readers too
    "#332288", "#cc6677", "#117733", "#ddaa33", "#88ccee", "#882255", "#44aa99",
    "#999933", "#aa4499", "#e07b39", "#4477aa", "#777777",
)  # fmt: skip
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 140,
}


def colours(samplers: Iterable[str]) -> dict[str, str]:
    """The colour of each sampler, the same in every picture of a folder."""
    names = sorted(set(samplers))
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


@contextmanager
def picture(
    path: Path, rows: int, columns: int, size: tuple[float, float], widths: Sequence[float] = ()
) -> Iterator[Any]:
    """(figure, (rows, columns) array of axes) of `size` inches a panel, columns as `widths` to each
    other (alike by default); written to `path` after."""
    import matplotlib
    from matplotlib.figure import Figure as Sheet

    with matplotlib.rc_context(STYLE):
        figure = Sheet((columns * size[0], rows * size[1]), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, width_ratios=widths or None)
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """The picture at `path`, whose suffix each of FORMATS replaces."""
    for kind in FORMATS:
        buffer = io.BytesIO()
        # without a display: no pyplot, no global state
        figure.savefig(buffer, format=kind)
        write_bytes(path.with_suffix(f".{kind}"), buffer.getvalue())
        figure.set_layout_engine("none")  # it has done its work


def bare(axes: Axes) -> None:
    """No ticks, a thin frame: for scatter panels."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color(PALE)
