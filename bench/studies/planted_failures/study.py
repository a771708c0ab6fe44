"""Which rank does a failure get?  Draws that fail in one known way, scored and ranked like any."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.plan.spec import build_target, parse, spec
from tiltbench.records.record import Record, Status, write_outcome, write_record
from tiltbench.report.board import Board, boards
from tiltbench.report.frame import collect
from tiltbench.report.ranks import GROUPS, Judged, times
from tiltbench.score.folder import score
from tiltbench.studies.planted_failures.planted import EXACT, planted
from tiltbench.study import Answer, Claim, Study, Verdict, verdict

if TYPE_CHECKING:
    from pandas import DataFrame

TARGETS = {"gmm9": 1000, "many_well_mdelta": 1000, "tilt_quadratic": 1000, "dw4": 250}
# by target: draws; aligning particles costs their square
SEEDS = 3
NOISE = "noise, log Z off by 27"


class Ranked(NamedTuple):
    """One case on one target."""

    target: str
    case: str
    rank: int
    by_mean: int  # the rank if the mean over groups decided
    judged: Judged

    @property
    def mean(self) -> float:
        """Doublings, the mean over the groups that it has a score in."""
        return mean_of(self.judged)


def run(folder: Path, device: str) -> Answer:
    cases = ranked(TARGETS, range(SEEDS))
    return Answer(_table(cases), _summary(cases), _claims(cases))


def ranked(targets: Mapping[str, int], seeds: Sequence[int]) -> list[Ranked]:
    """The leaderboards of the planted cases, made as those of any results folder."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        for name, draws in targets.items():
            _write(folder / "runs", name, draws, seeds)
        score(folder, jobs=1)
        leaderboards = boards(collect(folder))
    leaderboards.sort(key=lambda board: list(targets).index(board.target))
    return [row for board in leaderboards for row in _ranked(board)]


def _write(runs: Path, name: str, draws: int, seeds: Sequence[int]) -> None:
    target = build_target(parse(name))
    for seed in seeds:
        for case, outcome in planted(target, draws, seed).items():
            record = Record(
                {
                    "target": spec(target),
                    "target_version": target.version,
                    "sampler": {"name": "planted", "params": {"case": case}},
                    "seed": seed,
                    "device": "cpu",
                    "draws": draws,
                    "budget": {"train": [1, 1], "draw": [0, 0], "measure": [0, 0]},
                },
                {"target": name, "sampler": case},
                Status.DONE,
            )
            write_outcome(runs, record.id, outcome)
            write_record(runs, record)


def _ranked(board: Board) -> list[Ranked]:
    judged = {row.sampler: row.judged for row in board.rows if row.judged}
    means = {case: mean_of(mine) for case, mine in judged.items()}
    rows = []
    for row in board.rows:
        assert row.judged is not None and row.ranks is not None and row.ranks.rank is not None
        by_mean = 1 + sum(other < means[row.sampler] for other in means.values())
        rows.append(Ranked(board.target, row.sampler, row.ranks.rank, by_mean, row.judged))
    return sorted(rows, key=lambda row: (row.rank, row.mean))


def mean_of(judged: Judged) -> float:
    return mean(off.doublings for group in GROUPS if (off := judged.of(group)))


def _table(cases: Sequence[Ranked]) -> DataFrame:
    from pandas import DataFrame

    rows = []
    for row in cases:
        groups = {}
        for group in GROUPS:
            off = row.judged.of(group)
            ratio = "–" if off is None else times(off.doublings)
            groups[group] = f"{ratio} {off.metric}" if off and off.doublings else ratio
        rows.append(
            {
                "target": row.target,
                "draws": row.case,
                "rank": row.rank,
                **groups,
                "rank by the mean": row.by_mean,
            }
        )
    return DataFrame(rows)


def _summary(cases: Sequence[Ranked]) -> str:
    failures = [row for row in cases if row.case != EXACT]
    least = min(failures, key=lambda row: row.judged.doublings)
    targets = dict.fromkeys(row.target for row in cases)
    return (
        f"{_counts()}, {SEEDS} seeds, scored and ranked as those of any method. Under each group "
        "of scores stands the worst, as a multiple of the edge of the noise floor; the largest of "
        f"a row decides its rank. {len(failures)} failures on {len(targets)} targets; the nearest "
        f"to exact draws is *{least.case}* on `{least.target}`, {times(least.judged.doublings)} by "
        f"`{least.judged.worst.metric}`."
    )


def _counts() -> str:
    return ", ".join(f"{n:,} draws of `{name}`" for name, n in TARGETS.items())


def _claims(cases: Sequence[Ranked]) -> tuple[Claim, ...]:
    exact = [row for row in cases if row.case == EXACT]
    failures = [row for row in cases if row.case != EXACT]
    behind = [row for row in failures if not row.judged.level]
    first = [row for row in exact if row.rank == 1]
    noise = [row for row in failures if row.case == NOISE]
    law = [off.doublings for row in noise if (off := row.judged.of("distance"))]
    hidden = _hidden(failures)
    return (
        Claim(
            "Exact draws are first on every target, and no failure is at the floor",
            verdict(
                len(first) == len(exact) and len(behind) == len(failures),
                len(first) < len(exact) or len(behind) < len(failures),
            ),
            f"exact draws first on {len(first)} of {len(exact)}; {len(behind)} of {len(failures)} "
            f"failures behind them, at {times(min(r.judged.doublings for r in failures))} the "
            "floor or more",
        ),
        Claim(
            "A small distance hides neither energies nor log Z",
            verdict(all(row.rank > 1 for row in noise), any(row.rank == 1 for row in noise)),
            f"noise of a fifth of the rms coordinate with log Z 27 nats off: {times(min(law))} to "
            f"{times(max(law))} by distance, ranks {_listed(noise)}",
        ),
        Claim(
            "The mean over groups would let one group hide another, the worst does not",
            Verdict.SUPPORTED if hidden else Verdict.OPEN,
            "; ".join(hidden) or "no pair of failures changes its order",
        ),
    )


def _listed(rows: Sequence[Ranked]) -> str:
    return ", ".join(f"{row.rank} on `{row.target}`" for row in rows)


def _hidden(failures: Sequence[Ranked]) -> list[str]:
    """By target: the failure of one group that the mean moves up most, ahead of others that are
    nearer in every score."""
    sentences = []
    for target in dict.fromkeys(row.target for row in failures):
        of_target = [row for row in failures if row.target == target]
        most = max(of_target, key=lambda row: row.rank - row.by_mean)
        if most.rank > most.by_mean:
            sentences.append(
                f"`{target}`: *{most.case}*, {times(most.judged.doublings)} by "
                f"{most.judged.worst.group}, would go from rank {most.rank} to {most.by_mean}"
            )
    return sentences


planted_failures = Study("planted_failures", "The rank that a planted failure gets", run)
