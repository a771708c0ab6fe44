"""Where cells run: the options of `tiltbench run` and `tune`, and the engine that they describe.

Engines go by name here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tiltbench.cli.arguments import automatic, share
from tiltbench.cli.options import Device, Names, Tf32, names, option
from tiltbench.engine.gpus import evenly, fitting, memory, picked, places, visible
from tiltbench.plan.cell import Limits
from tiltbench.plan.errors import Refused

if TYPE_CHECKING:
    from tiltbench.engine.base import Engine


@dataclass(frozen=True)
class Where:
    """The options."""

    device: Device = "auto"
    tf32: Tf32 = False
    jobs: Annotated[
        int | None,
        option("cells at a time (default auto: one a core, or as the GPUs hold)", "N", automatic),
    ] = None
    engine: Annotated[
        Literal["local", "ray"], option("what runs the cells (default local: this machine)")
    ] = "local"
    ray_address: Annotated[
        str | None,
        option(
            "the Ray cluster to join (default auto: that of this machine), or a new local one",
            "HOST:PORT|auto|local",
        ),
    ] = None
    gpus: Annotated[Names, names("the GPUs to use (default: all visible)", "0,1")] = ()
    gpu_share: Annotated[
        float | None,
        option(
            "of a GPU that a cell gets: 1 is one cell at a time, 0.5 two (default auto: a cell for "
            "every core a GPU, as its memory holds)",
            "F|auto",
            share,
        ),
    ] = None


HERE = Where()


def engine(options: Where, device: str, limits: Limits, peak: float | None = None) -> Engine:
    """The engine that the options describe; `peak` is the memory in MB that a cell of the folder
    has held on a GPU, where one has run.  Raises Refused for options that do not go together."""
    return {"local": _local, "ray": _ray}[options.engine](options, device, limits, peak)


def _local(options: Where, device: str, limits: Limits, peak: float | None) -> Engine:
    from tiltbench.engine.local import Local, cores, jobs_for

    if options.ray_address:
        raise Refused("--ray-address is of the other engine; add --engine ray")
    if device == "cpu":
        if options.gpus or options.gpu_share:
            raise Refused("--gpus and --gpu-share are for cells on a GPU; add --device cuda")
        return Local(("",) * jobs_for(options.jobs, device, limits), limits)
    devices = picked(options.gpus, visible())
    if options.gpu_share is not None:
        there = places(devices, options.gpu_share)
    elif options.jobs is not None:  # as many as are asked for, evenly
        there = evenly(devices, options.jobs)
    else:
        room = memory(devices, visible())
        there = devices * fitting(cores(), len(devices), limits.threads, room, peak)
    jobs = options.jobs or len(there)
    if jobs > len(there):
        raise Refused(
            f"--jobs {jobs} do not fit on {len(devices)} GPU at --gpu-share {options.gpu_share:g}; "
            f"write a smaller share, such as {len(devices) / jobs:.2g}, or auto"
        )
    return Local(there[:jobs], limits)


def _ray(options: Where, device: str, limits: Limits, peak: float | None) -> Engine:
    if options.jobs or options.gpus:
        raise Refused(
            "--jobs and --gpus are of the local engine; a Ray cluster runs what its CPUs and GPUs "
            "hold (threads of the suite, --gpu-share)"
        )
    from tiltbench.engine.ray import Ray

    return Ray(options.ray_address or "auto", limits, options.gpu_share, peak)
