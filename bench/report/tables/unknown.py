"""Markdown of what samplers say beside each other of a target whose truth is unknown."""

from __future__ import annotations

import math

from tiltbench.report.beside import Beside, StatisticSummary
from tiltbench.report.nearer import Ahead
from tiltbench.report.tables.grid import code, grid, sentence, text
from tiltbench.report.tables.legend import number, precise

# What the tables are: in Markdown, LaTeX and the page alike.
STATISTICS = "What the samplers say: mean ± standard error of each statistic, with the quantiles 5 %, 50 % and 95 %"  # noqa: E501
HOW_STATISTICS = (
    "Weighted where a sampler has weights. An error is that of the spread of independent chains, "
    "islands or weights within the runs, or of the runs about each other where that is larger. "
    "Agreement is no proof: samplers that miss the same part agree."
)
ENERGY_DISTANCES = "How far samplers are from each other: the energy distance between their draws, before weighting"  # noqa: E501
HOW_ENERGY_DISTANCES = (
    "A median over pairs of runs. On the diagonal stand two runs of one sampler with different "
    "seeds: distances of that size say nothing."
)
NEARER = (
    "Which is nearer to the target: by how many nats the row is than the column, ± standard error"
)
HOW_NEARER = (
    "KL(target | column) - KL(target | row) of paths, from draws and weights of both (`tiltbench "
    "versus`); of a path the KL divergence bounds that of its end from above. What both miss "
    "counts for neither."
)


def unranked(target: str) -> str:
    return (
        f"The truth of {target} is unknown, so there are no ranks: no score here sees what a "
        "sampler has missed, and one that never moved could have the best of them."
    )


def unknown(comparison: Beside | None) -> str:
    """The tables; empty where nobody has draws."""
    parts = (
        []
        if comparison is None
        else [_statistics(comparison), _distances(comparison), _nearer(comparison)]
    )
    return "\n\n".join(part for part in parts if part)


def _statistics(comparison: Beside) -> str:
    """A row a statistic, a column a sampler: mean ± error, and three quantiles below it."""
    if not comparison.statistics:
        return ""
    heads = ["statistic", *map(code, comparison.samplers)]
    rows = [[code(name), *map(_cell, row)] for name, row in comparison.statistics.items()]
    return f"**{STATISTICS}**\n\n{HOW_STATISTICS}\n\n{grid(heads, rows)}"


def _cell(summary: StatisticSummary | None) -> str:
    if summary is None:
        return "–"
    error = "" if summary.error is None else f" ± {summary.error:.1g}"
    mean = precise(summary.mean, summary.error or math.nan)
    return f"{mean}{error}<br>{', '.join(map(number, summary.quantiles))}"


def _distances(comparison: Beside) -> str:
    """A matrix."""
    if not comparison.distances:
        return ""
    rows = [
        [code(name), *("–" if value is None else number(value) for value in row)]
        for name, row in zip(comparison.samplers, comparison.distances, strict=True)
    ]
    table = grid(["sampler", *map(code, comparison.samplers)], rows)
    return f"**{ENERGY_DISTANCES}**\n\n{HOW_ENERGY_DISTANCES}\n\n{table}"


def _nearer(comparison: Beside) -> str:
    """A matrix of the samplers that could be compared, and why others could not."""
    samplers, ahead = comparison.compared
    names = list(map(code, samplers))
    rows = [[name, *map(_ahead, row)] for name, row in zip(names, ahead, strict=True)]
    why = "\n".join(f"- – {text(name)}: {sentence(why)}" for name, why in comparison.apart.items())
    if not rows and not why:
        return ""
    table = grid(["sampler", *names], rows) if rows else ""
    return "\n\n".join(filter(None, (f"**{NEARER}**", HOW_NEARER, table, why)))


def _ahead(by: Ahead | None) -> str:
    return "–" if by is None else f"{number(by.value)} ± {by.error:.1g}"
