"""The page of a target: what it is, how it looks, its truth, its noise floors, and who is best."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tiltbench.records.store import warn
from tiltbench.report.board import Board
from tiltbench.report.frame import metric_of
from tiltbench.report.pictures.scatter import MOST, panels, view
from tiltbench.report.site.markup import described, home, image, link, table
from tiltbench.report.site.results import HEADS, Result
from tiltbench.report.tables.legend import head, number
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.target import Target


def target(name: str, mine: Sequence[Result], built: Target | None) -> list[str]:
    """`built` is None where it cannot be made here."""
    parts = []
    if built is not None:
        parts += [
            described(TARGETS, built.name),
            f"<p>{html.escape(facts(built))}</p>",
            _picture(built),
        ]
    for key in dict.fromkeys((r.suite.name, r.board.allowed) for r in mine):
        results = [r for r in mine if (r.suite.name, r.board.allowed) == key]
        parts += _board(results)
    return parts


def facts(built: Target) -> str:
    """Dimension, truth and log Z, in a sentence."""
    truth = built.truth()
    error = f" ± {truth.log_Z_se:.1g}" if truth.log_Z_se else ""
    log_Z = f"; log Z = {truth.log_Z:.6g}{error}" if truth.log_Z is not None else ""
    return f"{built.dim} dimensions; truth: {truth.source}{log_Z}."


def _picture(built: Target) -> str:
    """Exact draws over the contours of the density, of targets in the plane."""
    try:
        seen = view(built, MOST)
        if seen is None or not len(seen.exact):
            return ""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "exact.png"
            with panels(path, seen, {}, {}):
                pass
            return image(path.read_bytes(), f"Exact draws of {built.name}")
    except Exception as error:  # of a plug-in; the page has its numbers all the same
        warn(f"no picture of {built.name} ({type(error).__name__}: {error})")
        return ""


def _board(results: Sequence[Result]) -> list[str]:
    """A table of ranks, the first first, and one of the best figures beside their floors."""
    board = results[0].board
    ranked = sorted(results, key=lambda r: (r.rank is None, r.rank or 0))
    rows = [
        [link(f"../{home('methods', r.row.method or r.row.sampler)}", r.row.sampler), *r.cells]
        for r in ranked
    ]
    title = link(f"../{results[0].suite.link}", results[0].suite.name)
    parts = [f"<h2>{title}, {html.escape(board.allowed)}</h2>", table(["sampler", *HEADS], rows)]
    best = figures(board)
    if best:
        cells = [[html.escape(text) for text in line] for line in best]
        parts += ["<h3>Best figures</h3>", table(["score", "noise floor", "best", "by"], cells)]
    return parts


def figures(board: Board) -> list[list[str]]:
    """(score, floor, best median, whose) of every score of the unweighted draws and of log Z."""
    lines = []
    for column in board.columns:
        metric = metric_of(column.metric)
        if column.group not in ("drawn", "weights") or not metric.perfect:
            continue
        medians = {
            row.sampler: row.scores[column.metric].median
            for row in board.rows
            if column.metric in row.scores
        }
        if not medians:
            continue
        floor = board.floor(column.metric)
        perfect = floor.mean if floor is not None else float(metric.perfect == "1")
        off = {name: abs(value - perfect) for name, value in medians.items()}
        first = min(off, key=off.__getitem__)
        floor_text = f"{number(floor.mean)} ± {floor.sd:.1g}" if floor else "–"
        lines.append([head(column.metric), floor_text, number(medians[first]), first])
    return lines
