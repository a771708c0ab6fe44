"""One run of a suite, complete, and what it may use of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import Spec
from tiltbench.targets.cost import Cost

if TYPE_CHECKING:
    from tiltbench.plan.budget import Budget

CURVE_POINTS = 8
SAVED_EVERY = 600.0  # seconds from one checkpoint of a cell to the next


@dataclass(frozen=True)
class Limits:
    """What one cell may use of the machine: seconds of wall time, MB of memory, CPU threads; how
    often it saves itself, and whom it tells of its training."""

    seconds: float = 600.0
    megabytes: int = 8192
    threads: int = 1
    checkpoint: float = SAVED_EVERY  # seconds from one saved state to the next
    loggers: tuple[str, ...] = ()  # to which its training is logged (plan/loggers.py)


@dataclass(frozen=True)
class Cell:
    """One run: complete specs (every field), so that `id` names its files for good."""

    target: Spec
    target_version: int
    sampler: Spec
    budget: Budget
    seed: int
    device: str  # "cpu" or "cuda"
    draws: int
    curve: int  # draws at each point of the learning curve; 0: no curve
    labels: Mapping[str, str]
    ode: int = 0  # draws of the method's flow whose density is measured; 0: none
    tf32: bool = False  # whether products of float32 may be rounded to TF32 (targets/precision.py)

    def rounded(self) -> Cell:
        """The same with TF32 allowed, which is another run and has another name.  Raises BadSpec
        for one on the CPU."""
        if self.device != "cuda":
            raise BadSpec(
                f"tf32 is how a GPU may multiply, and the device here is {self.device}: choose "
                "cuda, or leave tf32 out"
            )
        labels = {**self.labels, "sampler": f"{self.labels['sampler']}, TF32"}
        return replace(self, labels=labels, tf32=True)

    @property
    def spec(self) -> dict[str, Any]:
        """The `spec` of the cell's record; its hash is the cell's identity."""
        budget = self.budget
        rounding = {"tf32": True} if self.tf32 else {}  # no word of it in what was recorded before
        compute = {} if budget.flops == float("inf") else {"flops": budget.flops}
        return {
            **rounding,
            "target": self.target,
            "target_version": self.target_version,
            "sampler": self.sampler,
            "seed": self.seed,
            "device": self.device,
            "draws": self.draws,
            "budget": {
                "train": list(budget.train),
                "draw": list(budget.draw),
                "measure": list(budget.measure),
                "seconds": None if budget.seconds == float("inf") else budget.seconds,
                **compute,
            },
        }

    @property
    def id(self) -> str:
        from tiltbench.plan.spec import spec_id

        return spec_id(self.spec)

    @property
    def title(self) -> str:
        return f"{self.labels['target']} · {self.labels['sampler']} · seed {self.seed}"


def ode_cost(cell: Cell) -> Cost:
    """The flow's part of the measuring budget: a value for each of its draws, and for each of as
    many exact ones."""
    return Cost(2 * cell.ode, 0)
