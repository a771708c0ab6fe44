"""`tiltbench publish`: what belongs in git, to results/published."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tiltbench.cli.folders import results_folder
from tiltbench.cli.words import RESULTS


def publish(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.report import publish as work

    source = results_folder(options.results)
    name = source.resolve().name
    archive = Path(options.draws) if options.draws else RESULTS / f"{name}-draws.tar"
    done = work.publish(source, RESULTS / "published" / name, archive, Path())
    print(f"{len(done.files)} files in {RESULTS / 'published' / name}")
    if done.archive:
        print(f"draws, not for git: {done.archive.name}, SHA-256 {done.archive.sha256}")
    if done.without:
        print(f"of {done.without} runs the draws are not known: nobody can score them again")
    return 0
