"""Ours beside the peers' runs of 90 CPU-seconds: from the stored runs of the quality suites."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from tiltbench.records.published import results
from tiltbench.report.frame import frames_of
from tiltbench.studies.common.stored import folder_of
from tiltbench.study import Answer, Claim, Study, verdict

if TYPE_CHECKING:
    from pandas import DataFrame

PEERS = Path(__file__).parent / "peers.toml"
SUITES = ("quality", "quality_funnel")
FAR = 2.0  # standard errors of our mean, or standard deviations of a floor


class Peer(Struct, frozen=True, forbid_unknown_fields=True):
    """One run of somebody else's code; figures named in `void` are not compared, because of why."""

    run: str
    target: str
    log_Z_err: float
    elbo_gap: float
    ess: float
    w2: float
    floor: float
    void: tuple[str, ...] = ()
    why: str = ""


class File(Struct, frozen=True, forbid_unknown_fields=True):
    peer: tuple[Peer, ...]


def peers() -> tuple[Peer, ...]:
    return msgspec.convert(tomllib.loads(PEERS.read_text(encoding="utf-8")), File).peer


class Mean(NamedTuple):
    """Over our seeds; sd is NaN for a single one."""

    value: float
    sd: float
    seeds: int

    @property
    def se(self) -> float:
        return 0.0 if math.isnan(self.sd) else self.sd / math.sqrt(self.seeds)

    def __str__(self) -> str:
        return f"{self.value:.3g}" + ("" if math.isnan(self.sd) else f" ± {self.sd:.2g}")


class BestMethod(NamedTuple):
    """Our method with the smallest gap of the ELBO on a target."""

    method: str
    cpu_seconds: float
    log_Z_err: Mean  # of its size
    elbo_gap: Mean
    ess: Mean
    w2: Mean
    floor: tuple[float, float]  # what exact draws score in W2, with its sd


class PeerResult(StrEnum):
    BETTER = "better"
    EVEN = "not significant"
    WORSE = "worse"
    VOID = "not compared"


class Figure(NamedTuple):
    name: str
    theirs: str
    ours: str
    standing: PeerResult


def compared(peer: Peer, best: BestMethod) -> list[Figure]:
    """Each figure, ours better or worse where the difference exceeds FAR standard errors of our
    mean: theirs is one run, whose error nobody knows.

    W2 is compared in units of its floor, for theirs has other numbers of draws; two that are within
    FAR standard deviations of their floors are both as good as exact draws."""
    exact, sd = best.floor
    ratio = Mean(best.w2.value / exact, best.w2.sd / exact, best.w2.seeds)
    theirs, reach = peer.w2 / peer.floor, 1 + FAR * sd / exact
    both = max(theirs, ratio.value) <= reach
    rows = (
        ("log Z error", f"{peer.log_Z_err:g}", best.log_Z_err, abs(peer.log_Z_err), False),
        ("ELBO gap", f"{peer.elbo_gap:g}", best.elbo_gap, peer.elbo_gap, False),
        ("ESS", f"{peer.ess:g}", best.ess, peer.ess, True),
    )
    figures = [
        Figure(
            name,
            printed,
            str(mean),
            PeerResult.VOID if name in peer.void else _standing(mean, other, up),
        )
        for name, printed, mean, other, up in rows
    ]
    floor = f"{best.w2} ({exact:.3g})"
    standing = PeerResult.EVEN if both else _standing(ratio, theirs, False)
    return [*figures, Figure("W2 (floor)", f"{peer.w2:g} ({peer.floor:g})", floor, standing)]


def _standing(ours: Mean, theirs: float, larger: bool) -> PeerResult:
    ahead = (ours.value - theirs) * (1 if larger else -1)
    if abs(ahead) <= FAR * ours.se:
        return PeerResult.EVEN
    return PeerResult.BETTER if ahead > 0 else PeerResult.WORSE


def whole(figures: Sequence[Figure]) -> PeerResult:
    """Better where no figure is worse and one is better."""
    standings = [figure.standing for figure in figures]
    for standing in (PeerResult.WORSE, PeerResult.BETTER):
        if standing in standings:
            return standing
    return PeerResult.EVEN


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    runs = stored_runs()
    rows, lines = [], []
    for peer in peers():
        best = best_of(*runs, peer.target)
        figures = [] if best is None else compared(peer, best)
        rows.append((peer, figures))
        lines += list(_table_rows(peer, best, figures))
    return Answer(DataFrame(lines), _summary(rows), (_claim(rows),))


