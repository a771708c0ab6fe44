"""`tiltbench report`: write the tables, plots and page of scored runs again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tiltbench.cli.arguments import RESULTS
from tiltbench.cli.folders import Results, readable_folder
from tiltbench.cli.options import Plugins, option, plugged

if TYPE_CHECKING:
    from tiltbench.report.board import Board


def report(
    results: Results,
    /,
    *,
    out: Annotated[
        str | None,
        option(
            "where to (default: the folder itself; of a published set results/SUITE-published)",
            "DIR",
        ),
    ] = None,
    plugin: Plugins = (),
) -> int:
    """Write the tables, plots and page of scored runs again."""
    from tiltbench.records.recorded import is_published
    from tiltbench.report import write

    with plugged(plugin):
        folder = readable_folder(results)
        home = Path(out) if out else folder
        if is_published(folder) and not out:  # what is in git holds nothing that can be made
            home = RESULTS / f"{folder.resolve().name}-published"
        print(summary(write(folder, home), home))
    return 0


def summary(boards: Sequence[Board], out: Path) -> str:
    """Who leads, in a dozen lines, and where the rest is."""
    from tiltbench.report.standings import leaderboard

    page, settings = out / "report.html", out / "settings.md"
    best = f"Settings of each method, and which to choose: {settings}\n"
    return (
        f"{leaderboard(boards)}\n\n"
        f"Every score beside its floor: {out / 'table.md'}\n"
        f"{best if settings.exists() else ''}"
        f"The same with pictures, for a browser: {page} ({page.stat().st_size / 1e6:.1f} MB)"
    )
