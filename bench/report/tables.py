"""Leaderboards in Markdown: rows samplers, columns metrics, every score beside its floor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tiltbench.estimators import MEETING
from tiltbench.evaluate import DISTANCES
from tiltbench.metric import KINDS
from tiltbench.report.compare import (
    Cell,
    Order,
    Verdict,
    best,
    cell,
    orders,
)
from tiltbench.report.frame import BLOCK, SUFFIX, Frames, metric_of
from tiltbench.report.misled import Misled, misled
from tiltbench.report.provenance import provenance

if TYPE_CHECKING:
    from pandas import DataFrame

TRUTH = {"sample", "modes", "observables", "log_Z", "reverse"}  # needs that only the target meets
MARK = {Verdict.AT: "≈ ", Verdict.BELOW: "▼ "}
SLANTED = {"config_w2", "log_Z_own_err"}  # in the overview, where they stand in for another
ARROW = {"lower": "↓", "higher": "↑"}
LEGEND = """\
Each score is the median over seeds [smallest, largest]; `±` is a run's own standard error, \
`| a±b` what exact draws score (the floor: mean and sd over 20 pairs of exact sets of that size). \
`≈` at the floor, within 2 sd: such scores are not ranked against each other. `▼` more than 2 sd \
*below* it (correlated draws, contracted tails): never best. *(grey)* the floor is too noisy to \
rank by. `–` no number, for the reason below the table. ↓ smaller is better, ↑ larger. \
**Bold**: not told apart from the best (paired t over seeds, Holm, 5 %), with five seeds or more; \
never for scores that know nothing of the truth (ess_model). \
Place: by the energy distance in the table (config_w2 of particles; the median of log_Z_err, \
without its sign, where there are no exact draws); all at the floor (`≈`) share the first, nothing \
else ties; none for a score below the floor (`▼`) or a method of which a run did not train for a \
single step. Then the place with a gradient priced at 2 values: where that bill exceeds the \
allowance, the score is increased by what the learning curve (fewer draws than the table) loses \
when it is cut off where the bill meets the allowance; `⇄` marks a change. \
Spent: evaluations of the target in training and, apart from it, in drawing; `⚠` drawing took more \
points than training. Calls, beside the scores: the larger of values and gradients in training, \
which may be far below the allowance. \
obs_z and obs_b2 at the floor say only that the error bar covers the truth: one made wide by a few \
draws that carry all the weight does so too."""


PHYSICS = """\
Of particles and lattices: energy_w2 (nats) compares one energy a draw, distance_w2 interatomic \
distances, config_w2 configurations whatever their names and pose (bounded from above for more \
than five particles, by 100 draws a side). No sampler needs to mix over names and pose: places go \
by config_w2, and energy_distance, mmd and w2 give every draw of particles random ones first, as \
exact draws have. These three then see mostly pose and little of shape: to be at their floor says \
little. magnetisation_err is 1 where one of two phases is lost; two_point_err and energy_w2 do not \
see that."""


def markdown(frames: Frames, folder: Path) -> str:
    """The whole of table.md."""
    parts = [f"# {folder.name}", LEGEND]
    seen = frames.scores[frames.scores["value"].notna()]["metric"].unique()
    if any(metric_of(name).needs & {"particles", "lattice"} for name in seen):
        parts.append(PHYSICS)
    parts += [_tuning(frames.runs), _overview(frames), _misled(misled(frames)), _unmet(frames)]
    for (target, budget), runs in frames.runs.groupby(BLOCK):
        mine = (frames.scores["target"] == target) & (frames.scores["budget"] == budget)
        parts.append(
            _leaderboard(f"{target} · {budget:,} points", runs, frames.scores[mine], frames)
        )
    parts.append(provenance(frames.records, folder))
    return "\n\n".join(part for part in parts if part) + "\n"


