"""A static site of all published sets: a page a suite, one a method, one a target; from disk.

A suite's page is that of `tiltbench report`.  The others have no script; their rows come from the
same leaderboards.
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
from tiltbench.records.recorded import is_published
from tiltbench.report.beside import with_beside
from tiltbench.report.board import boards
from tiltbench.report.frame import collect
from tiltbench.report.page.page import page
from tiltbench.report.ranks import times
from tiltbench.report.site.markup import home, link, number, table, write
from tiltbench.report.site.method import method
from tiltbench.report.site.results import Result, Set, grouped
from tiltbench.report.site.target import target
from tiltbench.report.standings import standings, widest
from tiltbench.report.targets import targets_of
from tiltbench.targets.target import Target

MARK = ".tiltbench-site"  # in a folder that this command has made, and may replace
LEADERS = 5  # of a suite, on the first page


class SiteCounts(NamedTuple):
    suites: int
    methods: int
    targets: int


def site(published: Path, out: Path) -> SiteCounts:
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


def _fill(folders: Sequence[Path], out: Path) -> SiteCounts:
    sets: list[Set] = []
    built: dict[str, Target] = {}
    for folder in folders:
        frames = collect(folder)
        leaderboards = with_beside(boards(frames), frames, folder)
        one = Set(folder.name, leaderboards, standings(widest(leaderboards)[0]))
        write_bytes(out / one.link, page(frames, leaderboards, folder).encode())
        sets.append(one)
        built |= targets_of(frames.records, folder / "runs")
    results = [Result(s, board, row) for s in sets for board in s.boards for row in board.rows]
    methods = grouped((r.row.method or r.row.sampler, r) for r in results)
    targets = grouped((r.board.target, r) for r in results)
    for name, mine in methods.items():
        write(out / home("methods", name), name, method(name, mine), back="../")
    for name, mine in targets.items():
        write(out / home("targets", name), name, target(name, mine, built.get(name)), back="../")
    parts = [_suite(one) for one in sets]
    parts += [_listed("methods", "Methods", methods), _listed("targets", "Targets", targets)]
    write(out / "index.html", "tiltbench: published results", parts)
    write_bytes(out / MARK, b"")
    return SiteCounts(len(sets), len(methods), len(targets))


def _suite(one: Set) -> str:
    """The leaders of a set, by mean rank."""
    rows = [
        [
            html.escape(s.sampler),
            number(s.rank),
            "–" if math.isnan(s.off) else times(s.off),
            f"{s.floor} of {s.boards}" if s.boards else "–",
        ]
        for s in one.standings[:LEADERS]
    ]
    heads = ["sampler", "mean rank", "worst score / floor", "all at floor"]
    more = len(one.standings) - len(rows)
    rest = f"<p class=soft>and {more} more</p>" if more > 0 else ""
    return f"<h2>{link(one.link, one.name)}</h2>{table(heads, rows)}{rest}"


def _listed(kind: str, title: str, names: Iterable[str]) -> str:
    links = ", ".join(link(home(kind, name), name) for name in names)
    return f"<h2>{title}</h2><p>{links}</p>"
