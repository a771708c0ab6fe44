"""How far off every method of `standard` is on every target, by family, and which families
differ significantly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from tiltbench.report.board import boards
from tiltbench.report.compare import LEVEL, corrected
from tiltbench.report.frame import Frames
from tiltbench.report.ranks import GROUPS
from tiltbench.studies.families.paired import SignFlipTest, paired

MOST = 12.0  # doublings that count: a run that failed, or lies farther off, has so many
FAMILIES: dict[str, tuple[str, ...]] = {
    "path weights": (
        "log_variance", "trust_region_log_variance", "trust_region_cross_entropy", "pis",
        "trajectory_balance", "subtrajectory_balance", "detailed_balance", "relative_entropy",
    ),
    "values": ("importance_fine_tuning", "tilt_matching", "monte_carlo_score_matching"),
    "gradients": ("adjoint_matching", "adjoint_sampling", "target_score_matching"),
    "learned annealed chains": (),  # whatever their loss: see ESCORTING
    "classical": ("smc", "hmc", "parallel_tempering", "ais", "mala", "rwm"),
}  # fmt: skip
ESCORTING = ("Escorted", "Resampled", "Transported")  # recipes


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
        return "learned annealed chains"
    return next((family for family, names in FAMILIES.items() if sampler["name"] in names), None)


def read(frames: Frames, planned: Iterable[tuple[str, str]]) -> tuple[list[Stand], int]:
    """Every method on every target, and how many pairs of target and seed were left out because a
    method that is `planned` there, (target, method), has no record yet."""
    runs, scores = frames.runs, frames.scores
    scores = scores[scores["metric"].isin({m for metrics in GROUPS.values() for m in metrics})]
    families = {r.labels["sampler"]: family_of(r.spec["sampler"]) for r in frames.records}
    offs: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    unready = 0
    for seed in sorted(set(runs["seed"])):
        of_seed = frames._replace(
            runs=runs[runs["seed"] == seed], scores=scores[scores["seed"] == seed]
        )
        for board in boards(of_seed):
            wanted = {method for target, method in planned if target == board.target}
            if not wanted <= {row.sampler for row in board.rows}:
                unready += 1
                continue
            for row in board.rows:
                family = families[row.sampler]
                if family is None or "unsupported" in row.ends:
                    continue
                order = row.ranks
                if order is None or order.rank is None:  # it failed
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


class PairedTest(NamedTuple):
    """Two families on the targets that both have a method for."""

    a: str
    b: str
    pair: SignFlipTest
    p: float  # after Holm's correction for the number of pairs

    @property
    def significant(self) -> bool:
        return self.p <= LEVEL

    @property
    def nearer(self) -> str | None:
        return (self.a if self.pair.mean < 0 else self.b) if self.significant else None

    def __str__(self) -> str:
        n, p = self.pair.targets, self.p
        if not n:
            return "–"
        ahead = f"{self.pair.ahead} of {n} targets"
        return f"{ratio(self.pair)}; nearer on {ahead}; p = {p:.2g}"


def paired_tests(stands: Sequence[Stand], reading: str) -> list[PairedTest]:
    pairs: dict[str, tuple[str, str, SignFlipTest]] = {}
    for a, b in combinations(FAMILIES, 2):
        gaps = []
        for target in dict.fromkeys(s.target for s in stands):
            one, other = (standing_for(stands, target, f, reading) for f in (a, b))
            if one is not None and other is not None:
                gaps.append(one.mean(reading) - other.mean(reading))
        pairs[f"{a}, {b}"] = a, b, paired(gaps)
    p = corrected({name: pair.p for name, (*_, pair) in pairs.items() if pair.targets})
    return [PairedTest(a, b, pair, p.get(name, math.nan)) for name, (a, b, pair) in pairs.items()]


def nearest(stands: Iterable[Stand], family: str, reading: str) -> Stand | None:
    mine = [s for s in stands if s.family == family and s.known(reading)]
    return min(mine, key=lambda s: s.mean(reading), default=None)


def ratio(pair: SignFlipTest) -> str:
    """`9.8× (6.9× to 14×)`: of a mean of doublings the factor, with one standard error."""
    factor = _factor(pair.mean)
    if math.isnan(pair.se):
        return factor
    return f"{factor} ({_factor(pair.mean - pair.se)} to {_factor(pair.mean + pair.se)})"


def _factor(doublings: float) -> str:
    return f"{2**doublings:.2g}×" if abs(doublings) < 6.5 else f"{2**doublings:.1g}×"
