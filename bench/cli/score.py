"""`tiltbench score`: metrics of recorded runs, from their draws on disk."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tiltbench.cli.folders import filled, results_folder
from tiltbench.cli.report import page_of, table_text
from tiltbench.cli.words import RESULTS
from tiltbench.plan.errors import Refused

SHOWN = 10  # scores that differ


def score_again(options: Namespace, arguments: Sequence[str]) -> int:
    if options.draws:
        return _check(results_folder(options.results), Path(options.draws), options.out)
    from tiltbench.score.floor import BrokenFloors
    from tiltbench.score.folder import score

    try:
        done = score(filled(options.results), force=options.force, progress=_scored)
    except BrokenFloors as error:
        raise Refused(str(error)) from error
    print(f"{done} runs scored" if done else "every run is scored; --force scores them again")
    return 0


def _check(folder: Path, draws: Path, out: str | None) -> int:
    """Scores a published set again from the archive of its draws.  1 where a number is another."""
    from tiltbench.score.again import score_again as again

    home = Path(out) if out else RESULTS / f"{folder.resolve().name}-rescored"
    found = again(folder, draws, home, progress=_scored)
    print("\n".join([f"{found.sentence}; in {home}", *found.apart[:SHOWN]]))
    if len(found.apart) > SHOWN:
        print(f"and {len(found.apart) - SHOWN} more")
    return 1 if found.apart else 0


def score_and_report(out: Path) -> None:
    from tiltbench.report import report
    from tiltbench.score.floor import BrokenFloors
    from tiltbench.score.folder import score

    print("scoring ...", flush=True)
    try:
        score(out, progress=_scored)
    except BrokenFloors as error:
        raise Refused(str(error)) from error
    print(f"writing the report ...\n\n{table_text(report(out))}")
    print(page_of(out))


def _scored(done: int, total: int) -> None:
    """A line a tenth."""
    if done * 10 // total > (done - 1) * 10 // total:
        print(f"scored {done} of {total}", flush=True)
