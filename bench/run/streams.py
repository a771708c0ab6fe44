"""Streams of randomness: one for each purpose, all derived from the cell's seed (protocol.md 2).

Every key that the package spawns from a seed stands here, so that no two purposes share one.
"""

from __future__ import annotations

import numpy as np
from torch import Generator

STREAMS = {
    # a run
    "train": 0,
    "draw": 1,
    "truth": 2,
    "reverse": 3,
    "probe": 4,
    "curve": 5,
    "audit": 6,  # which steps' operations are counted: no sampler meets it
    "flow": 7,
    # its scores
    "reference": 16,
    "score": 17,
    # floors, one for each number of draws
    "floor": 18,
    # long chains of `tiltbench reference`, one for each part of the work
    "certify": 19,
}


def generator(seed: int, purpose: str, device: str = "cpu", part: int | None = None) -> Generator:
    """The stream of `purpose` (see STREAMS), and of one `part` of it: independent of the others,
    equal on every machine."""
    spawned = (STREAMS[purpose],) if part is None else (STREAMS[purpose], part)
    key = np.random.SeedSequence(seed, spawn_key=spawned).generate_state(1, np.uint64)
    return Generator(device).manual_seed(int(key[0]) >> 1)
