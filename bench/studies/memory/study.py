"""How does the peak memory of one training step grow with the number of time steps?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator

from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.report.pictures.style import COLOURS, picture
from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.loss import AT_ONCE
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

PATHS = 512
STEPS = (32, 64, 128, 256)
METHODS = {
    "adjoint_matching": f"adjoint_matching[paths={PATHS}]",
    "adjoint_matching_tricks": f"adjoint_matching_tricks[paths={PATHS}]",
    "trajectory_balance": f"trajectory_balance[paths={PATHS}]",
    "relative_entropy": f"relative_entropy[paths={PATHS}]",
    "relative_entropy, last 10 steps": f"relative_entropy[paths={PATHS},recipe=Truncated[last=10]]",
}
TENSORS = 12  # of a path's size: x, mean, u and targets, in float32, and while they are made
MEGABYTE = 2**20


class Line(NamedTuple):
    method: str
    peaks: list[float]  # MB, at STEPS

    @property
    def slope(self) -> float:
        """MB a time step between the last two of STEPS."""
        return (self.peaks[-1] - self.peaks[-2]) / (STEPS[-1] - STEPS[-2])


def peak(work: Callable[[], object]) -> float:
    """MB by which the tensors held exceed at most those held before, by torch's own book of every
    allocation: the same on every machine, unlike the size of a process."""
    with torch.autograd.profiler.profile(profile_memory=True) as book:
        work()
    assert book.kineto_results is not None
    events = [e for e in book.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return float(max(np.cumsum(sizes), default=0)) / MEGABYTE


def of_step(method: str, steps: int, device: str) -> float:
    """The peak of the second training step: the first makes what is made once."""
    sampler = build_sampler(parse(method))
    target = build_target(parse(f"tilt_linear[steps={steps}]"))
    problem = pose(target, sampler.reference)
    source = Generator(device).manual_seed(0)
    state = sampler.init(problem, Cost(10**9, 10**9), source)
    state = sampler.step(problem, state, source)
    return peak(lambda: sampler.step(problem, state, source))


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    lines = [
        Line(name, [of_step(text, k, device) for k in STEPS]) for name, text in METHODS.items()
    ]
    whole = at_once(AT_ONCE, 2, torch.device(device))
    path = TENSORS * PATHS * 2 * 4 / MEGABYTE
    _draw(folder / "memory.png", lines)
    words = (
        f"Largest memory held by tensors during one training step with {PATHS:,} paths on "
        "`tilt_linear` (D = 2, the network's default size), beyond what is held between steps. "
        f"*Slope*: from K = {STEPS[-2]} to {STEPS[-1]}. {TENSORS} tensors of a path's "
        f"size are {path:.3f} MB a time step. A regression of more than {whole:,} points "
        "evaluates its network in parts, and once more in the backward pass."
    )
    return Answer(DataFrame([_row(line) for line in lines]), words, _claims(lines, path))


def _row(line: Line) -> dict[str, object]:
    at = {f"MB, K = {k}": f"{m:.1f}" for k, m in zip(STEPS, line.peaks, strict=True)}
    return {"method": line.method, **at, "slope, MB a step": line.slope}


def _claims(lines: list[Line], path: float) -> tuple[Claim, ...]:
    slope = {line.method: line.slope for line in lines}
    adjoint = max(slope["adjoint_matching"], slope["adjoint_matching_tricks"])
    whole, cut = slope["relative_entropy"], slope["relative_entropy, last 10 steps"]
    return (
        Claim(
            "Adjoint matching's peak memory does not grow with the number of steps beyond storing "
            "the path",
            verdict(adjoint < 2 * path, adjoint > 10 * path),
            f"{adjoint:.3f} MB a step at most; {TENSORS} tensors of a path's size are {path:.3f}.",
        ),
        Claim(
            "Relative entropy's grows with the graph of the whole path",
            verdict(whole > 10 * path, whole < 2 * path),
            f"{whole:.3f} MB a step, {whole / path:.0f} times that.",
        ),
        Claim(
            "Truncated to the last steps it does not",
            verdict(cut < 2 * path, cut > 10 * path),
            f"{cut:.3f} MB a step.",
        ),
    )


def _draw(path: Path, lines: list[Line]) -> None:
    with picture(path, 1, 1, (4.6, 3.0)) as (_, grid):
        axes = grid[0, 0]
        for colour, line in zip(COLOURS, lines, strict=False):
            axes.plot(STEPS, line.peaks, color=colour, lw=1.2, marker="o", ms=3, label=line.method)
        axes.set_xlabel("time steps K")
        axes.set_ylabel("peak memory of a training step  (MB)")
        axes.legend(fontsize=7)


memory = Study("memory", "Peak memory against the number of time steps", run)
