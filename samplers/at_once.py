"""How many at once: work that is done in parts bounds its memory, and a GPU has room for more.

On a CPU a part is what its caches like.  On a GPU such a part is over before its kernels have been
launched, so it takes up to WIDER times as many, unless they are large themselves.  A part draws its
noise as it comes: draws made in other parts are other draws of the same law.
"""

from __future__ import annotations

import torch

WIDER = 8  # 16,384 paths of 64 pixels in 50 steps are 0.2 GB a tensor; a few are held
LARGE = 64  # coordinates of a point, above which fewer are taken


def at_once(few: int, dim: int, device: torch.device) -> int:
    """How many paths or points of `dim` coordinates: `few` on a CPU; on a GPU WIDER times as many
    up to dimension LARGE, and from there on less, in proportion, down to `few`."""
    if device.type == "cpu":
        return few
    return few * max(WIDER * LARGE // max(dim, LARGE), 1)
