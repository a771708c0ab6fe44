"""The tests marked `cuda`, by pytest in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.gpu.layout import ROOT
from tests.gpu.section import Notes, Visit

MARK = re.compile(r"pytest\.mark\.cuda\b")


def run(visit: Visit, notes: Notes) -> None:
    if "msgspec" in visit.missing:
        notes.say("Not run: the tests need msgspec; `make gpu-wheels` fetches it.")
        return
    files, many = marked(ROOT / "tests"), []
    if not visit.on_gpu:
        files = files[:1]  # all would be skipped; importing them takes long
    elif importlib.util.find_spec("xdist"):
        many = ["-n", str(min(8, os.cpu_count() or 1))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda"]
        + ["-rfE", "--tb=line", *many, *map(str, files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    (visit.folder / "tests.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    summary = counts(done.stdout)
    if not summary:
        notes.fault(f"pytest ended with exit code {done.returncode}: {tail(done)}")
        return
    notes.row("pytest -m cuda", **summary)
    for line in done.stdout.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            notes.fault(line[:300])
    if not visit.on_gpu:
        notes.say(f"They need CUDA; here those of {files[0].name} are skipped.")


def marked(folder: Path) -> list[Path]:
    """Test files with a test marked `cuda`: the others need not be imported."""
    return [
        path
        for path in sorted(folder.rglob("test_*.py"))
        if MARK.search(path.read_text(encoding="utf-8"))
    ]


def counts(output: str) -> dict[str, int]:
    """{"passed": 3, "skipped": 1, ...} of pytest's last line."""
    found: list[tuple[str, str]] = []
    for line in output.splitlines():
        if re.search(r" in [\d.]+s", line):
            found = re.findall(r"(\d+) (passed|failed|skipped|errors?|deselected)", line)
    return {what: int(number) for number, what in found}


def tail(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1][:200] if lines else "nothing was printed"
