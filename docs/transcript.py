"""Runs whole sessions that take minutes, too long for the blocks of a page, and records them:

    python docs/transcript.py             all of SESSIONS
    python docs/transcript.py valley      one of them

Each is written to results/published/sessions/NAME.md: every command with what it printed and how
long it took, the machine, and the sum.  `<!-- show: -->` takes it into a page (docs/readme.py).
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "published" / "sessions"
PROGRESS = re.compile(r"^(\[\d+/\d+\]|scored \d+ of).*\n", re.M)
WIDTH = "100"  # columns of what commands print


class Session(NamedTuple):
    """Commands in an empty folder; `files` come from the repository, or from a block of a page."""

    title: str
    files: tuple[str, ...]
    commands: tuple[str, ...]


def ranked(file: str, budget: str, seeds: str, ladders: int, name: str) -> tuple[str, ...]:
    """From nothing to a certified truth and a table with ranks."""
    run = (
        f"tiltbench run --targets {file} --samplers smc,hmc,log_variance,untrained --budget "
        f"{budget} --seeds {seeds} --draws 500 --out results/{name}"
    )
    return (
        run,
        f"tiltbench reference {file} --points 2e6 --ladders {ladders}",
        f"tiltbench score {name}",
        f"{run} --force",
    )


LOTKA = "examples/lotka_volterra.py"
SESSIONS = {
    "valley": Session(
        "Rosenbrock's valley, from nothing to ranks",
        ("docs/tutorials/unknown.md:valley.py",),
        ranked("valley.py", "2e4", "0:3", 16, "valley"),
    ),
    "lotka_volterra": Session(
        "Hares and lynxes, from nothing to ranks",
        (LOTKA,),
        ranked(LOTKA, "1e4", "0:2", 32, "lotka_volterra"),
    ),
}


def place(file: str, folder: Path) -> None:
    """A file of the repository, or PAGE:TITLE, the block of that title in a page."""
    page, _, title = file.partition(":")
    goal = folder / (title or page)
    goal.parent.mkdir(parents=True, exist_ok=True)
    if not title:
        shutil.copyfile(ROOT / page, goal)
        return
    text = (ROOT / page).read_text(encoding="utf-8")
    block = re.search(rf'^```python title="{re.escape(title)}"\n(.*?)^```$', text, re.M | re.S)
    if block is None:
        raise ValueError(f"{page} has no block with the title {title}")
    goal.write_text(block[1], encoding="utf-8")


def recorded(session: Session, name: str) -> str:
    """The session in Markdown.  Raises CalledProcessError where a command fails."""
    parts, begun, cpu = [f"# {session.title}"], time.monotonic(), _cpu()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        for file in session.files:
            place(file, folder)
        for command in session.commands:
            at, spent = time.monotonic(), _cpu()
            print(f"$ {command}", flush=True)
            output = _output(command, folder)
            took = f"{time.monotonic() - at:.0f} s, {_cpu() - spent:.0f} CPU-seconds"
            print(f"{output}\n{took}", flush=True)
            parts += [f"## `{command}`", _block(output), f"*{took}.*"]
    sum_ = f"{time.monotonic() - begun:.0f} s in all, {_cpu() - cpu:.0f} CPU-seconds"
    parts.append(f"## In all\n\n{sum_}; {_machine()}. Made by `python docs/transcript.py {name}`.")
    return "\n\n".join(parts) + "\n"


def _output(command: str, folder: Path) -> str:
    """What it prints, without its progress and the name of the folder."""
    words = shlex.split(command)
    assert words[0] == "tiltbench"
    done = subprocess.run(
        [sys.executable, "-m", "tiltbench.cli", *words[1:]],
        cwd=folder,
        env={**os.environ, "COLUMNS": WIDTH},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    _ended()
    output = PROGRESS.sub("", done.stdout)
    return output.replace(f"{folder}/", "").rstrip()


def _block(output: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in output.splitlines())


def _adopt() -> None:
    """On Linux: processes that a command leaves behind become ours, so that their seconds count."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _ended() -> None:
    """Waits for those that a command has left behind; they end by themselves."""
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass


def _cpu() -> float:
    """Seconds of the processor that the commands have taken, with the processes they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _machine() -> str:
    from tiltbench.records.provenance import code_identity, environment

    env, code = environment("cpu"), code_identity()
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{env['device_name']}, {env['cores']} cores, which others used too (load {busy} in the "
        f"last 1, 5 and 15 minutes); torch {env['torch']}, commit {str(code['commit'])[:12]}"
    )


if __name__ == "__main__":
    _adopt()
    for chosen in sys.argv[1:] or SESSIONS:
        text = recorded(SESSIONS[chosen], chosen)
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / f"{chosen}.md").write_text(text, encoding="utf-8")
