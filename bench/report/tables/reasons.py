"""Why there is a dash, what became of runs that did not finish, what runs noted: each once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.metric import KINDS
from tiltbench.report.board import Board
from tiltbench.report.compare import FloorStatus
from tiltbench.report.tables.legend import BEHIND

if TYPE_CHECKING:
    from pandas import DataFrame

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")


class Remark(NamedTuple):
    """One sentence, and whom it is about."""

    text: str
    about: dict[str, str]  # by sampler: which seeds, which scores
    status: str = ""  # where runs ended with it


def merged(texts: Sequence[str]) -> str:
    """Sentences that differ in their numbers only, as one: each number as the range it has."""
    texts = list(dict.fromkeys(texts))
    columns = list(zip(*(NUMBER.findall(text) for text in texts), strict=True))
    ranges = (_range(column) for column in columns)
    return NUMBER.sub(lambda _: next(ranges), texts[0])


def _range(numbers: Sequence[str]) -> str:
    ends = sorted(numbers, key=lambda text: float(text.replace(",", "")))
    return ends[0] if len(set(numbers)) == 1 else f"{ends[0]} to {ends[-1]}"


def _alike(text: str) -> str:
    return NUMBER.sub("#", text)


def ends(runs: DataFrame) -> list[Remark]:
    """Of runs that did not finish."""
    bad = runs[~runs["finished"]]
    rows = [(r["sampler"], r["seed"], r["reason"] or "no message", r["status"])
            for _, r in bad.iterrows()]  # fmt: skip
    return list(_gathered(rows, {}))


def notes(runs: DataFrame) -> list[Remark]:
    """What runs noted."""
    rows = [(run["sampler"], run["seed"], note, "") for _, run in runs.iterrows()
            for note in dict.fromkeys(run["notes"])]  # fmt: skip
    return list(_gathered(rows, runs.groupby("sampler").size().to_dict()))


def _gathered(
    rows: Sequence[tuple[str, int, str, str]], counts: dict[str, int]
) -> Iterator[Remark]:
    groups: dict[tuple[str, str], list[tuple[str, int, str, str]]] = {}
    for row in rows:
        groups.setdefault((_alike(row[2]), row[3]), []).append(row)
    for (_, status), members in groups.items():
        seeds: dict[str, set[int]] = {}
        for sampler, seed, *_ in members:
            seeds.setdefault(sampler, set()).add(seed)
        about = {
            name: ""
            if len(mine) == counts.get(name)
            else f"seed {', '.join(map(str, sorted(mine)))}"
            for name, mine in seeds.items()
        }
        yield Remark(merged([row[2] for row in members]), about, status)


def dashes(runs: DataFrame, scores: DataFrame) -> list[Remark]:
    """Of scores without a value, or without a floor; what is made for other kinds of targets is no
    dash."""
    missing = scores[(scores["reason"] != "") & ~scores["reason"].isin(KINDS.values())]
    counts = runs[runs["finished"]].groupby("sampler").size()
    remarks = []
    for _, alike in missing.groupby(missing["reason"].map(_alike), sort=False):
        about = {}
        for name, mine in alike.groupby("sampler", sort=False):
            names = ", ".join(dict.fromkeys(mine["metric"]))
            seeds = mine["seed"].nunique()
            some = f", {seeds} of {counts[name]} seeds" if seeds < counts[name] else ""
            no = "" if mine["value"].notna().any() else "no "
            about[str(name)] = f"{no}{names}{some}"
        remarks.append(Remark(merged([str(reason) for reason in alike["reason"]]), about))
    return remarks


def remarked(board: Board) -> list[Remark]:
    """What a reader of the table should know of its rows."""
    return [*marks(board), *below(board), *dear(board)]


def troubles(board: Board, runs: DataFrame, scores: DataFrame) -> list[Remark]:
    """Why numbers and ranks are missing, and what runs ended with and noted."""
    return [*ends(runs), *unranked_why(board), *dashes(runs, scores), *notes(runs)]


def marks(board: Board) -> list[Remark]:
    """In what rows are not better than the untrained base."""
    about = {row.sampler: row.behind for row in board.rows if row.behind}
    return [Remark(f"{BEHIND} not better than the untrained base", about)] if about else []


def below(board: Board) -> list[Remark]:
    """Scores better than those of exact draws."""
    about = {
        row.sampler: ", ".join(m for m, c in row.scores.items() if c.status is FloorStatus.BELOW)
        for row in board.rows
    }
    about = {name: metrics for name, metrics in about.items() if metrics}
    why = "better than exact draws by more than two sd, as correlated draws or missing tails can be"
    return [Remark(f"{why}; it counts against them", about)] if about else []


def dear(board: Board) -> list[Remark]:
    """Rows that paid more for their draws than for their training."""
    about = {row.sampler: "" for row in board.rows if row.spent.dear}
    return [Remark("drawing took more evaluations than training", about)] if about else []


def unranked_why(board: Board) -> list[Remark]:
    """Why a row has no rank, or not each of them."""
    rows = [
        (row.sampler, 0, why, "")
        for row in board.rows
        if row.ranks and row.finished
        for why in row.ranks.why
    ]
    return list(_gathered(rows, {row.sampler: 1 for row in board.rows}))
