"""Published rows beside ours: from the stored runs of the parity suites, and two computed here."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from tiltbench.metrics.w2 import transport
from tiltbench.records.published import results
from tiltbench.report.frame import Frames, frames_of
from tiltbench.studies.common.stored import folder_of
from tiltbench.studies.parity import plug_in
from tiltbench.studies.parity.peers import SOURCE, peer_lines
from tiltbench.studies.parity.rows import (
    Agreement,
    Figure,
    File,
    Ours,
    PublishedRow,
    Source,
    agreement,
    ours,
    published,
    row_agreement,
)
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.densities.gmm40 import Gmm40
from tiltbench.targets.tilts.tilt_quadratic import POWER

if TYPE_CHECKING:
    from pandas import DataFrame

EXACT, GUIDED = 13, 17  # the rows that no sampler of a suite makes
BATCHES, BATCH = 25, 1_000  # of exact draws, against as many test points
DRAWS, STEPS = 100_000, 100  # of guidance
STRENGTHS = (1.0, 3.0)
NOTHING = (Agreement.NOT_RUN, Agreement.UNCLEAR)
WIDEST = 3.0  # standard errors between guidance and its closed form

T = TypeVar("T")


class OurResult(NamedTuple):
    """What a row of ours has come to: a figure each, and CPU-minutes a run (NaN: not run); the
    settings that share its label, where they are more than one."""

    figures: tuple[Ours | None, ...]
    minutes: float
    settings: tuple[str, ...] = ()


class Case(NamedTuple):
    """Guidance on one Gaussian: its closed form with the steps it takes, and what was sampled."""

    variance: float
    strength: float
    tilted: plug_in.Law
    limit: plug_in.Law
    steps: plug_in.Law
    sampled: plug_in.SampledLaw

    @property
    def z(self) -> tuple[float, float]:
        """Standard errors from the closed form: of what is left of the way, of the variance."""
        sampled = self.sampled
        return (
            (sampled.kept - self.steps.kept) / sampled.kept_se,
            (sampled.variance - self.steps.variance) / sampled.variance_se,
        )


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    file = published()
    cases, minutes = _timed(lambda: list(_guided(device)))
    by_row = {row: _our_result(row) for row in file.row}
    lines = [
        line for row in file.row for line in _figure_lines(file, row, by_row[row], cases, minutes)
    ]
    of_peers = list(peer_lines())
    words = "\n\n".join([_summary(file, lines, of_peers), *_unclear(by_row)])
    return Answer(DataFrame([*lines, *of_peers]), words, (_claim(cases),))


def _our_result(row: PublishedRow) -> OurResult:
    return _exact(row) if row.number == EXACT else _stored(row)


def _unclear(by_row: Mapping[PublishedRow, OurResult]) -> Iterator[str]:
    """Why rows are not judged, and what to do."""
    for row, mine in by_row.items():
        if mine.settings:
            yield (
                f"*Not judged*: the runs of {row.sampler} on {row.target} in the results of "
                f"{row.suite} are of {len(mine.settings)} settings ({'; '.join(mine.settings)}). "
                "Take away those that are not meant (`tiltbench run --dry-run` names the runs of "
                "the suite as it is), and run the study again."
            )


def _figure_lines(
    file: File, row: PublishedRow, result: OurResult, cases: list[Case], minutes: float
) -> Iterator[dict[str, str | float]]:
    """A line a figure; what belongs to the whole row stands in its first line."""
    if row.number == GUIDED:
        yield from _guided_lines(row, cases, minutes)
        return
    agreements = [agreement(*both) for both in zip(row.figures, result.figures, strict=True)]
    if result.settings:
        agreements = [Agreement.UNCLEAR] * len(agreements)
    whole, why = row_agreement(agreements), file.source[row.source].differences
    for i, (figure, mine) in enumerate(zip(row.figures, result.figures, strict=True)):
        seeds = "" if mine is None else str(mine.seeds)
        yield {
            **_head(row, first=i == 0),
            "figure": figure.name,
            "published": _printed(figure),
            "ours": "–" if mine is None else str(mine),
            "seeds": seeds,
            "figure is": str(agreements[i]),
            "row is": f"**{whole}**" if i == 0 else "",
            "CPU-minutes a run": _minutes(result.minutes) if i == 0 else "",
            "differences": row.source if i == 0 and why and whole not in NOTHING else "",
        }
    if not row.figures:
        yield {**_blank(row), "row is": f"**{whole}**"}


def _head(row: PublishedRow, first: bool) -> dict[str, str | float]:
    if not first:
        return {"row": "", "source": "", "target, method": ""}
    return {"row": str(row.number or ""), "source": row.source, "target, method": row.name}


def _blank(row: PublishedRow) -> dict[str, str | float]:
    names = ("figure", "published", "ours", "seeds", "figure is", "row is", "CPU-minutes a run")
    return {**_head(row, first=True), **dict.fromkeys((*names, "differences"), "")}


def _printed(figure: Figure) -> str:
    return f"{figure.mean:g}" + ("" if math.isnan(figure.sd) else f" ± {figure.sd:g}")


def _minutes(minutes: float) -> str:
    return "" if math.isnan(minutes) else f"{minutes:.1f}"


def _stored(row: PublishedRow) -> OurResult:
    """From the runs of the row's suite, one a seed; errors count by their size."""
    lacking = OurResult((None,) * len(row.figures), math.nan)
    frames = _frames(row.suite) if row.suite else None
    if frames is None:
        return lacking
    runs = _of(frames.runs, row)
    runs = runs[runs["finished"]]
    if runs.empty:
        return lacking
    settings = _settings(frames, runs)
    if len(settings) > 1:
        return lacking._replace(settings=settings)
    scores = _of(frames.scores, row)
    figures = [
        ours([abs(v) for v in scores.loc[scores["metric"] == figure.metric, "value"]])
        for figure in row.figures
    ]
    return OurResult(tuple(figures), float(runs["cpu_seconds"].mean()) / 60)


