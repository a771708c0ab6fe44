"""What a run spends, phase by phase, over all its attempts, and what there is to note of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tiltbench.plan.cell import Cell
from tiltbench.records.provenance import peak_memory
from tiltbench.run.meter import Meter
from tiltbench.samplers.sampler import Sampler
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, pose
from tiltbench.targets.target import Target


class Attempts(NamedTuple):
    """What a run has used of the machine up to its last checkpoint, in all its attempts."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    resumed: int = 0  # how many times it went on from a checkpoint


@dataclass
class Ledger:
    cell: Cell
    meters: dict[str, list[Meter]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of "train" and "draw"
    notes: list[str] = field(default_factory=list)
    parameters: int = 0
    network: dict[str, int] = field(default_factory=dict)  # points, forward and backward
    flops: dict[str, float] = field(default_factory=dict)  # of "train" and "draw"
    ended_by: str = ""  # what ended the training: a limit of the budget, or "steps"
    earlier: Attempts = Attempts()
    began: tuple[float, float] = field(
        default_factory=lambda: (time.monotonic(), time.process_time())
    )

    def problem(
        self, target: Target, sampler: Sampler[Any], phase: str, budget: Cost
    ) -> tuple[Problem, Meter]:
        """A freshly posed problem whose reward is charged to a meter of its own."""
        meter = Meter(budget)
        self.meters.setdefault(phase, []).append(meter)
        return pose(target, sampler.reference, meter.watch), meter

    def so_far(self) -> Attempts:
        """Earlier attempts and this one."""
        return Attempts(
            self.earlier.seconds + time.monotonic() - self.began[0],
            self.earlier.cpu_seconds + time.process_time() - self.began[1],
            max(self.earlier.peak_memory_mb, peak_memory(self.cell.device)),
            self.earlier.resumed,
        )

    def note(self, sentence: str) -> None:
        """Once only."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def cost(self) -> dict[str, Any]:
        """The record's `cost`: points by phase, seconds, CPU seconds, memory, parameters."""
        spent = {phase: Cost() for phase in ("train", "draw", "measure")}
        for phase, meters in self.meters.items():
            for meter in meters:
                spent[phase] = spent[phase].plus(meter.spent)
        return {
            **{phase: list(cost) for phase, cost in spent.items()},
            **self.so_far()._asdict(),
            **{f"{phase}_seconds": value for phase, value in self.seconds.items()},
            **{f"{phase}_flops": value for phase, value in self.flops.items()},
            **({"ended_by": self.ended_by} if self.ended_by else {}),
            "parameters": self.parameters,
            **self.network,
            "notes": self.notes,
        }