def stored_runs() -> tuple[DataFrame, DataFrame]:
    """Runs and scores of the suites that have been run; FileNotFoundError where none has."""
    from pandas import concat

    stored, lacking = [], None
    for suite in SUITES:
        try:
            stored.append(frames_of(results(folder_of(suite))))
        except FileNotFoundError as error:
            lacking = error
    if lacking and not stored:
        raise lacking
    return concat([f.runs for f in stored]), concat([f.scores for f in stored])


def best_of(runs: DataFrame, scores: DataFrame, target: str) -> BestMethod | None:
    """None where no trained method has finished on the target.

    Runs of one label with other budgets are other methods, not more seeds."""
    here = runs[(runs["target"] == target) & runs["finished"] & (runs["method"] != "untrained")]
    candidates = []
    for (method, *_), mine in here.groupby(["sampler", "budget", "limits"], sort=False):
        of = scores[scores["id"].isin(mine["id"])]
        log_Z, gap, ess, w2 = (
            _mean(of, metric) for metric in ("log_Z_err", "elbo_gap", "ess_model", "w2")
        )
        rows = of[of["metric"] == "w2"]
        floor = float(rows["floor_mean"].median()), float(rows["floor_sd"].median())
        seconds = float(mine["cpu_seconds"].mean())
        candidates.append(BestMethod(str(method), seconds, log_Z, gap, ess, w2, floor))
    known = [best for best in candidates if not math.isnan(best.elbo_gap.value)]
    return min(known, key=lambda best: best.elbo_gap.value, default=None)


def _mean(scores: DataFrame, metric: str) -> Mean:
    """Of the size of the metric over seeds."""
    values = scores.loc[scores["metric"] == metric, "value"].abs()
    return Mean(float(values.mean()), float(values.std()), len(values))


def _table_rows(
    peer: Peer, best: BestMethod | None, figures: list[Figure]
) -> Iterator[dict[str, str]]:
    if best is None:
        yield {"target": peer.target, "peer": peer.run, "all in all": "not run"}
        return
    for i, figure in enumerate(figures):
        first = i == 0
        yield {
            "target": peer.target if first else "",
            "peer": peer.run if first else "",
            "ours": f"`{best.method}`, {best.cpu_seconds:.0f} CPU-s" if first else "",
            "figure": figure.name,
            "theirs": figure.theirs,
            "ours, mean ± sd": figure.ours,
            "seeds": str(best.elbo_gap.seeds) if first else "",
            "ours is": str(figure.standing),
            "all in all": f"**{whole(figures)}**" if first else "",
        }


def _claim(rows: Sequence[tuple[Peer, list[Figure]]]) -> Claim:
    standings = [whole(figures) for _, figures in rows if figures]
    done = len(standings) == len(rows)
    behind = [
        f"{figure.name} of {peer.run} on {peer.target}, {figure.ours} against {figure.theirs}"
        for peer, figures in rows
        for figure in figures
        if figure.standing is PeerResult.WORSE
    ]
    return Claim(
        f"Within 90 CPU-seconds of training ours beats each of the peers' {len(rows)} runs",
        verdict(
            done and all(t is PeerResult.BETTER for t in standings), PeerResult.WORSE in standings
        ),
        f"{standings.count(PeerResult.BETTER)} of {len(rows)} better"
        + (f"; worse: {'; '.join(behind)}" if behind else ""),
    )


def _summary(rows: Sequence[tuple[Peer, list[Figure]]]) -> str:
    why = [
        f"{', '.join(peer.void)} of {peer.run} on {peer.target}: {peer.why}."
        for peer, _ in rows
        if peer.void
    ]
    return (
        "Theirs: their own code and defaults, one seed, their own versions of gmm9, gmm25 and the "
        "funnel, and their own number of draws. Ours: the method of the quality suites with the "
        "smallest ELBO gap on the target, means ± standard deviations over seeds; an error counts "
        "by its size. A figure is better or worse where it is so by more than two standard errors "
        "of our mean; W2 counts in units of its floor (in brackets), and within two standard "
        "deviations of that no difference from exact draws is significant. A run is better all in "
        "all where one figure is and none is worse. Not compared: " + " ".join(why)
    )


quality = Study("quality", "Ours beside the peers' runs of 90 CPU-seconds", run)