def _tuning(runs: DataFrame) -> str:
    """Which methods had the same random search, and which have their parameters by hand."""
    each = {s: set(rows["tuned"]) for s, rows in runs.groupby("sampler", sort=False)}
    tuned = [f"`{s}` ({', '.join(sorted(t - {''}))})" for s, t in each.items() if t != {""}]
    by_hand = [f"`{s}`" for s, t in each.items() if "" in t]
    if not tuned:
        return "Untuned: every method has default or hand-chosen parameters (`tiltbench tune`)."
    said = f"Tuned by `tiltbench tune`: {', '.join(tuned)}."
    return f"{said} Untuned on a target or on all: {', '.join(by_hand)}." if by_hand else said


def _unmet(frames: Frames) -> str:
    """A warning for every target and sampler whose forward and reverse weights hardly meet."""
    rows = frames.scores[frames.scores["metric"] == "overlap"]
    rows = rows[rows["value"] < MEETING]
    if rows.empty:
        return ""
    lines = [
        f"- {target}, `{sampler}`: {', '.join(f'{v:.2g}' for v in own['value'])}"
        for (target, sampler), own in rows.groupby(["target", "sampler"], sort=False)
    ]
    head = (
        "## Two sides that do not meet\n\nRuns whose overlap of forward and reverse weights is "
        f"below {MEETING:g}: the Bennett estimate rests on a few paths, and its error bar is wide."
    )
    return head + "\n\n" + "\n".join(lines)


def _leaderboard(title: str, runs: DataFrame, scores: DataFrame, frames: Frames) -> str:
    names = columns_of(scores)
    comparing = [n for n in names if metric_of(n).needs & {"sample", "modes", "observables"}]
    drawn = [n for n in comparing if not n.endswith(SUFFIX)]
    weighted = [n for n in comparing if n.endswith(SUFFIX)]
    probes = [n for n in names if any(need.startswith("probe.") for need in metric_of(n).needs)]
    rest = [n for n in names if n not in comparing and n not in probes]
    places = orders(runs, ranked(runs, scores), frames.curves)
    parts = [f"## {title}", _cost(runs, scores, probes, places)]
    for caption, columns in (
        ("Draws, as they are", drawn),
        ("Draws, after weighting", weighted),
        ("log Z and weights", rest),
    ):
        if columns:
            parts += [f"**{caption}**", _grid(runs, scores, columns)]
    return "\n\n".join([*parts, _reasons(runs, scores)])


def ranked(runs: DataFrame, scores: DataFrame) -> dict[str, Cell]:
    """The cells that places go by: the distance to exact draws or, where nobody has one, the error
    of log Z."""
    for name in (*DISTANCES, "log_Z_err"):
        rows, metric = scores[scores["metric"] == name], metric_of(name)
        cells = {s: cell(rows[rows["sampler"] == s], metric) for s in set(runs["sampler"])}
        found = {s: c for s, c in cells.items() if c is not None}
        if found:
            return {s: _unsigned(c) if name == "log_Z_err" else c for s, c in found.items()}
    return {}


def _unsigned(c: Cell) -> Cell:
    return c._replace(median=abs(c.median))


def columns_of(scores: DataFrame) -> list[str]:
    """The metrics that at least one run has a value for, in the order of the registry."""
    have = scores[scores["value"].notna()]["metric"]
    return list(dict.fromkeys(name for name in scores["metric"] if name in set(have)))


def _grid(runs: DataFrame, scores: DataFrame, columns: list[str]) -> str:
    """A row a sampler: the calls it spent, then its scores."""
    samplers = list(dict.fromkeys(runs["sampler"]))
    calls = runs[runs["finished"]].set_index("sampler")[["values", "grads"]].max(axis=1)
    texts = {name: [_median(calls[calls.index == name])] for name in samplers}
    for column in columns:
        rows = scores[scores["metric"] == column]
        metric = metric_of(column)
        found = {s: cell(rows[rows["sampler"] == s], metric) for s in samplers}
        cells = {s: c for s, c in found.items() if c is not None}
        bold = best(cells) if metric.perfect and metric.needs & TRUTH else set()
        for name in samplers:
            made = found[name]
            texts[name].append(_text(made, name in bold) if made else "–")
    heads = [f"{c.removesuffix(SUFFIX)} {ARROW[metric_of(c).better]}" for c in columns]
    shown = {name: row for name, row in texts.items() if any(text != "–" for text in row[1:])}
    return _table(
        ["sampler", "calls", *heads], [[f"`{name}`", *row] for name, row in shown.items()]
    )


