"""What `diff` says of two result sets: what changed first, what chance may have done last."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from tiltbench.report.compare import LEVEL
from tiltbench.report.diff import Change, Comparison, ScoreChange, SeedChanges

SHOWN = 10  # of the differences that are not significant, the least likely ones


def sentences(comparison: Comparison, names: tuple[str, str]) -> str:
    """The comparison as text: what differs, what changed, what is missing, and a count of all."""
    parts = [f"A: {names[0]}\nB: {names[1]}", "\n".join(comparison.differs)]
    for change in (Change.WORSE, Change.BETTER, Change.LOST, Change.NEW):
        rows = sorted((r for r in comparison.rows if r.change is change), key=_unlikely_first)
        parts.append(_listed(f"{change.value.upper()} ({len(rows)})", rows))
    parts.append(_of_seeds(comparison.ends))
    tested = [row for row in comparison.rows if not math.isnan(row.p)]
    parts += [_suspects(tested), _counts(comparison, tested)]
    return "\n\n".join(part for part in parts if part)


def _listed(head: str, rows: Iterable[ScoreChange]) -> str:
    lines = [
        f"  {_where(row)} · {row.metric}: {_number(row.a)} -> {_number(row.b)}"
        + ("" if math.isnan(row.p) else f"  (p = {row.p:.2g}, {row.seeds} seeds)")
        for row in rows
    ]
    return "\n".join([head, *lines]) if lines else ""


def _unlikely_first(row: ScoreChange) -> tuple[float, tuple[Any, ...]]:
    return (0.0 if math.isnan(row.p) else row.p, row[:5])


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


def _where(row: ScoreChange | SeedChanges) -> str:
    limits = f", {row.limits}" if row.limits else ""
    return f"{row.target} ({row.budget:,}{limits}) · {row.sampler}"


def _of_seeds(ends: Iterable[SeedChanges]) -> str:
    words = {
        "failed": "finished in A, not in B",
        "mended": "finished in B, not in A",
        "lost": "recorded in A only",
        "new": "recorded in B only",
    }
    lines = [
        f"  {_where(end)}: {words[kind]}: seed {', '.join(map(str, getattr(end, kind)))}"
        for kind in words
        for end in ends
        if getattr(end, kind)
    ]
    return "\n".join(["RUNS", *lines]) if lines else ""


def _suspects(tested: list[ScoreChange]) -> str:
    """What an eye would pick out, beside what chance alone would give."""
    some = [row for row in tested if row.p < LEVEL and row.change is Change.ALIKE]
    if not some:
        return ""
    head = (
        f"NOT SIGNIFICANT, BUT p < {LEVEL:g} BEFORE CORRECTION ({len(some)}; of {len(tested)} "
        f"tests chance alone gives about {LEVEL * len(tested):.0f})"
    )
    rows = sorted(some, key=_unlikely_first)
    rest = f"\n  ... and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return _listed(head, rows[:SHOWN]) + rest


def _counts(comparison: Comparison, tested: list[ScoreChange]) -> str:
    counts = {change: sum(row.change is change for row in comparison.rows) for change in Change}
    listed = ", ".join(f"{n} {change.value}" for change, n in counts.items() if n)
    lines = [f"{len(comparison.rows)} scores: {listed or 'none in common'}."]
    whys = dict.fromkeys(row.why for row in comparison.rows if row.why)
    lines += [f"Not tested: {sum(r.why == why for r in comparison.rows)}, {why}." for why in whys]
    if tested:
        lines.append(
            f"Tests: {len(tested)}, paired t over common seeds, Holm over all of them, "
            f"{LEVEL:.0%}. With few seeds only large changes are significant."
        )
    if comparison.pace:
        lines.append(
            "Seconds a run, B over A: median {:.2f} ({:.2f} to {:.2f}).".format(*comparison.pace)
        )
    return "\n".join(lines)
