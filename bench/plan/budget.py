"""What a run may spend: calls of the target in three separate budgets, flops and seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tiltbench.targets.cost import Cost

FREE = Cost()
UNLIMITED = 10**12  # calls that no run makes: the suite states another limit
CALLS = 40_000  # where nobody states a limit


def usual_calls(flops: float, seconds: float) -> int:
    """Calls where none are stated: CALLS, or no limit where something else limits training."""
    return CALLS if flops == seconds == math.inf else UNLIMITED


@dataclass(frozen=True)
class Budget:
    """Separate budgets, so that no method hides work in drawing (protocol.md 1)."""

    train: Cost
    draw: Cost
    measure: Cost
    seconds: float = math.inf  # of the training clock
    flops: float = math.inf  # floating-point operations of training, and as many of drawing

    @staticmethod
    def of(points: int, draws: int, probes: Cost = FREE) -> Budget:
        """N calls for n draws: train N, draw 200 n, measure 200 n and the declared probes."""
        each = Cost(200 * draws, 200 * draws)
        return Budget(Cost(points, points), each, each.plus(probes))

    @property
    def limits(self) -> str:
        """Of training, in words: "400,000 calls, 2e+11 flops"."""
        return limits(self.train.calls, self.flops, self.seconds)


def limits(calls: float, flops: float, seconds: float) -> str:
    """Those that are there, in words."""
    parts = (
        f"{calls:,.0f} calls" if calls < UNLIMITED else "",
        f"{flops:.3g} flops" if flops < math.inf else "",
        f"{seconds:g} s" if seconds < math.inf else "",
    )
    return ", ".join(filter(None, parts))


def together(budgets: Iterable[Budget]) -> str:
    """What many runs may take in all, as `limits` says it."""
    every = list(budgets)
    return limits(
        sum(one.train.calls for one in every),
        sum(one.flops for one in every),
        sum(one.seconds for one in every),
    )
