"""`python -m tests.gpu`: see `make gpu`.  Exit code 0; 1 where something is wrong; 2 where there is
no such device or section."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.gpu.layout import PACKAGES, ROOT, prepare

LIMITS = {"cuda": 470.0, "cpu": 1200.0}  # seconds in all; a CPU may be shared


def main(words: list[str]) -> int:
    asked = _parser().parse_args(words)
    if importlib.util.find_spec("torch") is None:
        return _refused(f"{sys.executable} has no PyTorch: name a Python that has it, PYTHON=...")
    began = time.monotonic()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        lacking = prepare(ROOT, asked.wheels, Path(scratch))
        os.environ.setdefault("MPLCONFIGDIR", str(Path(scratch) / "matplotlib"))
        return _visit(asked, tuple(lacking), began)


def _visit(asked: argparse.Namespace, lacking: tuple[str, ...], began: float) -> int:
    import torch

    from tests.gpu.section import FULL, TINY, Visit
    from tests.gpu.visit import SECTIONS, page, supervised
    from tests.tools.perf_page import signature

    if asked.device == "cuda" and not torch.cuda.device_count():
        return _refused(
            "PyTorch sees no GPU here; `make gpu DEVICE=cpu` is the dry run at tiny sizes"
        )
    known = [section.name for section in SECTIONS]
    for name in asked.sections:
        if name not in known:
            return _refused(f"no section is called {name!r}; they are: {', '.join(known)}")
    for name in lacking:
        print(f"{name} is not installed: {PACKAGES[name]}")
    limit = asked.limit or LIMITS[asked.device]
    published = asked.device == "cuda" and not asked.sections
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    visit = Visit(asked.device, FULL if asked.device == "cuda" else TINY, folder, lacking)
    findings = [
        supervised(section, visit, limit - (time.monotonic() - began))
        for section in SECTIONS
        if section.name in asked.sections or not asked.sections
    ]
    place = ROOT / "results" / "published" / "gpu.md" if published else folder / "gpu.md"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(
        page(findings, signature(asked.device, "make gpu", asked.commit)), encoding="utf-8"
    )
    faults = sum(len(finding.faults) for finding in findings)
    print(f"{place}: {len(findings)} sections, {faults} faults, {time.monotonic() - began:.0f} s")
    return int(faults > 0)


def _refused(sentence: str) -> int:
    print(f"make gpu: {sentence}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    made.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    made.add_argument("--limit", type=float, help="seconds in all (default 470, on a CPU 1200)")
    made.add_argument("--commit", default="", help="of this tree, where git does not say it")
    made.add_argument("--wheels", type=Path, default=ROOT / ".wheels", help="of what is missing")
    made.add_argument("--folder", type=Path, default=ROOT / "results" / "gpu-visit")
    made.add_argument("sections", nargs="*", help="these only; the page is not published then")
    return made


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
