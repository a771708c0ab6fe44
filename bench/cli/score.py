"""`tiltbench score`: compute the metrics of recorded runs again, from their draws on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tiltbench.cli.arguments import RESULTS
from tiltbench.cli.folders import Results, filled, results_folder
from tiltbench.cli.options import Plugins, option, plugged
from tiltbench.cli.report import summary
from tiltbench.plan.errors import Refused
from tiltbench.records.command import command

if TYPE_CHECKING:
    from tiltbench.score.again import ScoreComparison

SHOWN = 10  # scores that differ


def score(
    results: Results,
    /,
    *,
    force: Annotated[bool, option("also runs already scored")] = False,
    draws: Annotated[
        Path | None,
        option("of a published set: score it again from these, and compare", "ARCHIVE.tar"),
    ] = None,
    compare: Annotated[
        bool,
        option(
            "change nothing: score every run again and say which numbers differ; exit code "
            "1 where some do"
        ),
    ] = False,
    out: Annotated[
        str | None, option("with --draws: where to (default results/SUITE-rescored)", "DIR")
    ] = None,
    plugin: Plugins = (),
) -> int:
    """Compute the metrics of recorded runs again, from their draws on disk."""
    from tiltbench.report.board import boards
    from tiltbench.report.frame import collect
    from tiltbench.report.standings import leaderboard
    from tiltbench.score.floor import BrokenFloors
    from tiltbench.score.folder import score_runs

    if compare and (draws or force):
        raise Refused("--compare scores every run and keeps nothing: leave --draws and --force out")
    if compare:
        with plugged(plugin):
            return _compared(filled(results))
    if draws:
        with plugged(plugin):
            return _check(results_folder(results), draws, out)
    with plugged(plugin):
        folder = filled(results)
        try:
            scored = score_runs(folder, force=force, progress=_scored)
        except BrokenFloors as error:
            raise Refused(str(error)) from error
    if scored.done or not scored.reasons:
        done = scored.done
        print(f"{done} runs scored" if done else "every run is scored; --force scores them again")
    if warning := scored.warning(folder):
        print(warning, file=sys.stderr)
        return 1
    with plugged(plugin):
        ranked = boards(collect(folder))
    print(f"\n{leaderboard(ranked)}\n\n{command(['report', results])} writes tables and page.")
    return 0


def _check(folder: Path, draws: Path, out: str | None) -> int:
    """Scores a published set again from the archive of its draws.  1 where a number is another."""
    from tiltbench.score.again import score_again as again

    home = Path(out) if out else RESULTS / f"{folder.resolve().name}-rescored"
    return _say(again(folder, draws, home, progress=_scored), f"; in {home}")


def _compared(folder: Path) -> int:
    """The same of a plain folder, whose own scores stay as they are."""
    from tiltbench.score.again import compared

    return _say(compared(folder, progress=_scored), "")


def _say(again: ScoreComparison, where: str) -> int:
    print("\n".join([f"{again.sentence}{where}", *again.apart[:SHOWN]]))
    if len(again.apart) > SHOWN:
        print(f"and {len(again.apart) - SHOWN} more")
    return 1 if again.apart else 0


def score_and_report(out: Path) -> None:
    from tiltbench.report import write
    from tiltbench.score.floor import BrokenFloors
    from tiltbench.score.folder import score as score_folder

    print("scoring ...", flush=True)
    try:
        score_folder(out, progress=_scored)
    except BrokenFloors as error:
        raise Refused(str(error)) from error
    print("writing the report ...\n", flush=True)
    print(summary(write(out), out))


def _scored(done: int, total: int) -> None:
    """A line a tenth."""
    if done * 10 // total > (done - 1) * 10 // total:
        print(f"scored {done} of {total}", flush=True)
