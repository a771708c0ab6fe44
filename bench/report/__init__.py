"""From scores on disk to table.md, table.csv and plots/."""

from __future__ import annotations

from pathlib import Path


def report(folder: Path) -> Path:
    """Writes folder/table.md, table.csv and plots/*.png; returns the path of table.md.

    Reads records, scores and draws only: score first.  Raises FileNotFoundError where there are no
    records."""
    from tiltbench.record import write_bytes
    from tiltbench.report.frame import collect
    from tiltbench.report.plots import plots
    from tiltbench.report.tables import markdown

    frames = collect(folder)
    if frames.runs.empty:
        raise FileNotFoundError(f"{folder} holds no records; run the suite first")
    table = folder / "table.md"
    write_bytes(table, markdown(frames, folder).encode())
    write_bytes(folder / "table.csv", frames.scores.to_csv(index=False).encode())
    plots(frames, folder)
    return table
