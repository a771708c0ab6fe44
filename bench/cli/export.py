"""`tiltbench export`: tidy scores as CSV or Parquet, one row a run and metric."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tiltbench.cli.folders import Results, readable_folder
from tiltbench.cli.options import Plugins, option, plugged


def export(
    results: Results,
    file: Annotated[Path, option("FILE.csv or FILE.parquet")],
    /,
    *,
    plugin: Plugins = (),
) -> int:
    """Write tidy scores as CSV or Parquet, one row a run and metric."""
    from tiltbench.report.export import write_scores

    with plugged(plugin):
        rows = write_scores(readable_folder(results), file)
    print(f"{rows:,} scores in {file}")
    return 0
