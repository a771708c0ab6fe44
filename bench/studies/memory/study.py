"""How do the peak memory and the time of one training step grow with the number of time steps?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator

from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.report.pictures.style import looks, picture
from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.loss import AT_ONCE
from tiltbench.studies.common.rules import Same
from tiltbench.study import Answer, Claim, Study, verdict
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose

PATHS = 512  # so many that a regression at the last of STEPS is in parts, with half of them too
STEPS = (32, 128, 256)
TIMED = 3  # steps, of which the quickest counts

ON_PATHS = "losses of whole paths: the network is asked again at every point"
LEAN = "regressions along the path, in parts"
THROUGH = "through the path"
NOISED = "regressions at noised end points"
NO_TRAINING = "draws, nothing trained"

METHODS = {
    "adjoint_matching": LEAN,
    "adjoint_matching_tricks": LEAN,
    "trajectory_balance": ON_PATHS,
    "log_variance": ON_PATHS,
    "reinforce": ON_PATHS,
    "dpok": ON_PATHS,
    "ddpo": ON_PATHS,
    "ddpo_published": ON_PATHS,
    "flow_grpo": ON_PATHS,
    "flow_grpo_published": ON_PATHS,
    "diffusion_dpo": ON_PATHS,
    "relative_entropy": THROUGH,
    "relative_entropy[recipe=Truncated[last=10]]": THROUGH,
    "importance_fine_tuning": NOISED,
    "tilt_matching": NOISED,
    "conditional_score_matching": NOISED,
    "diffusion_nft": NOISED,
    "diffusion_nft_published": NOISED,
    "advantage_weighted_matching": NOISED,
    "advantage_weighted_matching_published": NOISED,
    "reward_weighted_regression": NOISED,
    "diffusion_dpo_published": NOISED,
    "guidance": NO_TRAINING,
    "twisted_smc": NO_TRAINING,
    "feynman_kac_difference": NO_TRAINING,
    "value_selection": NO_TRAINING,
}
CUT = "relative_entropy[recipe=Truncated[last=10]]"
LINEAR = Same(agrees=1.1, apart=1.3)  # exponents
TENSORS = 12  # of a path's size: x, mean, u and targets, in float32, and while they are made
MEGABYTE = 2**20


class Footprint(NamedTuple):
    method: str
    kind: str
    peaks: list[float]  # MB, at STEPS
    seconds: list[float]  # of a step, at STEPS

    @property
    def slope(self) -> float:
        """MB a time step between the last two of STEPS."""
        return (self.peaks[-1] - self.peaks[-2]) / (STEPS[-1] - STEPS[-2])

    @property
    def growth(self) -> float:
        """The exponent of the time in the number of steps, from the first of STEPS to the last."""
        return math.log(self.seconds[-1] / self.seconds[0]) / math.log(STEPS[-1] / STEPS[0])


class Measured(NamedTuple):
    peak: float  # MB
    seconds: float  # of the processor


def peak(work: Callable[[], object]) -> float:
    """MB by which the tensors held exceed at most those held before, by torch's own book of every
    allocation: the same on every machine, unlike the size of a process."""
    with torch.autograd.profiler.profile(profile_memory=True) as book:
        work()
    assert book.kineto_results is not None
    events = [e for e in book.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return float(max(np.cumsum(sizes), default=0)) / MEGABYTE


def one_step(method: str, steps: int, device: str) -> Measured:
    """The second training step, or draw of as many paths: the first makes what is made once."""
    sampler = build_sampler(parse(method))
    target = build_target(parse(f"tilt_linear[steps={steps}]"))
    problem = pose(target, sampler.reference)
    source = Generator(device).manual_seed(0)
    state = sampler.init(problem, Cost(10**9, 10**9), source)

    def work() -> None:
        if state is None:
            sampler.draw(problem, state, PATHS, source)
        else:
            sampler.step(problem, state, source)

    work()
    return Measured(peak(work), min(_seconds(work, device) for _ in range(TIMED)))


def _seconds(work: Callable[[], object], device: str) -> float:
    """On a CPU, of the processor: what else runs there does not count."""
    clock = time.perf_counter if torch.device(device).type == "cuda" else time.process_time
    start = clock()
    work()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def stated(method: str, kind: str) -> str:
    """The sampler of a row: PATHS paths and one step of the optimiser."""
    if kind == NO_TRAINING:
        return method
    one = f"paths={PATHS},repeats=1,memory=1"
    return f"{method[:-1]},{one}]" if method.endswith("]") else f"{method}[{one}]"


def measure_footprint(method: str, kind: str, device: str) -> Footprint:
    runs = [one_step(stated(method, kind), steps, device) for steps in STEPS]
    return Footprint(method, kind, [each.peak for each in runs], [each.seconds for each in runs])


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    footprints = [measure_footprint(method, kind, device) for method, kind in METHODS.items()]
    whole = at_once(AT_ONCE, 2, torch.device(device))
    path = TENSORS * PATHS * 2 * 4 / MEGABYTE
    _draw(folder / "memory.png", footprints)
    words = (
        f"Largest memory held by tensors, and seconds of the processor, of one training step: "
        f"{PATHS:,} paths on `tilt_linear` (D = 2, the network's default size) and one step of the "
        "optimiser; for what trains nothing, of as many draws. Memory is beyond what is held "
        f"between steps, time the least of {TIMED}. *Slope*: from K = {STEPS[-2]} to "
        f"{STEPS[-1]}; the time's exponent from {STEPS[0]} to {STEPS[-1]}. {TENSORS} "
        f"tensors of a path's size are {path:.3f} MB a time step. A regression of more than "
        f"{whole:,} points evaluates its network in parts, and once more "
        "in the backward pass. `relative_trajectory_balance` is `trajectory_balance`; the losses "
        "whose presets repeat steps of the optimiser pay the backward pass as many times."
    )
    return Answer(
        DataFrame([_table_row(footprint) for footprint in footprints]),
        words,
        claims(footprints, path),
    )


def _table_row(footprint: Footprint) -> dict[str, object]:
    at = {f"MB, K = {k}": f"{m:.1f}" for k, m in zip(STEPS, footprint.peaks, strict=True)}
    times = {f"s, K = {k}": f"{s:.3f}" for k, s in zip(STEPS, footprint.seconds, strict=True)}
    return {
        "method": footprint.method,
        "what it is": footprint.kind,
        **at,
        "slope, MB a step": footprint.slope,
        **times,
        "time grows as K to the": f"{footprint.growth:.2f}",
    }


def claims(footprints: list[Footprint], path: float) -> tuple[Claim, ...]:
    """`path`: MB of TENSORS tensors of a path's size, for one time step."""

    def slopes(kind: str) -> dict[str, float]:
        return {
            footprint.method: footprint.slope for footprint in footprints if footprint.kind == kind
        }

    adjoint, held = slopes(LEAN), slopes(ON_PATHS)
    light = {**slopes(NOISED), **slopes(NO_TRAINING)}
    through = slopes(THROUGH)
    cut, most = through.pop(CUT), max(light, key=light.__getitem__)
    whole, least = max(through.values()), min(held, key=held.__getitem__)
    growth = [footprint.growth for footprint in footprints]
    return (
        Claim(
            "Adjoint matching's peak memory does not grow with the number of steps beyond storing "
            "the path",
            verdict(max(adjoint.values()) < 2 * path, max(adjoint.values()) > 10 * path),
            f"{max(adjoint.values()):.3f} MB a step at most; {TENSORS} tensors of a path's size "
            f"are {path:.3f}.",
        ),
        Claim(
            "Relative entropy's peak memory grows with the graph of the whole path",
            verdict(whole > 10 * path, whole < 2 * path),
            f"{whole:.3f} MB a step, {whole / path:.0f} times that.",
        ),
        Claim(
            "Relative entropy truncated to the last steps only stores the path",
            verdict(cut < 2 * path, cut > 10 * path),
            f"{cut:.3f} MB a step.",
        ),
        Claim(
            "The peak memory of every loss of whole paths, policy gradients among them, grows with "
            "the graph of the whole path",
            verdict(held[least] > 10 * path, held[least] < 2 * path),
            f"the least of {len(held)} is `{least}`, {held[least]:.3f} MB a step, the largest "
            f"{max(held.values()):.3f}.",
        ),
        Claim(
            "Regressions at noised end points, and what trains nothing, only store the path",
            verdict(light[most] < 2 * path, light[most] > 10 * path),
            f"the largest of {len(light)} is `{most}`, {light[most]:.3f} MB a step.",
        ),
        Claim(
            "The time of a step grows no faster than its number of time steps",
            verdict(max(growth) < LINEAR.agrees, max(growth) > LINEAR.apart),
            f"exponents from {min(growth):.2f} to {max(growth):.2f}.",
        ),
    )


def _draw(path: Path, footprints: list[Footprint]) -> None:
    with picture(path, 1, 2, (4.6, 4.2)) as (figure, grid):
        memory, times = grid[0]
        for method, look in looks(footprint.method for footprint in footprints).items():
            footprint = next(footprint for footprint in footprints if footprint.method == method)
            style = {"color": look.colour, "marker": look.marker, "ls": look.line}
            style |= {"ms": 3, "lw": 1.2}
            memory.plot(STEPS, footprint.peaks, label=method, **style)
            times.plot(STEPS, footprint.seconds, **style)
        for axes in (memory, times):
            axes.set_xlabel("time steps K")
            axes.set_xscale("log")
            axes.set_yscale("log")
        memory.set_ylabel("peak memory of a training step  (MB)")
        times.set_ylabel("time of a training step  (s)")
        figure.legend(loc="outside lower center", ncols=3, fontsize=6)


memory = Study("memory", "Peak memory and time against the number of time steps", run)