@cache
def _frames(suite: str) -> Frames | None:
    try:
        return frames_of(results(folder_of(suite)))
    except FileNotFoundError:
        return None


def _of(frame: DataFrame, row: PublishedRow) -> DataFrame:
    """The row's runs, and those that `frames_of` labels with a bracket behind the name."""
    label = frame["sampler"]
    mine = (label == row.sampler) | label.str.startswith(f"{row.sampler} (")
    return frame[(frame["target"] == row.target) & mine]


def _settings(frames: Frames, runs: DataFrame) -> tuple[str, ...]:
    """What runs that share a label were run with, all but the seed, in words: one, as a rule."""
    specs = {
        record.id: {**record.spec, "seed": None, "budget": {**record.spec["budget"], "measure": 0}}
        for record in frames.records
    }
    seeds: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    for run in runs.itertuples(index=False):
        key = json.dumps(specs[run.id], sort_keys=True)
        seeds.setdefault(key, []).append(run.seed)
        budget = filter(None, (f"{run.budget:,} calls", run.limits))
        names[key] = f"{run.sampler}, {', '.join(budget)}"
    return tuple(
        f"{names[key]}, seeds {', '.join(map(str, sorted(of)))}" for key, of in seeds.items()
    )


def _exact(row: PublishedRow) -> OurResult:
    """W2 between two sets of exact draws, batch by batch."""

    def batches() -> list[float]:
        sample = Gmm40().truth().sample
        assert sample is not None
        source, distances = torch.Generator().manual_seed(0), []
        for _ in range(BATCHES):
            x, y = sample(BATCH, source), sample(BATCH, source)
            distances.append(transport(torch.cdist(x, y).square()))
        return distances

    distances, minutes = _timed(batches)
    return OurResult((ours(distances),) * len(row.figures), minutes / BATCHES)


def _guided(device: str) -> Iterator[Case]:
    for base in plug_in.components(STEPS):
        (v,) = base.variances
        clock = plug_in.clock(base)
        for strength in STRENGTHS:
            yield Case(
                v,
                strength,
                plug_in.tilted(v, POWER, strength),
                plug_in.guided(v, POWER, strength),
                plug_in.stepped(clock, POWER, strength),
                plug_in.sampled(base, strength, DRAWS, 0, device),
            )


