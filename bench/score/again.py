"""Published scores checked: computed anew from the archived draws, and compared one by one."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tiltbench.plan.errors import Refused
from tiltbench.records.archive import unpack
from tiltbench.records.files import write_json
from tiltbench.records.published import Results, read, results
from tiltbench.records.record import write_record
from tiltbench.score.folder import Progress, score

ROUNDING = 1e-6  # relative: processors add in different orders
WORDS = ("reason", "no_floor", "no_error")  # of a score, which are no numbers


class ScoreComparison(NamedTuple):
    """How the numbers of two sets of scores of the same runs compare.  A score is its value, its
    error, its number of draws and its floor; a learning curve counts as one score."""

    runs: int
    same: int  # to the bit
    near: int  # to rounding
    apart: tuple[str, ...]  # a sentence for each score that is another
    new: int  # scores that were not published

    @property
    def sentence(self) -> str:
        counts = [f"{self.same:,} the same to the bit"]
        counts += [f"{self.near:,} the same to rounding (1e-6)"] if self.near else []
        counts += [f"{len(self.apart):,} different"] if self.apart else []
        counts += [f"{self.new:,} new, of metrics that were not published"] if self.new else []
        total = self.same + self.near + len(self.apart) + self.new
        return f"{total:,} scores and curves of {self.runs:,} runs: {', '.join(counts)}"


def score_again(
    published: Path, archive: Path, out: Path, jobs: int = 0, progress: Progress | None = None
) -> ScoreComparison:
    """Unpacks the archive of a published set beside its records into a new results folder `out`,
    scores every run there, and compares.

    Raises Refused where the archive is not that of the set, and where `out` holds anything."""
    old = read(published)
    if old.archive is None:
        raise Refused(
            f"{published} was published without an archive of its draws, so that its scores "
            "cannot be made anew; the command under Provenance in its table.md makes the runs anew"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused(f"{out} is not empty; name another folder with --out")
    fresh = out.with_name(f".{out.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        unpack(archive, old.archive, old.sums, fresh / "runs")
        for record in old.records:
            write_record(fresh / "runs", record)
        write_json(fresh / "suite.json", {**old.suite, "cells": _cells(old)})
        fresh.replace(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    score(out, force=True, jobs=jobs, progress=progress)
    return compare(old.scores, results(out).scores)


def compared(folder: Path, jobs: int = 0, progress: Progress | None = None) -> ScoreComparison:
    """Scores every run of a plain results folder again, beside it, and compares with the scores
    that came with it; nothing in `folder` changes.  What was never scored counts as different.

    Raises Refused where no run came with scores."""
    old = results(folder)
    if not old.scores:
        raise Refused(f"{folder} came without scores to compare with; `tiltbench score` makes them")
    # beside it, so that hints to plug-in files, which are relative, hold
    fresh = folder.with_name(f".{folder.resolve().name}.again")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        unscored = shutil.ignore_patterns("*.scores.json", "*.log", "*.tmp")
        shutil.copytree(folder / "runs", fresh / "runs", ignore=unscored)
        score(fresh, force=True, jobs=jobs, progress=progress)
        bare: dict[str, Any] = {r.id: {"scores": {}} for r in old.records if r.status.finished}
        again = compare({**bare, **old.scores}, results(fresh).scores)
        lacking = [f"{run} came without scores" for run in bare if run not in old.scores]
        return again._replace(apart=(*lacking, *again.apart))
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _cells(old: Results) -> list[dict[str, Any]]:
    """What was asked for: every run of the set, and those that are missing."""
    mine = [
        {"id": record.id, "seed": record.spec["seed"], **_names(record.labels)}
        for record in old.records
    ]
    return [*mine, *old.suite.get("cells", ())]


def _names(labels: Mapping[str, str]) -> dict[str, str]:
    return {key: labels[key] for key in ("target", "sampler")}


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> ScoreComparison:
    """Of what two `Results.scores` hold."""
    same = near = fresh = 0
    apart = []
    for run in dict.fromkeys([*old, *new]):
        before, after = _parts(old.get(run)), _parts(new.get(run))
        for name in dict.fromkeys([*before, *after]):
            if name not in before:
                fresh += 1
                continue
            one, two = list(_leaves(before[name])), list(_leaves(after.get(name)))
            if one == two:
                same += 1
            elif len(one) == len(two) and all(map(_close, one, two)):
                near += 1
            else:
                change = f"{_format_score(before[name])} -> {_format_score(after.get(name))}"
                apart.append(f"{run}, {name}: {change}")
    return ScoreComparison(len(old), same, near, tuple(apart), fresh)


def _parts(scored: Mapping[str, Any] | None) -> dict[str, Any]:
    """The scores by metric, and the curve."""
    if scored is None:
        return {}
    curve = {"learning curve": scored["curve"]} if scored.get("curve") else {}
    return {**scored["scores"], **curve}


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers of a score in a fixed order, with their places, without nulls and reasons."""
    if isinstance(value, Mapping):
        for key in sorted(set(value) - set(WORDS)):
            yield from _leaves(value[key], f"{place}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{place}.{i}")
    elif value is not None:
        yield place, value


def _close(one: tuple[str, Any], two: tuple[str, Any]) -> bool:
    (place, a), (other, b) = one, two
    if place != other:
        return False
    if type(a) is float and type(b) is float:
        return math.isclose(a, b, rel_tol=ROUNDING, abs_tol=ROUNDING**2)
    return bool(a == b)


def _format_score(score: Any) -> str:
    if not isinstance(score, Mapping):
        return "nothing"
    if "spend" in score:
        return f"{len(score['spend'])} points"
    value = score.get("value")
    return str(score.get("reason") if value is None else value)
