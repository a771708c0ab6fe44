"""`--engine`, `--jobs`, `--gpus`, `--gpu-share`, `--ray-address` and `--shard` of `tiltbench run`:
engines by name, here and nowhere else."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from tiltbench.cli.words import listed, whole
from tiltbench.engine.gpus import picked, places, visible
from tiltbench.plan.cell import Limits
from tiltbench.plan.errors import Refused

if TYPE_CHECKING:
    from tiltbench.engine.base import Engine


def engine(options: Namespace, device: str, limits: Limits) -> Engine:
    """The engine that the options describe.  Raises Refused for those that do not go together."""
    if options.jobs != "auto":
        whole(options.jobs, "--jobs")
    return {"local": _local, "ray": _ray}[options.engine](options, device, limits)


def _local(options: Namespace, device: str, limits: Limits) -> Engine:
    from tiltbench.engine.local import Local, jobs_for

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
    from tiltbench.engine.ray import Ray

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
