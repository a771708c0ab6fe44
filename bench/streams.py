"""Streams of randomness: one for each purpose, all derived from the cell's seed (protocol.md 2)."""

from __future__ import annotations

import numpy as np
from torch import Generator

# Keys from 8 on belong to scoring.
STREAMS = {"train": 0, "draw": 1, "truth": 2, "reverse": 3, "probe": 4, "curve": 5}


def generator(seed: int, purpose: str, device: str) -> Generator:
    """The stream of `purpose` (see STREAMS): independent of the others, equal on every machine."""
    key = np.random.SeedSequence(seed, spawn_key=(STREAMS[purpose],)).generate_state(1, np.uint64)
    return Generator(device).manual_seed(int(key[0]) >> 1)
