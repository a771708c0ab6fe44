r"""Leaderboards in LaTeX: table.tex, to be taken in by \input or by the piece."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from tiltbench.records.names import file_name, short
from tiltbench.report.beside import Beside, StatisticSummary
from tiltbench.report.board import GROUPS, Board, SamplerRow
from tiltbench.report.compare import Floor, FloorStatus, ScoreSummary
from tiltbench.report.frame import SUFFIX, metric_of
from tiltbench.report.ranks import times
from tiltbench.report.tables.legend import NOT_BETTER, brief
from tiltbench.report.tables.reasons import marks
from tiltbench.report.tables.unknown import ENERGY_DISTANCES, NEARER, STATISTICS
from tiltbench.score.curve import DISTANCES

ARROW = {"lower": r"$\downarrow$", "higher": r"$\uparrow$"}
MARK = {FloorStatus.AT: r"$\approx$"}
LONGEST = 60  # letters of a label: a longer one would make its table unreadable
MARKED = r"$^\times$"  # not better than the untrained base
ESCAPED = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"{\char34}",
    "'": r"{\char39}", "`": r"{\char96}",
}  # fmt: skip
HEAD = r"""% Tables of {name}, written by `tiltbench report`.
% In the preamble: \usepackage{{booktabs,graphicx}}
% A score is the median over seeds; in brackets stand the smallest and the largest seed.
% The last row is the noise floor: mean +- standard deviation of what exact draws score.
% \approx: within two standard deviations of the floor, so as good as exact draws.
% Bold: not significantly different from the best (paired t test over at least five seeds, Holm, 5 per cent).
% \times: not better than the untrained base, in its worst score or in distance.
"""  # noqa: E501


def escaped(text: str) -> str:
    """Text as it stands, whatever it holds: no command, no comment, no end of the line.  What T1
    fonts may lack is written as its code point."""
    shown = "".join(ESCAPED.get(c, c) for c in re.sub(r"\s+", " ", text))
    return re.sub(r"[^ -~]", lambda match: f"[U+{ord(match[0]):04X}]", shown)


def latex(name: str, boards: Sequence[Board]) -> str:
    """The whole of table.tex: overviews of samplers against targets, then every leaderboard."""
    parts = [HEAD.format(name=_slug(name))]
    parts += [
        _overview(
            f"{_slug(name)}-ranks",
            "The worst score of each method over the edge of the noise floor, by which methods are "
            "ranked; in small print the rank.",
            _worst,
            boards,
            lambda board: tex(0.0),
        ),
        _overview(
            f"{_slug(name)}-distance",
            "Distance to exact draws, medians over seeds. In small print the calls spent in "
            f"training; {MARKED} marks a method that is {NOT_BETTER}.",
            _distance,
            boards,
            _exact,
        ),
        _overview(
            f"{_slug(name)}-logz",
            r"Error of $\log Z$ in nats, medians over seeds: from forward paths / from reverse "
            "paths / Bennett's estimate from both. Slanted: the "
            "estimate that a method without such weights gives itself.",
            _sides,
            boards,
        ),
    ]
    for board in boards:
        parts += [_grid(name, board, group) for group in GROUPS]
        if board.beside is not None:
            parts += [
                part(name, board, board.beside) for part in (_statistics, _distances, _nearer)
            ]
    return "\n".join(part for part in parts if part)


def _overview(
    label: str,
    caption: str,
    text: Callable[[SamplerRow], str],
    boards: Sequence[Board],
    exact: Callable[[Board], str] = lambda board: "",
) -> str:
    """Samplers against targets, and what exact draws score where that is known."""
    many = len({board.allowed for board in boards}) > 1
    heads = [_title(b.target, b.allowed if many else "") for b in boards]
    texts = {(i, row.sampler): text(row) for i, board in enumerate(boards) for row in board.rows}
    samplers = sorted({sampler for _, sampler in texts})
    if all(text == "--" for text in texts.values()):
        return ""
    rows = [
        [_code(sampler), *(texts.get((i, sampler), "--") for i in range(len(boards)))]
        for sampler in samplers
    ]
    last = ["noise floor", *map(exact, boards)]
    return tabular(label, caption, ["", *heads], [rows, [last]] if any(last[1:]) else [rows])


def _worst(row: SamplerRow) -> str:
    if row.judged is None:
        return "--"
    worst = row.judged.worst
    rank = row.ranks.rank if row.ranks else None
    name = "" if row.judged.level else rf" \texttt{{{escaped(worst.metric)}}}"
    mark = MARKED if row.behind else ""
    return rf"{tex(worst.doublings)}{name}{mark} {{\scriptsize {rank or '--'}}}"


def tex(doublings: float) -> str:
    """`times` for mathematics mode."""
    ratio = times(doublings).removesuffix("×").replace("≤", r"\le").replace(",", r"{,}")
    mantissa, _, power = ratio.partition("e")
    if power:
        ratio = rf"{mantissa}{{\times}}10^{{{power}}}"
    return f"${ratio}$".replace("∞", r"\infty")


def _exact(board: Board) -> str:
    floors = (board.floor(metric) for metric in DISTANCES)
    return next((_pair(floor.mean, floor.sd) for floor in floors if floor), "")


def _distance(row: SamplerRow) -> str:
    metric = row.first(DISTANCES)
    if metric is None:
        return "--"
    value = _value(row.scores[metric], metric in row.best)
    spent = brief(row.spent.calls).replace("–", "--")
    return rf"{value}{MARKED if row.behind else ''} {{\scriptsize {spent}}}"


def _sides(row: SamplerRow) -> str:
    errors = row.sides()
    texts = {name: _value(c, name in row.best) for name, c in errors.items()}
    if "log_Z_own_err" in texts:
        return rf"\textit{{{texts['log_Z_own_err']}}}"
    sides = [texts.get(name, "--") for name in ("log_Z_err", "log_Z_rev_err", "log_Z_bar_err")]
    return " / ".join(sides) if sides[1:] != ["--", "--"] else sides[0]


def _grid(name: str, board: Board, group: str) -> str:
    columns = [c.metric for c in board.columns if c.group == group]
    if not columns:
        return ""
    floors = {metric: board.floor(metric) for metric in columns}
    rows = []
    for row in board.rows:
        texts = [_text(row, metric, floors[metric]) for metric in columns]
        mark = MARKED if row.behind else ""
        rows.append([_code(row.sampler) + mark, _seeds(row), _calls(row), *texts])
    heads = [rf"\texttt{{{escaped(m.removesuffix(SUFFIX))}}} {ARROW[metric_of(m).better]}"
             for m in columns]  # fmt: skip
    last = [
        [
            "noise floor",
            "",
            "",
            *(_pair(floor.mean, floor.sd) if floor else "" for floor in floors.values()),
        ]
    ]
    body = [rows, last] if any(floors.values()) else [rows]
    caption = f"{_title(board.target, board.allowed)}. {GROUPS[group]}."
    if group == "drawn":
        caption += "".join(f" {MARKED}{NOT_BETTER}." for _ in marks(board)[:1])
    return tabular(_label(name, board, group), caption, ["", "seeds", "calls", *heads], body)


def _statistics(name: str, board: Board, comparison: Beside) -> str:
    """A row a statistic, a column a sampler."""
    if not comparison.statistics:
        return ""
    rows = [[_code(key), *map(_statistic, row)] for key, row in comparison.statistics.items()]
    heads = ["", *map(_code, comparison.samplers)]
    return tabular(_label(name, board, "statistics"), _caption(board, STATISTICS), heads, [rows])


def _statistic(summary: StatisticSummary | None) -> str:
    if summary is None:
        return "--"
    mean, quantiles = _number(summary.mean), r",\,".join(map(_number, summary.quantiles))
    shown = f"${mean}$" if summary.error is None else _pair(summary.mean, summary.error)
    return rf"{shown} {{\scriptsize$[{quantiles}]$}}"


def _distances(name: str, board: Board, comparison: Beside) -> str:
    """A matrix."""
    if not comparison.distances:
        return ""
    rows = [
        [_code(sampler), *("--" if value is None else f"${_number(value)}$" for value in row)]
        for sampler, row in zip(comparison.samplers, comparison.distances, strict=True)
    ]
    heads = ["", *map(_code, comparison.samplers)]
    return tabular(
        _label(name, board, "distances"), _caption(board, ENERGY_DISTANCES), heads, [rows]
    )


def _nearer(name: str, board: Board, comparison: Beside) -> str:
    """A matrix of the samplers that could be compared."""
    samplers, ahead = comparison.compared
    if not samplers:
        return ""
    names = list(map(_code, samplers))
    rows = [
        [sampler, *("--" if by is None else _pair(by.value, by.error) for by in row)]
        for sampler, row in zip(names, ahead, strict=True)
    ]
    return tabular(_label(name, board, "nearer"), _caption(board, NEARER), ["", *names], [rows])


def _caption(board: Board, text: str) -> str:
    return f"{_title(board.target, board.allowed)}, whose truth is unknown. {_escaped_pm(text)}."


def _escaped_pm(text: str) -> str:
    return escaped(text.replace("±", "+-")).replace("+-", r"$\pm$")


def _label(name: str, board: Board, what: str) -> str:
    more = f"-{_slug(board.limits)}" if board.limits else ""
    return f"{_slug(name)}-{_slug(board.target)}-{board.budget}{more}-{what}"


def _title(target: str, allowed: str) -> str:
    return _code(target) + (f", {escaped(allowed)}" if allowed else "")


def _slug(text: str) -> str:
    return file_name(text)


def _code(label: str) -> str:
    return rf"\texttt{{{escaped(short(label, LONGEST))}}}"


def _seeds(row: SamplerRow) -> str:
    ends = "".join(f", {n} {escaped(end.replace('_', ' '))}" for end, n in row.ends.items())
    return f"{row.finished} of {row.runs}{ends}"


def _calls(row: SamplerRow) -> str:
    return "--" if math.isnan(row.spent.calls) else f"{row.spent.calls:,.0f}"


def _text(row: SamplerRow, metric: str, shared: Floor | None) -> str:
    c = row.scores.get(metric)
    if c is None:
        return "--"
    text = _value(c, metric in row.best)
    if len(c.seeds) > 1:
        text += rf" {{\scriptsize$[{_number(c.low)},\,{_number(c.high)}]$}}"
    if c.floored and (shared is None or c.floor != shared[:2]):
        few = f", $n = {c.draws:.0f}$" if c.few else ""
        text += rf" {{\scriptsize(floor {_pair(*c.floor)}{few})}}"
    return text


def _value(c: ScoreSummary, bold: bool) -> str:
    number = _number(c.median)
    text = rf"$\mathbf{{{number}}}$" if bold else f"${number}$"
    text = f"{MARK[c.status]} {text}" if c.status in MARK else text
    return rf"\textit{{({text})}}" if c.status is FloorStatus.UNFIT else text


def _pair(mean: float, sd: float) -> str:
    return rf"${_number(mean)}\pm{_number(float(f'{sd:.1g}'))}$"


def _number(value: float) -> str:
    """Three digits, for mathematics mode."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return rf"{mantissa}{{\times}}10^{{{int(exponent)}}}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def tabular(
    label: str, caption: str, heads: Sequence[str], bodies: Iterable[Iterable[Sequence[str]]]
) -> str:
    """A floating table no wider than the line; rules stand between the bodies."""
    parts = ["\n".join(" & ".join(row) + r" \\" for row in body) for body in bodies]
    return "\n".join(
        [
            r"\begin{table}[tbp]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            "\n\\midrule\n".join(parts),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )
