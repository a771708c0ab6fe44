"""How every picture looks: one look a sampler, quiet axes, written whole."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tiltbench.records.files import write_bytes
from tiltbench.records.names import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf")
LONGEST = 34  # letters of a label in a picture
INK, GREY, PALE = "#1f2933", "#8a94a0", "#e4e8ec"
COLOURS = (  # of the studies: Tol's "muted" scheme and two more
    "#332288", "#cc6677", "#117733", "#ddaa33", "#88ccee", "#882255", "#44aa99",
    "#999933", "#aa4499", "#e07b39", "#4477aa", "#777777",
)  # fmt: skip
# Of samplers: Okabe and Ito's but for the yellow, which white paper swallows, and five more that
# stay apart from them, also for the colour-blind (OKLab).  Eleven colours and seven markers have no
# common divisor: of 77 samplers no two share both, and of 44 no two share colour and dash.
HUES = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#5d6b00",
    "#a05cf0", "#4a2a14", "#2a1a8a",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "X", "P")
DASHES = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))  # on, off, ... in line widths
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # which comes with matplotlib, and whose signs `plain` knows
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
    """How one sampler is drawn: distinct without its colour too."""

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


def plain(label: str, most: int = LONGEST) -> str:
    """A label as matplotlib shows it: on one line, with no formula in it, its middle left out where
    it is long (the digits after # tell it from others), and signs that the font lacks as code
    points."""
    line = short(label, most) or "(no name)"
    shown = "".join(c if ord(c) in _glyphs() else f"[U+{ord(c):04X}]" for c in line)
    return shown.replace("$", r"\$")


def size_of(label: str) -> float:
    """Points of a panel's title, which two inches are to hold."""
    return 9.0 if len(label) <= 22 else 6.5


@cache
def _glyphs() -> frozenset[int]:
    """The code points that the font of the pictures has."""
    from matplotlib.font_manager import findfont
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(findfont("DejaVu Sans")).get_charmap()) - frozenset(range(32))


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


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Decades between two positive ends or, where there are few, steps of 1, 2, 5: at most six,
    written as people write them."""
    ends = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [(m, m * 10.0**e) for e in ends for m in (1, 2, 5)]
    inside = [(m, v) for m, v in steps if low * 0.999 <= v <= high * 1.001]
    decades = [v for m, v in inside if m == 1]
    chosen = decades if len(decades) >= 2 else [v for _, v in inside]
    fixed_ticks(axis, chosen[:: math.ceil(len(chosen) / 6) or 1])


def fixed_ticks(axis: Axis, values: Sequence[float]) -> None:
    axis.set_ticks(values, [_written(v) for v in values])
    axis.set_ticks([], minor=True)


def _written(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


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
