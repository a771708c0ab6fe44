"""The visit: every section in a process of its own, under its own limit and the whole's.

A CUDA error spoils the process that met it; so no section shares one with another, and none that
raises, hangs or is stopped keeps the next from running.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gpu.section import Notes, Section, Visit, read, shown
from tiltbench.processes import Workers

SECTIONS = (
    Section("environment", "environment", "The machine, and what one call costs", 30),
    Section("tests", "cuda_tests", "Tests marked for CUDA", 60),
    Section("parity", "parity", "CPU and GPU on the same noise, float32", 100),
    Section("times", "times", "A training iteration and drawing beside the CPU's", 80),
    Section("graphs", "graphs", "A CUDA graph of a training iteration against eager steps", 60),
    Section("quick", "quick", "The quick suite, cells side by side", 130),
    Section("packing", "packing", "Processes side by side on one device", 60),
    Section("batch", "batch", "Largest batch, and memory", 60),
)
GRACE = 5.0  # seconds between the request to stop and the end


@dataclass(frozen=True)
class Finding:
    """What came of a section."""

    section: Section
    lines: Sequence[dict[str, Any]]
    seconds: float

    @property
    def faults(self) -> list[str]:
        return [line["fault"] for line in self.lines if "fault" in line]


def work(section: Section, visit: Visit, path: Path) -> None:
    """Runs in the child: whatever the section raises becomes a fault in its notes."""
    import torch

    from tiltbench.targets.settings import standard

    os.setsid()  # it and all that it starts can be ended together
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    torch.set_num_threads(1)
    notes = Notes(path)
    try:
        with standard():  # those that a cell has
            section.run(visit, notes)
    except Exception as error:
        (visit.folder / f"{section.name}.traceback.txt").write_text(traceback.format_exc())
        notes.fault(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def supervised(section: Section, visit: Visit, left: float, processes: Any = None) -> Finding:
    """One section in a child of its own, for `left` seconds at most, and on a GPU, where the time
    is to be shared out, for its own.

    `processes` is where children come from, a context of multiprocessing."""
    path, began = visit.folder / f"{section.name}.jsonl", time.monotonic()
    path.unlink(missing_ok=True)
    print(f"== {section.name}: {section.title}", flush=True)
    limit = min(section.seconds, left) if visit.on_gpu else left
    notes = Notes(path)
    if limit <= 0:
        notes.fault("not begun: the time of the whole visit is spent")
        return Finding(section, notes.lines, 0.0)
    child = (processes or Workers()).Process(target=work, args=(section, visit, path))
    child.start()
    try:
        child.join(limit)
        stopped = child.is_alive()
    finally:
        _end(child)
    if stopped:
        notes.fault(f"stopped after {limit:.0f} s, its limit; what it had found stands above")
    elif child.exitcode:
        notes.fault(f"its process ended with exit code {child.exitcode}")
    seconds = time.monotonic() - began
    print(f"== {section.name}: {seconds:.0f} s", flush=True)
    return Finding(section, read(path), seconds)


def _end(child: Any) -> None:
    """Ends the child, if it still runs, and everything that it left running."""
    if child.is_alive():
        child.terminate()
        child.join(GRACE)
    with suppress(ProcessLookupError):  # its own group, also when it has left that already
        os.killpg(child.pid, signal.SIGKILL)
    if child.is_alive():
        child.kill()
        child.join()


def page(findings: Sequence[Finding], signature: str) -> str:
    """The findings as Markdown: faults first, then every section's tables."""
    faults = [(f.section.name, fault) for f in findings for fault in f.faults]
    lines = ["# On a GPU", ""]
    lines += [f"- **{name}**: {fault}" for name, fault in faults] or ["Nothing is wrong."]
    for finding in findings:
        lines += ["", f"## {finding.section.title}", ""]
        lines += body(finding.lines)
        lines += ["", f"({finding.section.name}, {finding.seconds:.0f} s)"]
    return "\n".join([*lines, "", signature, ""])


def body(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Tables and sentences in the order in which they came; a table stands where it began."""
    parts: dict[str, list[Any]] = {}
    for number, line in enumerate(lines):
        if "table" in line:
            parts.setdefault(f"table {line['table']}", []).append(line["cells"])
        else:
            parts[f"line {number}"] = [line.get("said") or f"**{line['fault']}**"]
    made: list[str] = []
    for key, items in parts.items():
        made += ["", *(_table(items) if key.startswith("table ") else items)]
    return made[1:]


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [
        "| " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "|" + " --- |" * len(columns),
    ]
    for row in rows:
        cells = (shown(row.get(column)).replace("|", "\\|") for column in columns)
        lines.append("| " + " | ".join(cells) + " |")
    return lines
