"""The quick suite, cells side by side, by the command itself; scored, and published."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.gpu.layout import ROOT
from tests.gpu.section import Notes, Visit

MOST = 14  # cells at a time; one core each, and two for what starts and scores them


def run(visit: Visit, notes: Notes) -> None:
    lacking = {"cyclopts", "msgspec", "arviz_stats"} & set(visit.missing)
    if lacking:
        names = ", ".join(sorted(lacking))
        notes.say(f"Not run: the command needs {names}; `make gpu-wheels` fetches what is missing.")
        return
    out = ROOT / "results" / "gpu" if visit.on_gpu else visit.folder / "quick"
    start = time.monotonic()
    done = command(["run", *words(visit), "--out", str(out), "--force"])
    seconds = time.monotonic() - start
    (visit.folder / "quick.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if not (out / "runs").is_dir():
        notes.fault(f"the run left no records: {(done.stderr or done.stdout).strip()[-300:]}")
        return
    records(out, seconds, notes)
    for line in leaders(done.stdout):
        notes.row("leaderboard", **line)
    if done.returncode:
        notes.fault(f"`tiltbench run` ended with exit code {done.returncode}: see quick.log")
    if visit.on_gpu:
        told = command(["publish", str(out)])
        (notes.say if not told.returncode else notes.fault)(
            told.stdout.strip() or told.stderr[-300:]
        )


def words(visit: Visit) -> list[str]:
    """The suite at one seed; the smoke suite in the dry run."""
    if not visit.on_gpu:
        return ["--suite", "smoke", "--targets", "gmm9", *"--seeds 1 --device cpu --jobs 1".split()]
    many = max(min(MOST, (os.cpu_count() or 1) - 2), 1)
    share = ["--gpu-share", f"{int(1e6 / many) / 1e6}"]  # rounded down: `many` must fit
    return ["--suite", "quick", "--seeds", "1", "--device", "cuda", *share]


def command(given: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tiltbench.cli", *given], cwd=ROOT, capture_output=True, text=True
    )


def records(folder: Path, seconds: float, notes: Notes) -> None:
    """How the cells ended, and what they took together."""
    from tiltbench.records.store import records as kept

    made = list(kept(folder / "runs"))
    ends = Counter(str(record.status) for record in made)
    spent = sum(record.cost["seconds"] for record in made)
    notes.row(
        "cells",
        cells=len(made),
        **ends,
        wall_seconds=seconds,
        seconds_of_all_cells=spent,
        side_by_side=spent / seconds,
    )
    for record in made:
        if not record.status.finished:
            notes.fault(f"{record.labels}: {record.status}: {record.reason[:200]}")


def leaders(output: str) -> list[dict[str, str]]:
    """The leaderboard that the command prints: lines below its head, columns two spaces apart."""
    lines = output.splitlines()
    heads = [i for i, line in enumerate(lines) if line.split()[:3] == ["sampler", "mean", "rank"]]
    if not heads:
        return []
    columns = [part.strip() for part in lines[heads[-1]].split("  ") if part.strip()]
    made = []
    for line in lines[heads[-1] + 1 :]:
        cells = [part.strip() for part in line.split("  ") if part.strip()]
        if len(cells) != len(columns):
            break
        made.append(dict(zip(columns, cells, strict=True)))
    return made
