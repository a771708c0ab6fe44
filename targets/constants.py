"""Numbers as tensors where they are needed: copied to a device once, not at every call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


def constant(
    values: Sequence[float], like: Tensor, dtype: torch.dtype | None = None
) -> Float[Tensor, " n"]:
    """The numbers on the device of `like`, in its dtype or the given one, cached: do not write to
    it.

    A copy to a GPU stops the host until it has arrived, which in a loop over steps costs more than
    the step itself."""
    return _constant(tuple(values), dtype or like.dtype, like.device)


def settled(device: torch.device) -> torch.device:
    """The device as tensors on it say it: a generator's "cuda" is their "cuda:0"."""
    if device.type == "cpu" or device.index is not None:
        return device
    return torch.empty(0, device=device).device


@lru_cache(maxsize=1024)
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # or whoever records a graph later could not use it
        return torch.tensor(values, dtype=dtype, device=device)
