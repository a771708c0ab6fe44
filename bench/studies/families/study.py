"""Which family of methods wins where, at equal calls and at equal compute?  From the stored runs of
`standard`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tiltbench.plan.toml import load_suite
from tiltbench.records.published import results
from tiltbench.report.board import boards
from tiltbench.report.compare import LEVEL, holm
from tiltbench.report.frame import Frames, frames_of
from tiltbench.report.pictures.style import COLOURS, GREY, picture
from tiltbench.report.places import GROUPS
from tiltbench.report.tables.grid import frame_grid
from tiltbench.studies.common.stored import folder_of
from tiltbench.studies.families.paired import Pair, paired
from tiltbench.study import Answer, Claim, Study, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUITE = "standard"
MOST = 12.0  # doublings that count: a run that failed, or lies farther off, has so many
FAMILIES: dict[str, tuple[str, ...]] = {
    "path weights": (
        "log_variance", "trust_region_log_variance", "trust_region_cross_entropy", "pis",
        "trajectory_balance", "subtrajectory_balance", "detailed_balance", "relative_entropy",
    ),
    "values": ("importance_fine_tuning", "tilt_matching", "monte_carlo_score_matching"),
    "gradients": ("adjoint_matching", "adjoint_sampling", "target_score_matching"),
    "escorts": (),  # whatever their loss: see ESCORTING
    "classical": ("smc", "hmc", "parallel_tempering", "ais", "mala", "rwm"),
}  # fmt: skip
ESCORTING = ("Escorted", "Resampled", "Transported")  # recipes
READINGS = {"compute": "equal compute", "calls": "equal calls"}


class Stand(NamedTuple):
    """A method on a target: how far off it is, by seed."""

    target: str
    method: str  # as the suite calls it
    family: str
    # by reading: doublings of the worst score, a seed each; NaN: not known, counts nowhere
    off: Mapping[str, tuple[float, ...]]

    def mean(self, reading: str) -> float:
        """Over the seeds that are known; NaN where none is."""
        known = [off for off in self.off[reading] if off == off]
        return float(np.mean(known)) if known else math.nan

    def known(self, reading: str) -> bool:
        return any(off == off for off in self.off[reading])


def family_of(sampler: Mapping[str, Any]) -> str | None:
    """By the loss and the recipe of a sampler's spec; None: of none of them."""
    if sampler["params"].get("recipe", {}).get("name") in ESCORTING:
        return "escorts"
    return next((family for family, names in FAMILIES.items() if sampler["name"] in names), None)


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    frames = frames_of(results(folder_of(SUITE)))
    planned = {(t.label, s.label) for t, s in load_suite(SUITE).pairs}
    stands, unready = read(frames, planned)
    if not stands:
        raise FileNotFoundError(f"no seed of {SUITE} is complete on any target yet")
    tests = {reading: compared(stands, reading) for reading in READINGS}
    _draw(folder / "families.png", stands)
    pairs = DataFrame(list(_pair_lines(tests)))
    methods = DataFrame(list(_method_lines(stands)))
    return Answer(
        DataFrame(list(_target_lines(stands))),
        "\n\n".join([_words(stands, unready), frame_grid(pairs), METHODS, frame_grid(methods)]),
        tuple(_claims(tests)),
    )


def read(frames: Frames, planned: Iterable[tuple[str, str]]) -> tuple[list[Stand], int]:
    """Every method on every target, and how many pairs of target and seed were left out because a
    method that is `planned` there, (target, method), has no record yet."""
    runs, scores = frames.runs, frames.scores
    scores = scores[scores["metric"].isin({m for metrics in GROUPS.values() for m in metrics})]
    families = {r.labels["sampler"]: family_of(r.spec["sampler"]) for r in frames.records}
    offs: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    unready = 0
    for seed in sorted(set(runs["seed"])):
        own = frames._replace(
            runs=runs[runs["seed"] == seed], scores=scores[scores["seed"] == seed]
        )
        for board in boards(own):
            wanted = {method for target, method in planned if target == board.target}
            if not wanted <= {row.sampler for row in board.rows}:
                unready += 1
                continue
            for row in board.rows:
                family = families[row.sampler]
                if family is None or "unsupported" in row.ends:
                    continue
                order = row.place
                if order is None or order.place is None:  # it failed
                    pair = MOST, MOST
                else:
                    pair = capped(order.compute_off), capped(order.calls_off)
                offs.setdefault((board.target, row.sampler, family), []).append(pair)
    stands = []
    for (target, method, family), by_seed in offs.items():
        compute, calls = zip(*by_seed, strict=True)
        stands.append(Stand(target, method, family, {"compute": compute, "calls": calls}))
    return stands, unready


