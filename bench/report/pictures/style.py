"""How every picture looks: one look a sampler, quiet axes, written whole."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tiltbench.records.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf")
INK, GREY, PALE = "#1f2933", "#8a94a0", "#e4e8ec"
COLOURS = (  # of the studies: Tol's "muted" scheme and two more
    "#332288", "#cc6677", "#117733", "#ddaa33", "#88ccee", "#882255", "#44aa99",
    "#999933", "#aa4499", "#e07b39", "#4477aa", "#777777",
)  # fmt: skip
# Of samplers: Okabe and Ito's, but for the yellow, which white paper swallows.  Seven colours and
# six markers have no common divisor: of 42 samplers no two share both, and neighbours share none.
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "X")
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))  # on, off, ... in line widths
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


class Look(NamedTuple):
    """How one sampler is drawn: told apart without its colour too."""

    colour: str
    marker: str
    dash: tuple[float, ...]

    @property
    def line(self) -> Any:
        """The dash as matplotlib takes it."""
        return (0, self.dash) if self.dash else "solid"


def looks(samplers: Iterable[str]) -> dict[str, Look]:
    """The look of each sampler, the same in every picture of a folder."""
    return {
        name: Look(
            HUES[i % len(HUES)],
            MARKERS[i % len(MARKERS)],
            DASHES[i // len(HUES) % len(DASHES)],
        )
        for i, name in enumerate(sorted(set(samplers)))
    }


PALETTE = 256  # of a picture that is written as PNG


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
        data = buffer.getvalue()
        write_bytes(path.with_suffix(f".{kind}"), compact(data) if kind == "png" else data)
        figure.set_layout_engine("none")  # it has done its work


def compact(png: bytes) -> bytes:
    """The picture in at most 256 colours: a third of the bytes, and no difference to the eye."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    buffer = io.BytesIO()
    few = picture.quantize(PALETTE, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def bare(axes: Axes) -> None:
    """No ticks, a thin frame: for scatter panels."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color(PALE)