def _text(c: Cell, bold: bool) -> str:
    number = _number(c.median)
    text = f"**{number}**" if bold else number
    if len(c.seeds) > 1:
        text += f" [{_number(c.low)}, {_number(c.high)}]"
    if c.verdict is Verdict.NONE:
        return text + ("" if math.isnan(c.se) else f" ±{c.se:.1g}")
    text = f"{MARK.get(c.verdict, '')}{text} \\| {_number(c.floor_mean)}±{c.floor_sd:.1g}"
    return f"*({text})*" if c.verdict is Verdict.UNFIT else text


def _number(value: float) -> str:
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _cost(runs: DataFrame, scores: DataFrame, probes: list[str], places: dict[str, Order]) -> str:
    rows = []
    for name, mine in runs.groupby("sampler", sort=False):
        good = mine[mine["finished"]]
        row = [
            f"`{name}`",
            _placed(places.get(str(name))),
            f"{len(good)} of {len(mine)}{_status(mine)}",
            _median(good["draws"]) + _fewer(good),
            _median(good["values"]),
            _median(good["grads"]),
            _median(good["draw_values"]) + _dear(good),
            _median(good["draw_grads"]),
            _median(good["seconds"], ".1f"),
            _median(good["parameters"]),
        ]
        for probe in probes:
            found = scores[(scores["metric"] == probe) & (scores["sampler"] == name)]
            made = cell(found, metric_of(probe))
            row.append(_text(made, False) if made else "–")
        rows.append(row)
    heads = [
        "sampler",
        "place (grad = 2)",
        "seeds",
        "draws",
        "values",
        "grads",
        "drawing: values",
        "drawing: grads",
        "seconds",
        "parameters",
    ]
    return _table([*heads, *probes], rows)


def _placed(order: Order | None) -> str:
    if order is None or order.place is None:
        return "–"
    changed = " ⇄" if order.priced is not None and order.place != order.priced else ""
    return f"{order.place} / {order.priced or '–'}{changed}"


def _dear(runs: DataFrame) -> str:
    """A mark where a run took more points to draw than to train."""
    drawing = runs[["draw_values", "draw_grads"]].max(axis=1)
    return " ⚠" if (drawing > runs[["values", "grads"]].max(axis=1)).any() else ""


def _status(runs: DataFrame) -> str:
    bad = runs[~runs["finished"]]["status"]
    return "".join(f", {count} {name.upper()}" for name, count in bad.value_counts().items())


def _fewer(runs: DataFrame) -> str:
    return " (fewer than asked)" if (runs["draws"] < runs["asked"]).any() else ""


def _median(values: DataFrame, form: str = ",.0f") -> str:
    values = values.dropna().astype(float)
    return format(float(values.median()), form) if len(values) else "–"


