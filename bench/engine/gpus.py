"""Which GPU a cell gets: places on devices, one cell in each."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tiltbench.plan.errors import Refused


def visible() -> tuple[str, ...]:
    """The devices of this process, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return tuple(str(index) for index in range(torch.cuda.device_count()))
    return tuple(name.strip() for name in named.split(",") if name.strip())


def picked(names: Sequence[str], there: Sequence[str]) -> tuple[str, ...]:
    """`--gpus`: those named, all where none is.  Raises Refused for one that is not there."""
    for name in names:
        if name not in there:
            known = ", ".join(there) or "there are none"
            raise Refused(f"--gpus {name} is none of the devices here ({known})")
    return tuple(dict.fromkeys(names)) or tuple(there)


def places(devices: Sequence[str], share: float) -> tuple[str, ...]:
    """`--gpu-share`: every device as often as cells of that share fit on it, in turns."""
    return tuple(devices) * int(1 / share + 1e-6)  # six cells of .1666666667


def roomiest(free: Sequence[str]) -> str:
    """Of the free places one on a device that has the most of them, that is the least to do."""
    return max(free, key=free.count)