def capped(off: float) -> float:
    """At most MOST; NaN stays NaN."""
    return off if off != off else min(off, MOST)


def standing_for(stands: Sequence[Stand], target: str, family: str, reading: str) -> Stand | None:
    """Who stands for a family on a target: of its methods that apply there the one that is nearest
    on the *other* targets, in the mean.  So no family gains by the number of its methods: none is
    chosen where it is judged."""
    known = [s for s in stands if s.known(reading)]
    here = [s for s in known if s.target == target and s.family == family]

    def elsewhere(stand: Stand) -> float:
        others = [s.mean(reading) for s in known if s.method == stand.method and s.target != target]
        return float(np.mean(others)) if others else MOST

    return min(here, key=elsewhere, default=None)


class Told(NamedTuple):
    """Two families on the targets that both have a method for."""

    a: str
    b: str
    pair: Pair
    apart: bool  # after Holm's correction for the number of pairs

    @property
    def nearer(self) -> str | None:
        return (self.a if self.pair.mean < 0 else self.b) if self.apart else None

    def __str__(self) -> str:
        n, p = self.pair.targets, self.pair.p
        if not n:
            return "–"
        ahead = f"{self.pair.ahead} of {n} targets"
        return f"{self.pair.mean:+.1f}{_bar(self.pair)}; {ahead}; p = {p:.2g}"


def compared(stands: Sequence[Stand], reading: str) -> list[Told]:
    found: dict[str, tuple[str, str, Pair]] = {}
    for a, b in combinations(FAMILIES, 2):
        gaps = []
        for target in dict.fromkeys(s.target for s in stands):
            one, other = (standing_for(stands, target, f, reading) for f in (a, b))
            if one is not None and other is not None:
                gaps.append(one.mean(reading) - other.mean(reading))
        found[f"{a}, {b}"] = a, b, paired(gaps)
    apart = holm({name: pair.p for name, (*_, pair) in found.items() if pair.targets})
    return [Told(a, b, pair, name in apart) for name, (a, b, pair) in found.items()]


def _target_lines(stands: Sequence[Stand]) -> Iterator[dict[str, str]]:
    """A target a line: the first method and the first of every other family."""
    for target in dict.fromkeys(s.target for s in stands):
        here = [s for s in stands if s.target == target]
        line = {"target": target, "seeds": str(max(len(s.off["calls"]) for s in here))}
        for reading, said in READINGS.items():
            best = {f: nearest(here, f, reading) for f in FAMILIES}
            known = [s for s in best.values() if s is not None]
            known.sort(key=lambda s: s.mean(reading))
            line[f"first at {said}"] = _named(known[:1], reading)
            line[f"then, at {said}"] = _named(known[1:3], reading)
        yield line


METHODS = "Each method over the targets it applies to, nearest first: mean ± standard error."


def _method_lines(stands: Sequence[Stand]) -> Iterator[dict[str, str]]:
    by_method: dict[str, list[Stand]] = {}
    for stand in stands:
        by_method.setdefault(stand.method, []).append(stand)

    def over(mine: Sequence[Stand], reading: str) -> Pair:
        return paired([s.mean(reading) for s in mine if s.known(reading)])

    for method, mine in sorted(by_method.items(), key=lambda pair: over(pair[1], "compute").mean):
        line = {"method": f"`{method}`", "family": mine[0].family, "targets": str(len(mine))}
        for reading, said in READINGS.items():
            found = over(mine, reading)
            line[f"doublings off, at {said}"] = f"{found.mean:.1f}" + _bar(found)
        yield line


