"""From scores on disk to tables (Markdown, CSV, LaTeX), plots (PNG, PDF) and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiltbench.report.board import Board


def report(folder: Path, out: Path | None = None) -> Path:
    """As `write`; returns the path of table.md."""
    write(folder, out)
    return (out or folder) / "table.md"


def write(folder: Path, out: Path | None = None) -> list[Board]:
    """Writes table.md, table.csv, table.tex, report.html and plots/*.png, *.pdf of a results
    folder, published or not, into `out` (default: the folder itself); returns the
    leaderboards that they show.

    Reads records, scores and draws only: score first.  Raises FileNotFoundError where there are no
    records."""
    from tiltbench.records.files import write_bytes
    from tiltbench.report.board import boards
    from tiltbench.report.frame import collect
    from tiltbench.report.page.page import page
    from tiltbench.report.pictures.plots import plots
    from tiltbench.report.tables.latex import latex
    from tiltbench.report.tables.markdown import markdown

    frames = collect(folder)
    if frames.runs.empty:
        raise FileNotFoundError(f"{folder} holds no records; run the suite first")
    out = out or folder
    table, made = out / "table.md", boards(frames)
    write_bytes(table, markdown(frames, made, folder).encode())
    write_bytes(out / "table.csv", frames.scores.to_csv(index=False).encode())
    write_bytes(out / "table.tex", latex(folder.resolve().name, made).encode())
    write_bytes(out / "report.html", page(frames, made, folder).encode())
    plots(frames, made, folder, out / "plots")
    return made
