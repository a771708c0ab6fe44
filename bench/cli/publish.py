"""`tiltbench publish`: copy what belongs in git to results/published/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tiltbench.cli.arguments import RESULTS
from tiltbench.cli.folders import results_folder
from tiltbench.cli.options import option
from tiltbench.plan.errors import Refused


def publish(
    results: Annotated[
        str | None, option("a suite that was run, or the folder of its results")
    ] = None,
    /,
    *,
    draws: Annotated[
        Path | None, option("of the draws (default results/SUITE-draws.tar)", "ARCHIVE.tar")
    ] = None,
    join: Annotated[
        bool, option("keep what is published of other seeds and shards, of the same settings")
    ] = False,
    site: Annotated[
        Path | None,
        option(
            "write all that is published as a static site, a page a suite, a method and a target; "
            "alone, or after publishing RESULTS",
            "DIR",
        ),
    ] = None,
) -> int:
    """Write records, scores and curves as Parquet files, table.md, and the pictures that README.md
    or docs/ show, to results/published/SUITE; and the draws, which do not belong in git, as one
    archive, whose SHA-256 is kept."""
    if results is None and site is None:
        raise Refused("name the RESULTS to publish, or a folder for the site with --site")
    if results is None and (draws or join):
        raise Refused("--draws and --join are of RESULTS to publish; name them, or leave both out")
    if results is not None:
        _publish(results, draws, join)
    if site is not None:
        from tiltbench.report.site.build import site as write_site

        published = write_site(RESULTS / "published", site)
        print(
            f"suites: {published.suites}, methods: {published.methods}, "
            f"targets: {published.targets}; open {site / 'index.html'}"
        )
    return 0


def _publish(results: str, draws: Path | None, join: bool) -> None:
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
