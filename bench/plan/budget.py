"""What a run may spend, in three separate allowances."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tiltbench.targets.cost import Cost

FREE = Cost()


@dataclass(frozen=True)
class Budget:
    """Separate allowances, so that no method hides work in drawing (protocol.md 1)."""

    train: Cost
    draw: Cost
    measure: Cost
    seconds: float = math.inf

    @staticmethod
    def of(points: int, draws: int, probes: Cost = FREE) -> Budget:
        """`--budget N` for n draws: train N, draw 200 n, measure 200 n and the declared probes."""
        each = Cost(200 * draws, 200 * draws)
        return Budget(Cost(points, points), each, each.plus(probes))
