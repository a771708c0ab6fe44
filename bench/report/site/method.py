"""The page of a method: what it is, where it wins, what it costs, and every rank it has."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from statistics import median

from tiltbench.report.board import Spent
from tiltbench.report.site.markup import described, home, link, number, table
from tiltbench.report.site.results import HEADS, Result
from tiltbench.samplers.registry import SAMPLERS

COSTS: tuple[tuple[str, Callable[[Spent], float]], ...] = (
    ("calls in training", lambda spent: spent.calls),
    ("FLOP in training", lambda spent: spent.flops),
    ("seconds of training", lambda spent: spent.train_seconds),
    ("parameters", lambda spent: spent.parameters),
)


def method(name: str, mine: Sequence[Result]) -> list[str]:
    about = described(SAMPLERS, name)
    rows = [
        [
            link(f"../{r.suite.link}", r.suite.name),
            link(f"../{home('targets', r.board.target)}", r.board.target),
            html.escape(r.board.allowed),
            html.escape(r.row.sampler),
            *r.cells,
        ]
        for r in mine
    ]
    return [
        about,
        f"<h2>Where it wins</h2><p>{html.escape(wins(mine))}</p>",
        f"<h2>What it costs</h2><p>{html.escape(costs(mine))}</p>",
        "<h2>Every leaderboard</h2>",
        table(["suite", "target", "budget", "settings", *HEADS], rows),
    ]


def wins(mine: Sequence[Result]) -> str:
    """Where it ranks first, and where it is as good as exact draws."""
    ranked = [r for r in mine if r.rank is not None]
    if not ranked:
        return "No leaderboard ranks it: no truth is known where it ran, or no run finished."
    first = dict.fromkeys(r.board.target for r in ranked if r.rank == 1)
    level = dict.fromkeys(r.board.target for r in ranked if r.row.judged and r.row.judged.level)
    many = f"{len(ranked)} leaderboard{'' if len(ranked) == 1 else 's'}"
    sentences = [f"Of {many} it ranks first on {sum(r.rank == 1 for r in ranked)}{_listed(first)}."]
    sentences.append(
        f"It is as good as exact draws in every score on {len(level)} "
        f"target{'' if len(level) == 1 else 's'}{_listed(level)}."
    )
    behind = dict.fromkeys(r.board.target for r in mine if r.row.behind)
    if behind:
        sentences.append(
            f"It is not better than the untrained base on {len(behind)}{_listed(behind)}."
        )
    return " ".join(sentences)


def _listed(names: dict[str, None]) -> str:
    return f" ({', '.join(names)})" if names else ""


def costs(mine: Sequence[Result]) -> str:
    """The median over leaderboards, and the range."""
    parts = []
    for words, of in COSTS:
        values = [value for r in mine if (value := of(r.row.spent)) == value]
        if values and max(values) > 0:
            span = (
                f", {_size(min(values))} to {_size(max(values))}"
                if max(values) > min(values)
                else ""
            )
            parts.append(f"{words} {_size(median(values))}{span}")
    return f"Medians over its leaderboards, with the range: {'; '.join(parts)}." if parts else "–"


def _size(value: float) -> str:
    return f"{value:.1e}".replace("e+0", "e").replace("e+", "e") if value >= 1e7 else number(value)
