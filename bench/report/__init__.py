"""From scores on disk to tables (Markdown, CSV, LaTeX), plots (PNG, PDF) and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiltbench.report.board import Board
    from tiltbench.report.frame import Frames


def report(folder: Path, out: Path | None = None) -> Path:
    """As `write`; returns the path of table.md."""
    write(folder, out)
    return (out or folder) / "table.md"


def write(folder: Path, out: Path | None = None) -> list[Board]:
    """Writes table.md, table.csv, table.tex, report.html and plots/*.png, *.pdf of a results
    folder, published or not, into `out` (default: the folder itself); returns the
    leaderboards that they show.  Where a method was run with several settings, also settings.md and
    settings.tex, the best of each, and plots/sensitivity.png.

    Reads records, scores and draws only: score first.  Raises FileNotFoundError where there are no
    records."""
    from tiltbench.records.files import write_bytes
    from tiltbench.report.beside import with_beside
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
    table, leaderboards = out / "table.md", with_beside(boards(frames), frames, folder)
    write_bytes(table, markdown(frames, leaderboards, folder).encode())
    write_bytes(out / "table.csv", frames.scores.to_csv(index=False).encode())
    write_bytes(out / "table.tex", latex(folder.resolve().name, leaderboards).encode())
    write_bytes(out / "report.html", page(frames, leaderboards, folder).encode())
    plots(frames, leaderboards, folder, out / "plots")
    _settings(frames, folder, out)
    return leaderboards


def _settings(frames: Frames, folder: Path, out: Path) -> None:
    from tiltbench.records.files import write_bytes
    from tiltbench.report.pictures.sensitivity import sensitivity
    from tiltbench.report.settings import choice, varied
    from tiltbench.report.tables.settings import latex, markdown

    if frames.scores.empty or not varied(frames):
        return
    chosen, name = choice(frames), folder.resolve().name
    write_bytes(out / "settings.md", f"# Settings of {name}\n\n{markdown(chosen)}".encode())
    if text := latex(name, chosen):
        write_bytes(out / "settings.tex", text.encode())
    sensitivity(out / "plots" / "sensitivity.png", frames)
