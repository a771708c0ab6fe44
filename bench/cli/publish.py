"""`tiltbench publish`: copy what belongs in git to results/published/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tiltbench.cli.folders import Results, results_folder
from tiltbench.cli.options import option
from tiltbench.cli.words import RESULTS


def publish(
    results: Results,
    /,
    *,
    draws: Annotated[
        Path | None, option("of the draws (default results/SUITE-draws.tar)", "ARCHIVE.tar")
    ] = None,
    join: Annotated[
        bool, option("keep what is published of other seeds and shards, of the same settings")
    ] = False,
) -> int:
    """Write records, scores and curves as Parquet files, table.md, and the pictures that README.md
    or docs/ show, to results/published/SUITE; and the draws, which do not belong in git, as one
    archive, whose SHA-256 is kept."""
    source = results_folder(results)
    from tiltbench.report import publish as work

    name = source.resolve().name
    archive = draws or RESULTS / f"{name}-draws.tar"
    done = work.publish(source, RESULTS / "published" / name, archive, Path(), join)
    print(f"{len(done.files)} files in {RESULTS / 'published' / name}")
    if done.archive:
        print(f"draws, not for git: {done.archive.name}, SHA-256 {done.archive.sha256}")
    if done.without:
        print(f"of {done.without} runs the draws are not known: nobody can score them again")
    return 0
