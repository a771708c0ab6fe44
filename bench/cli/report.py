"""`tiltbench report`: tables, plots and page of scored runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tiltbench.cli.folders import readable_folder
from tiltbench.cli.words import RESULTS


def report_again(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.records.published import is_published
    from tiltbench.report import report

    folder = readable_folder(options.results)
    out = Path(options.out) if options.out else folder
    if is_published(folder) and not options.out:  # what is in git holds nothing that can be made
        out = RESULTS / f"{folder.resolve().name}-published"
    path = report(folder, out)
    print(f"{table_text(path)}\n{path}\n{page_of(path.parent)}")
    return 0


def page_of(out: Path) -> str:
    page = out / "report.html"
    return f"The same with pictures, for a browser: {page} ({page.stat().st_size / 1e6:.1f} MB)"


def table_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
