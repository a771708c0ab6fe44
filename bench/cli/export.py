"""`tiltbench export`: tidy scores as CSV or Parquet."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tiltbench.cli.folders import readable_folder


def export(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.report.export import write_scores

    rows = write_scores(readable_folder(options.results), Path(options.file))
    print(f"{rows:,} scores in {options.file}")
    return 0
