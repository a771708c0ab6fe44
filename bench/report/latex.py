r"""Leaderboards in LaTeX: table.tex, to be taken in by \input or by the piece."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tiltbench.evaluate import DISTANCES
from tiltbench.report.board import GROUPS, Board, Row
from tiltbench.report.compare import Cell, Verdict
from tiltbench.report.frame import SUFFIX, metric_of

ARROW = {"lower": r"$\downarrow$", "higher": r"$\uparrow$"}
MARK = {Verdict.AT: r"$\approx$", Verdict.BELOW: r"$\blacktriangledown$"}
ESCAPED = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"{\char34}",
    "'": r"{\char39}", "`": r"{\char96}",
}  # fmt: skip
OVERVIEW = (
    ("distance", "Distance to exact draws", DISTANCES),
    ("logz", r"Error of $\log Z$ in nats", ("log_Z_err", "log_Z_own_err")),
)
HEAD = r"""% Tables of {name}, written by `tiltbench report`.
% In the preamble: \usepackage{{booktabs,amssymb,graphicx}}
% Score: median over seeds [smallest, largest].  Last row: what exact draws score, mean +- sd.
% \approx at that floor, within 2 sd; \blacktriangledown below it; bold: not told apart from the best.
"""  # noqa: E501


def escaped(text: str) -> str:
    """Text as it stands, whatever it holds: no command, no comment, no end of the line.  What T1
    fonts may lack is written as its code point."""
    shown = "".join(ESCAPED.get(c, c) for c in re.sub(r"\s+", " ", text))
    return re.sub(r"[^ -~]", lambda found: f"[U+{ord(found[0]):04X}]", shown)


def latex(name: str, boards: Sequence[Board]) -> str:
    """The whole of table.tex: overviews of samplers against targets, then every leaderboard."""
    parts = [HEAD.format(name=_slug(name))]
    parts += [_overview(name, *found, boards) for found in OVERVIEW]
    parts += [_grid(name, board, group) for board in boards for group in GROUPS]
    return "\n".join(part for part in parts if part)


def _overview(
    name: str, label: str, title: str, choices: tuple[str, ...], boards: Sequence[Board]
) -> str:
    """The first of `choices` that each sampler has on each target."""
    many = len({board.budget for board in boards}) > 1
    heads = [_title(b.target, b.budget if many else None) for b in boards]
    found = {
        (i, row.sampler): next((_short(row, m) for m in choices if m in row.cells), "--")
        for i, board in enumerate(boards)
        for row in board.rows
    }
    samplers = sorted({sampler for _, sampler in found})
    if all(text == "--" for text in found.values()):
        return ""
    rows = [
        [_code(sampler), *(found.get((i, sampler), "--") for i in range(len(boards)))]
        for sampler in samplers
    ]
    return _table(f"{name}-{label}", f"{title}: medians over seeds.", ["", *heads], [rows])


def _short(row: Row, metric: str) -> str:
    return _value(row.cells[metric], metric in row.best)


def _grid(name: str, board: Board, group: str) -> str:
    columns = [c.metric for c in board.columns if c.group == group]
    if not columns:
        return ""
    floors = {metric: _floor(board, metric) for metric in columns}
    rows = []
    for row in board.rows:
        texts = [_text(row, metric, floors[metric]) for metric in columns]
        rows.append([_code(row.sampler), _seeds(row), *texts])
    heads = [rf"\texttt{{{escaped(m.removesuffix(SUFFIX))}}} {ARROW[metric_of(m).better]}"
             for m in columns]  # fmt: skip
    last = [["exact draws", "", *(_pair(*floor) if floor else "" for floor in floors.values())]]
    body = [rows, last] if any(floors.values()) else [rows]
    caption = f"{_title(board.target, board.budget)}. {GROUPS[group]}."
    label = f"{name}-{board.target}-{board.budget}-{group}"
    return _table(label, caption, ["", "seeds", *heads], body)


def _title(target: str, budget: int | None) -> str:
    allowance = "" if budget is None else f", {budget:,} points"
    return _code(target) + allowance


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII)


def _code(text: str) -> str:
    return rf"\texttt{{{escaped(text)}}}"


def _seeds(row: Row) -> str:
    ends = "".join(f", {n} {escaped(end.replace('_', ' '))}" for end, n in row.ends.items())
    return f"{row.finished} of {row.runs}{ends}"


Floor = tuple[float, float]  # mean, sd


def _floor(board: Board, metric: str) -> Floor | None:
    """The floor that most rows share; the others print their own."""
    have = [row.cells[metric] for row in board.rows if metric in row.cells]
    known = Counter((c.floor_mean, c.floor_sd) for c in have if not math.isnan(c.floor_mean))
    return known.most_common(1)[0][0] if known else None


def _text(row: Row, metric: str, shared: Floor | None) -> str:
    c = row.cells.get(metric)
    if c is None:
        return "--"
    text = _value(c, metric in row.best)
    if len(c.seeds) > 1:
        text += rf" {{\scriptsize$[{_number(c.low)},\,{_number(c.high)}]$}}"
    own = (c.floor_mean, c.floor_sd)
    if not math.isnan(c.floor_mean) and own != shared:
        text += rf" {{\scriptsize({_pair(*own)})}}"
    return text


def _value(c: Cell, bold: bool) -> str:
    number = _number(c.median)
    text = rf"$\mathbf{{{number}}}$" if bold else f"${number}$"
    text = f"{MARK[c.verdict]} {text}" if c.verdict in MARK else text
    return rf"\textit{{({text})}}" if c.verdict is Verdict.UNFIT else text


def _pair(mean: float, sd: float) -> str:
    return rf"${_number(mean)}\pm{_number(float(f'{sd:.1g}'))}$"


def _number(value: float) -> str:
    """Three digits, for mathematics mode."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return rf"{mantissa}{{\times}}10^{{{int(exponent)}}}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _table(
    label: str, caption: str, heads: Sequence[str], bodies: Iterable[Iterable[Sequence[str]]]
) -> str:
    made = ["\n".join(" & ".join(row) + r" \\" for row in body) for body in bodies]
    return "\n".join(
        [
            r"\begin{table}[tbp]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{_slug(label)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            "\n\\midrule\n".join(made),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )
