"""Which GPU a cell gets: places on devices, one cell in each, and how many places a device has."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence

from tiltbench.plan.errors import Refused

# MB.  What a cell is taken to need while none of its folder has run on a GPU; what its process has
# beside the tensors that are measured (CUDA, its libraries, their work space); and the memory of a
# device that cannot be asked.
GUESS, PROCESS, SMALL = 2048, 600, 16_384
SLACK = 1.25  # of what an allocator holds over what is allocated at the peak


def visible() -> tuple[str, ...]:
    """The devices of this process, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return tuple(str(index) for index in range(torch.cuda.device_count()))
    names = (name.strip() for name in named.split(","))
    return tuple(itertools.takewhile(lambda name: name and name != "-1", names))  # as CUDA reads it


def picked(names: Sequence[str], there: Sequence[str]) -> tuple[str, ...]:
    """`--gpus`: those named, all where none is.  Raises Refused for one that is not there, and
    where there is none at all."""
    for name in names:
        if name not in there:
            known = ", ".join(there) or "there are none"
            raise Refused(f"--gpus {name} is none of the devices here ({known})")
    if not there:
        raise Refused("no GPU is visible here; see CUDA_VISIBLE_DEVICES, or choose --device cpu")
    return tuple(dict.fromkeys(names)) or tuple(there)


def memory(devices: Sequence[str], there: Sequence[str]) -> float:
    """MB of the smallest of these devices; SMALL where this process cannot ask."""
    import torch

    try:
        sizes = [
            torch.cuda.get_device_properties(there.index(name)).total_memory for name in devices
        ]
    except (AssertionError, AttributeError, RuntimeError, ValueError):
        return float(SMALL)
    return min(sizes) / 2**20 if sizes else float(SMALL)


def fitting(cores: float, gpus: float, threads: int, megabytes: float, peak: float | None) -> int:
    """`--gpu-share auto`: cells on each GPU, one for every core that it has a claim to, as many as
    its memory holds, and one at least.

    A cell of small tensors is bound by the core that launches its kernels, which leaves the GPU
    idle most of the time.  `peak` is what a recorded cell held at most, in MB; None: no one knows.
    """
    need = GUESS if peak is None or math.isnan(peak) else PROCESS + SLACK * peak
    return max(min(int(cores / (threads * gpus)), int(megabytes / need)), 1)


def places(devices: Sequence[str], share: float) -> tuple[str, ...]:
    """`--gpu-share`: every device as often as cells of that share fit on it, in turns."""
    return tuple(devices) * int(1 / share + 1e-6)  # six cells of .1666666667


def evenly(devices: Sequence[str], jobs: int) -> tuple[str, ...]:
    """`jobs` places, none of the devices with two more than another."""
    return (tuple(devices) * math.ceil(jobs / len(devices)))[:jobs]


def share_of(parts: int) -> float:
    """The share of one of `parts` cells, rounded down to the ten thousandths that Ray counts in."""
    return math.floor(10_000 / parts) / 10_000


def roomiest(free: Sequence[str]) -> str:
    """Of the free places one on a device that has the most of them, that is the least to do."""
    return max(free, key=free.count)
