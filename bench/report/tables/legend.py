"""How a leaderboard is read: its two marks and its numbers.  The words are in legend.md."""

from __future__ import annotations

import math
from pathlib import Path

from tiltbench.report.compare import FloorStatus
from tiltbench.report.frame import SUFFIX, metric_of

MARK = {FloorStatus.AT: "≈ "}
ARROW = {"lower": "↓", "higher": "↑"}
BEHIND = "✗"  # beside a method that is not better than the untrained base
NOT_BETTER = "not better than the untrained base, in its worst score or in distance"
SIDES = {
    "log_Z_err": "forward",
    "log_Z_rev_err": "reverse",
    "log_Z_bar_err": "Bennett",
    "log_Z_own_err": "own",
}
HERE = Path(__file__).parent


def legend() -> str:
    """How to read the tables, in Markdown: a list under each of a few heads."""
    return _page("legend.md")


def physics() -> str:
    """The same of scores of particles and lattices."""
    return _page("physics.md")


def torsions() -> str:
    """The same of scores of torsion angles."""
    return _page("torsions.md")


def truthless() -> str:
    """The same of scores of targets whose truth is unknown."""
    return _page("truthless.md")


def _page(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8").strip()


def head(column: str) -> str:
    """Of a column: `energy_w2 (nats) ↓`."""
    metric = metric_of(column)
    unit = "" if metric.unit == "1" else f" ({metric.unit})"
    return f"{column.removesuffix(SUFFIX)}{unit} {ARROW[metric.better]}"


def precise(value: float, se: float) -> str:
    """As `number`, but of large numbers with the decimals that the error asks for: -147.09 of one
    that is known to 0.2."""
    if abs(value) < 100 or not 0 < se < math.inf:
        return number(value)
    return f"{value:.{min(max(1 - math.floor(math.log10(se)), 0), 6)}f}"


def number(value: float) -> str:
    """Three digits."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def brief(calls: float) -> str:
    """A count of calls in three or four characters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if calls >= size:
            return f"{calls / size:.{0 if calls >= 9.95 * size else 1}f}{letter}"
    return "–" if math.isnan(calls) else f"{calls:.0f}"