def _guided_lines(
    row: PublishedRow, cases: list[Case], minutes: float
) -> Iterator[dict[str, str | float]]:
    met = all(abs(z) < WIDEST for case in cases for z in case.z)
    for i, case in enumerate(cases):
        of = f"base variance {case.variance:g}, strength {case.strength:g}"
        pairs = (
            ("left of the way", case.tilted.kept, case.limit.kept, case.sampled.kept, case.z[0]),
            (
                "variance",
                case.tilted.variance,
                case.limit.variance,
                case.sampled.variance,
                case.z[1],
            ),
        )
        for j, (name, exact, limit, measured, z) in enumerate(pairs):
            first = i == j == 0
            yield {
                **_head(row, first),
                "figure": f"{name}: {of}; the tilt has {exact:.4f}",
                "published": f"{limit:.4f}",
                "ours": f"{measured:.4f}, {z:+.1f} standard errors from the closed form of its "
                "steps",
                "seeds": "1",
                "figure is": str(Agreement.MET if abs(z) < WIDEST else Agreement.WORSE),
                "row is": f"**{Agreement.MET if met else Agreement.WORSE}**" if first else "",
                "CPU-minutes a run": _minutes(minutes / len(cases)) if first else "",
                "differences": "",
            }


def _claim(cases: list[Case]) -> Claim:
    worst = max(abs(z) for case in cases for z in case.z)
    return Claim(
        "On a Gaussian with a quadratic reward plug-in guidance goes too far towards the reward's "
        "best point and is too narrow, by a closed form (arXiv 2606.02884)",
        verdict(worst < WIDEST, worst > WIDEST + 1),
        f"mean and variance of {DRAWS:,} draws of `guidance` in {len(cases)} cases are at most "
        f"{worst:.1f} standard errors from the closed form; in the limit of many steps it leaves "
        + ", ".join(f"{case.limit.kept:.3f}" for case in cases)
        + " of the way where the tilt leaves "
        + ", ".join(f"{case.tilted.kept:.3f}" for case in cases),
    )


def _timed(work: Callable[[], list[T]]) -> tuple[list[T], float]:
    """What it returns, and its CPU-minutes."""
    begun = time.process_time()
    value = work()
    return value, (time.process_time() - begun) / 60


def _counts(lines: list[dict[str, str | float]]) -> tuple[int, str]:
    """How many rows there are, and how many of each agreement."""
    agreements = [str(line["row is"]).strip("*") for line in lines if line["row is"]]
    shown = [v for v in Agreement if v is not Agreement.UNCLEAR or v in agreements]
    return len(agreements), ", ".join(f"{agreements.count(v)} {v}" for v in shown)


def _summary(
    file: File, lines: list[dict[str, str | float]], of_peers: list[dict[str, str | float]]
) -> str:
    (rows, counts), (runs, peer_counts) = _counts(lines), _counts(of_peers)
    return "\n\n".join(
        [
            f"Of {rows} published rows: {counts}. Of {runs} runs of the peers' own code "
            f"({SOURCE}): {peer_counts}. Means ± standard deviations over "
            "runs. A figure is *met* where ours lies within two joint standard deviations of the "
            "published one, *better* or *worse* beyond that; a row is worse where one of its "
            "figures is. An error counts by its size. Runs are those of the suites `parity`, "
            "`parity_metropolis`, `quality` and `quality_funnel`.",
            "\n".join(_sources(file.source)),
        ]
    )


def _sources(sources: Mapping[str, Source]) -> Iterator[str]:
    for key, source in sources.items():
        here = f" Here: {source.differences}." if source.differences else ""
        protocol = source.protocol[0].upper() + source.protocol[1:]
        yield f"- **{key}**: {source.title}. {protocol}.{here}"


parity = Study("parity", "Published rows, and ours beside them", run)
