"""Which pictures a folder gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tiltbench.records.names import file_name
from tiltbench.records.store import warn
from tiltbench.report.board import Board
from tiltbench.report.frame import BLOCK, Frames
from tiltbench.report.pictures.curves import learning
from tiltbench.report.pictures.images import images
from tiltbench.report.pictures.lattice import lattice
from tiltbench.report.pictures.particles import particles
from tiltbench.report.pictures.ramachandran import ramachandran
from tiltbench.report.pictures.scatter import scatter
from tiltbench.report.pictures.style import looks
from tiltbench.report.pictures.summary import summary
from tiltbench.report.pictures.weights import weights
from tiltbench.report.targets import targets_of


def plots(frames: Frames, boards: Sequence[Board], folder: Path, out: Path) -> list[Path]:
    """Of the results in `folder`: out/summary.png and, for each target and budget,
    `NAME.draws.png` (2-D targets), `.ramachandran.png` (molecules), `.particles.png`,
    `.lattice.png`, `.images.png`, `.curves.png` and `.weights.png`, where there is something to
    show; each as .pdf too.  NAME is `file_name` of the target's label."""
    runs = folder / "runs"
    look = looks(frames.runs["sampler"])
    colour = {name: style.colour for name, style in look.items()}
    targets = targets_of(frames.records, runs)
    many = len(frames.runs.groupby(BLOCK[1:])) > 1
    paths = []
    for (name, budget, limits), rows in frames.runs.groupby(BLOCK):
        mine = [record for record in frames.records if record.id in set(rows["id"])]
        allowed = f".{budget}" + (f".{file_name(str(limits))}" if limits else "")
        stem = file_name(str(name)) + (allowed if many else "")
        curves, draws, both, atoms, fields, looked, angles = (
            out / f"{stem}.{kind}.png"
            for kind in (
                "curves",
                "draws",
                "weights",
                "particles",
                "lattice",
                "images",
                "ramachandran",
            )
        )
        tries: dict[Path, Callable[[], bool]] = {
            curves: partial(learning, curves, rows, frames.scores, frames.curves, look)
        }
        if name in targets:
            target, log_Z = targets[name], targets[name].truth().log_Z
            tries[draws] = partial(scatter, draws, runs, target, mine, colour)
            tries[angles] = partial(ramachandran, angles, runs, target, mine, colour)
            tries[both] = partial(weights, both, runs, log_Z, mine, colour)
            tries[atoms] = partial(particles, atoms, runs, target, mine, colour)
            tries[looked] = partial(images, looked, runs, target, mine, colour)
            tries[fields] = partial(lattice, fields, runs, target, mine, colour)
        paths += [path for path, draw in tries.items() if _succeeds(path, draw)]
    whole = out / "summary.png"
    if _succeeds(whole, partial(summary, whole, folder, frames, boards, targets, colour)):
        paths.append(whole)
    return paths


def _succeeds(path: Path, draw: Callable[[], bool]) -> bool:
    """Whether there is a picture; one that fails is a sentence, and the others go on."""
    try:
        return draw()
    except Exception as error:
        warn(f"no {path.name}: {type(error).__name__}: {error}")
        return False
