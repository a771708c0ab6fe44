"""A static site of all published sets: a page a suite, one a method, one a target; from disk.

A suite's page is that of `tiltbench report`.  The others are tables without a script, whose rows
come from the same leaderboards.  Labels come from records, which somebody else may have written:
they are escaped, and name files by `records.names.file_name`.
"""

from __future__ import annotations

import html
import math
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tiltbench.plan.errors import Refused
from tiltbench.records.files import write_bytes
from tiltbench.records.names import file_name
from tiltbench.records.recorded import is_published
from tiltbench.report.beside import with_beside
from tiltbench.report.board import Board, Row, boards
from tiltbench.report.frame import collect
from tiltbench.report.page.page import page, part
from tiltbench.report.ranks import times
from tiltbench.report.standings import Standing, standings, widest

MARK = ".tiltbench-site"  # in a folder that this command has made, and may replace
LEADERS = 5  # of a suite, on the first page


class Done(NamedTuple):
    suites: int
    methods: int
    targets: int


class Set(NamedTuple):
    name: str
    boards: list[Board]
    standings: list[Standing]

    @property
    def link(self) -> str:
        return f"suites/{file_name(self.name)}.html"


class Result(NamedTuple):
    """A row of a leaderboard."""

    suite: Set
    board: Board
    row: Row


def site(published: Path, out: Path) -> Done:
    """Writes the site of every published set in `published` into `out`, a folder of its own, which
    is replaced whole once everything is written.

    Raises Refused where nothing is published, a set is damaged, or `out` holds other things."""
    folders = sorted(path for path in published.glob("*") if is_published(path))
    if not folders:
        raise Refused(f"nothing is published in {published}; `tiltbench publish SUITE` publishes")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARK).exists())):
        raise Refused(f"{out} holds things that are no site; name a new folder with --site")
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        done = _fill(folders, fresh)
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh.replace(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return done


def _fill(folders: Sequence[Path], out: Path) -> Done:
    sets = []
    for folder in folders:
        frames = collect(folder)
        made = with_beside(boards(frames), frames, folder)
        one = Set(folder.name, made, standings(widest(made)[0]))
        write_bytes(out / one.link, page(frames, made, folder).encode())
        sets.append(one)
    results = [Result(s, board, row) for s in sets for board in s.boards for row in board.rows]
    methods = _grouped((r.row.method or r.row.sampler, r) for r in results)
    targets = _grouped((r.board.target, r) for r in results)
    for name, mine in methods.items():
        _write(out / _place("methods", name), name, [_method(mine)], back="../")
    for name, mine in targets.items():
        _write(out / _place("targets", name), name, _target(mine), back="../")
    parts = [_suite(one) for one in sets]
    parts += [_listed("methods", "Methods", methods), _listed("targets", "Targets", targets)]
    _write(out / "index.html", "tiltbench: published results", parts)
    write_bytes(out / MARK, b"")
    return Done(len(sets), len(methods), len(targets))


def _grouped(pairs: Iterable[tuple[str, Result]]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for name, result in sorted(pairs, key=lambda pair: pair[0]):
        found.setdefault(name, []).append(result)
    return found


def _place(kind: str, name: str) -> str:
    return f"{kind}/{file_name(name)}.html"


def _link(place: str, words: str) -> str:
    return f'<a href="{html.escape(place)}">{html.escape(words)}</a>'


def _suite(one: Set) -> str:
    """The leaders of a set, by mean rank."""
    rows = [
        [
            html.escape(s.sampler),
            _number(s.rank),
            "–" if math.isnan(s.off) else times(s.off),
            f"{s.floor} of {s.boards}" if s.boards else "–",
        ]
        for s in one.standings[:LEADERS]
    ]
    heads = ["sampler", "mean rank", "worst score / floor", "all at floor"]
    more = len(one.standings) - len(rows)
    rest = f"<p class=soft>and {more} more</p>" if more > 0 else ""
    return f"<h2>{_link(one.link, one.name)}</h2>{_table(heads, rows)}{rest}"


def _listed(kind: str, title: str, found: dict[str, list[Result]]) -> str:
    links = ", ".join(_link(_place(kind, name), name) for name in found)
    return f"<h2>{title}</h2><p>{links}</p>"


HEADS = ["rank", "worst score / floor", "by", "finished", "calls"]


def _method(mine: Sequence[Result]) -> str:
    """Where a method stands in every set."""
    rows = [
        [
            _link(f"../{r.suite.link}", r.suite.name),
            _link(f"../{_place('targets', r.board.target)}", r.board.target),
            html.escape(r.board.allowed),
            html.escape(r.row.sampler),
            *_standing(r),
        ]
        for r in mine
    ]
    return _table(["suite", "target", "allowance", "settings", *HEADS], rows)


def _target(mine: Sequence[Result]) -> list[str]:
    """A table for every set and allowance, the best first."""
    parts = []
    for key in dict.fromkeys((r.suite.name, r.board.allowed) for r in mine):
        own = [r for r in mine if (r.suite.name, r.board.allowed) == key]
        own.sort(key=lambda r: (_at(r.row) is None, _at(r.row) or 0))
        rows = [
            [
                _link(f"../{_place('methods', r.row.method or r.row.sampler)}", r.row.sampler),
                *_standing(r),
            ]
            for r in own
        ]
        title = _link(f"../{own[0].suite.link}", key[0])
        parts.append(f"<h2>{title}, {html.escape(key[1])}</h2>{_table(['sampler', *HEADS], rows)}")
    return parts


def _at(row: Row) -> int | None:
    return row.ranks.rank if row.ranks else None


def _standing(result: Result) -> list[str]:
    row, rank = result.row, _at(result.row)
    worst = row.judged.worst if row.judged else None
    return [
        f"{rank} of {len(result.board.rows)}" if rank is not None else "–",
        times(worst.doublings) if worst else "–",
        html.escape(worst.metric) if worst and worst.doublings else "",
        f"{row.finished} of {row.runs}",
        _number(row.spent.calls),
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if math.isfinite(value) else "–"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f"<div class=scroll><table>{inner}</table></div>"


def _write(path: Path, title: str, parts: Sequence[str], back: str = "") -> None:
    up = f"<p>{_link(f'{back}index.html', 'all published results')}</p>" if back else ""
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
        f"<title>{html.escape(title)} · tiltbench</title><style>{part('style.css')}</style></head>"
        f"<body><header><h1>{html.escape(title)}</h1>{up}</header><main>"
        "<p class=soft>Worst score / floor: the worst score as a multiple of the edge of the noise "
        "floor, which is what exact draws score; up to 1 it is as good as exact draws.</p>"
        f"{''.join(parts)}</main></body></html>\n"
    )
    write_bytes(path, text.encode())