def _reasons(runs: DataFrame, scores: DataFrame) -> str:
    """Why there is a dash, what became of runs that did not finish, and what runs noted."""
    lines = []
    bad = runs[~runs["finished"]]
    for (name, status, reason), mine in bad.groupby(["sampler", "status", "reason"], sort=False):
        seeds = ", ".join(str(seed) for seed in mine["seed"])
        lines.append(f"- `{name}` {status.upper()} (seed {seeds}): {reason or 'no message'}")
    # a score without a value, or without a floor; what is made for other targets is no dash
    missing = scores[(scores["reason"] != "") & ~scores["reason"].isin(KINDS.values())]
    counts = runs[runs["finished"]].groupby("sampler").size()
    alike: dict[tuple[str, str], list[str]] = {}
    for (name, reason), mine in missing.groupby(["sampler", "reason"], sort=False):
        seen, seeds = ", ".join(dict.fromkeys(mine["metric"])), mine["seed"].nunique()
        seen = seen if mine["value"].notna().any() else f"no {seen}"
        some = f" ({seeds} of {counts[name]} seeds)" if seeds < counts[name] else ""
        alike.setdefault((seen, str(reason)), []).append(f"`{name}`{some}")
    for (seen, reason), names in alike.items():
        lines.append(f"- {seen} for {', '.join(names)}: {reason}")
    lines += _notes(runs)
    text = "\n".join(lines)
    return (
        f"<details><summary>Dashes and failures</summary>\n\n{text}\n\n</details>" if text else ""
    )


def _notes(runs: DataFrame) -> list[str]:
    """Every note once, with its samplers."""
    counts = runs.groupby("sampler").size()
    noted: dict[str, dict[str, int]] = {}
    for _, run in runs.iterrows():
        for note in dict.fromkeys(run["notes"]):
            mine = noted.setdefault(note, {})
            mine[run["sampler"]] = mine.get(run["sampler"], 0) + 1
    return [
        "- "
        + ", ".join(
            f"`{name}`" + (f" ({seeds} of {counts[name]} seeds)" if seeds < counts[name] else "")
            for name, seeds in mine.items()
        )
        + f": {note}"
        for note, mine in noted.items()
    ]


def _overview(frames: Frames) -> str:
    """Samplers against targets: distance to exact draws and error of log Z."""
    parts = []
    for caption, choices in (
        ("Distance to exact draws: energy distance, of particles *config_w2* (`≈` at the floor, "
         "`▼` below it)", DISTANCES),
        ("Error of log Z, nats (forward; *own* where the method has no weights)",
         ("log_Z_err", "log_Z_own_err")),
    ):  # fmt: skip
        grid = _matrix(frames, choices)
        if grid:
            parts.append(f"**{caption}**\n\n{grid}")
    return "## Overview\n\n" + "\n\n".join(parts) if parts else ""


def _matrix(frames: Frames, choices: tuple[str, ...]) -> str:
    scores = frames.scores[frames.scores["metric"].isin(choices)]
    blocks = list(frames.runs.groupby(BLOCK).groups)
    many = len({budget for _, budget in blocks}) > 1
    rows = []
    for sampler in dict.fromkeys(sorted(frames.runs["sampler"])):
        row = [f"`{sampler}`"]
        for target, budget in blocks:
            here = (scores["target"] == target) & (scores["budget"] == budget)
            row.append(_brief(scores[here & (scores["sampler"] == sampler)], choices))
        rows.append(row)
    if all(text == "–" for row in rows for text in row[1:]):
        return ""
    heads = [f"{target} ({budget:,})" if many else target for target, budget in blocks]
    return _table(["sampler", *heads], rows)


def _brief(rows: DataFrame, choices: tuple[str, ...]) -> str:
    for name in choices:
        made = cell(rows[rows["metric"] == name], metric_of(name))
        if made:
            text = MARK.get(made.verdict, "") + _number(made.median)
            return f"*{text}*" if name in SLANTED else text
    return "–"


def _misled(found: list[Misled]) -> str:
    """At most three runs of a target and sampler are many; the worst one of each is told."""
    title = "## One-sided against two-sided"
    if not found:
        return f"{title}\n\nNo run looks good from its own side and bad from the target's."
    worst: dict[tuple[str, str], list[Misled]] = {}
    for m in found:
        worst.setdefault((m.target, m.sampler), []).append(m)
    lines = [
        f"- {runs[0].sentence}" + (f" ({len(runs)} seeds alike.)" if len(runs) > 1 else "")
        for runs in worst.values()
    ]
    return "\n".join([title, "", *lines])


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
