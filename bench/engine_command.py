"""`--engine`, `--jobs`, `--gpus`, `--gpu-share`, `--ray-address` and `--shard` of `tiltbench run`:
engines by name, here and nowhere else."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tiltbench.cell import Cell, Limits
from tiltbench.gpus import picked, places, visible
from tiltbench.words import Refused, listed, whole

if TYPE_CHECKING:
    from tiltbench.engine import Engine


def engine(options: Namespace, device: str, limits: Limits) -> Engine:
    """The engine that the options describe.  Raises Refused for those that do not go together."""
    if options.jobs != "auto":
        whole(options.jobs, "--jobs")
    return {"local": _local, "ray": _ray}[options.engine](options, device, limits)


def _local(options: Namespace, device: str, limits: Limits) -> Engine:
    from tiltbench.local import Local, jobs_for

    if options.ray_address:
        raise Refused("--ray-address is of the other engine; add --engine ray")
    if device == "cpu":
        if options.gpus or options.gpu_share:
            raise Refused("--gpus and --gpu-share are for cells on a GPU; add --device cuda")
        return Local(("",) * jobs_for(options.jobs, device, limits), limits)
    share = _share(options.gpu_share)
    devices = picked(listed(options.gpus, "--gpus"), visible())
    there = places(devices, share)
    jobs = len(there) if options.jobs == "auto" else int(options.jobs)
    if jobs > len(there):
        raise Refused(
            f"--jobs {jobs} do not fit on {len(devices)} GPU at --gpu-share {share:g}; write a "
            f"smaller share, such as {len(devices) / jobs:.2g}"
        )
    return Local(there[:jobs], limits)


def _ray(options: Namespace, device: str, limits: Limits) -> Engine:
    if options.jobs != "auto" or options.gpus:
        raise Refused(
            "--jobs and --gpus are of the local engine; a Ray cluster runs what its CPUs and GPUs "
            "hold (threads of the suite, --gpu-share)"
        )
    from tiltbench.cluster import Ray

    return Ray(options.ray_address or "auto", limits, _share(options.gpu_share))


def _share(text: str | None) -> float:
    try:
        share = float(text or 1)
    except ValueError:
        share = 0.0
    if not 0.01 <= share <= 1:
        raise Refused(
            f"--gpu-share {text} is not a share of a GPU; write 1 for one cell at a time, 0.5 for "
            "two on each"
        )
    return share


class Shard(NamedTuple):
    """Part `which` of `parts` parts of a suite, counted from 1.

    A cell's part follows from its id alone, a hash of its spec: every machine agrees without a word
    from the others, whatever is recorded already, and no cell moves when a seed or a target is
    added.  The parts are of equal size on average only."""

    which: int
    parts: int

    def of(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if int(cell.id, 16) % self.parts == self.which - 1]

    def __str__(self) -> str:
        return f"{self.which}/{self.parts}"


WHOLE = Shard(1, 1)


def shard(text: str | None) -> Shard:
    """`3/8` is the third of eight; None is the whole.  Raises Refused for anything else."""
    if text is None:
        return WHOLE
    index, slash, number = text.partition("/")
    digits = all(part.isascii() and part.isdecimal() for part in (index, number))
    if not (slash and digits and 1 <= int(index) <= int(number)):
        raise Refused(
            f"--shard {text or repr(text)} is no part of a suite; write I/N, from 1/8 to 8/8 for "
            "eight machines"
        )
    return Shard(int(index), int(number))