def nearest(stands: Iterable[Stand], family: str, reading: str) -> Stand | None:
    mine = [s for s in stands if s.family == family and s.known(reading)]
    return min(mine, key=lambda s: s.mean(reading), default=None)


def _named(stands: Iterable[Stand], reading: str) -> str:
    return ", ".join(f"`{s.method}` {s.mean(reading):.1f} ({s.family})" for s in stands)


def _pair_lines(tests: Mapping[str, Sequence[Told]]) -> Iterator[dict[str, str]]:
    for of_pair in zip(*tests.values(), strict=True):
        line = {"families": f"{of_pair[0].a} − {of_pair[0].b}"}
        for told, said in zip(of_pair, READINGS.values(), strict=True):
            line[f"at {said}"] = str(told)
            line[f"nearer, at {said}"] = f"**{told.nearer}**" if told.nearer else "not told apart"
        yield line


def _bar(pair: Pair) -> str:
    return "" if math.isnan(pair.se) else f" ± {pair.se:.1f}"


def _claims(tests: Mapping[str, Sequence[Told]]) -> Iterator[Claim]:
    """What papers on learned samplers take for granted, or are read to say."""
    for reading, said in READINGS.items():
        for told in tests[reading]:
            if told.b == "classical":
                yield Claim(
                    f"At {said} the {told.a} come nearer to exact draws than classical methods",
                    verdict(told.nearer == told.a, told.nearer == told.b),
                    str(told),
                )


def _words(stands: Sequence[Stand], unready: int) -> str:
    targets = len({s.target for s in stands})
    seeds = max(len(s.off["calls"]) for s in stands)
    members = "; ".join(
        f"*{family}*: {', '.join(f'`{m}`' for m in methods)}"
        for family in FAMILIES
        if (methods := dict.fromkeys(s.method for s in stands if s.family == family))
    )
    left = (
        f" {unready} pairs of target and seed are left out: a method has no record there yet."
        if unready
        else ""
    )
    return (
        f"From the stored runs of `{SUITE}`: {targets} targets, up to {seeds} seeds.{left} A "
        "number is how many doublings a method's worst score lies beyond the edge of what exact "
        "draws score, the mean over seeds; 0 is as good as exact draws, and a run that failed or "
        f"lies farther off counts {MOST:g}. At equal compute everybody is read at the least flops "
        "that a learned method of the table has spent, at equal calls at the least calls; a method "
        "of which that is not known is left out of that column.\n\n"
        f"The families. {members}.\n\n"
        "Each two families are compared on the same targets. On a target a family is stood for by "
        "that of its methods which is nearest on the *other* targets, so that a family gains "
        "nothing by its number of methods. p is that of the exact sign-flip test over targets, "
        "after Holm's correction for the number of pairs; below "
        f"{LEVEL:g} the nearer family is named."
    )


def _draw(path: Path, stands: Sequence[Stand]) -> None:
    """Every method on every target, coloured by family."""
    targets = list(dict.fromkeys(s.target for s in stands))
    size = (3.4, 0.8 + 0.26 * len(targets))
    with picture(path, 1, len(READINGS), size) as (figure, grid):
        for panel, (reading, said) in zip(grid[0], READINGS.items(), strict=True):
            _panel(panel, stands, targets, reading)
            panel.set_xlabel(f"doublings off, at {said}", color=GREY)
            panel.set_yticks(range(len(targets)), targets if panel is grid[0, 0] else [])
            panel.invert_yaxis()
        named = grid[0, 0].get_legend_handles_labels()
        figure.legend(*named, loc="outside upper center", ncols=len(FAMILIES), fontsize=7)


def _panel(axes: Axes, stands: Sequence[Stand], targets: Sequence[str], reading: str) -> None:
    for i, (family, colour) in enumerate(zip(FAMILIES, COLOURS, strict=False)):
        mine = [s for s in stands if s.family == family and s.known(reading)]
        rows = [targets.index(s.target) + 0.13 * (i - 2) for s in mine]
        axes.scatter([s.mean(reading) for s in mine], rows, s=11, color=colour, lw=0, label=family)


families = Study("families", "Which family of methods wins where?", run)
