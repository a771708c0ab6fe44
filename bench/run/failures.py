"""What an exception stands for in a record."""

from __future__ import annotations

import errno

import torch

from tiltbench.records.record import Status
from tiltbench.run.meter import BudgetExceeded
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.checks import Diverged
from tiltbench.targets.purity import Impure

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no fault of the cell: the run stops


def explain(error: BaseException) -> tuple[Status, str]:
    """The status and the one sentence."""
    said = " ".join(str(error).split()) or type(error).__name__
    match error:
        case Unsupported():
            return Status.UNSUPPORTED, said
        case Diverged():
            return Status.DIVERGED, said
        case BudgetExceeded() | Impure():
            return Status.FAILED, said
        case MemoryError() | torch.OutOfMemoryError():
            return Status.OUT_OF_MEMORY, f"out of memory: {said}"
        case RuntimeError() if "allocate memory" in said or "not enough memory" in said:
            return Status.OUT_OF_MEMORY, f"out of memory: {said}"
        case RuntimeError() if "can't start new thread" in said:
            return Status.OUT_OF_MEMORY, f"out of memory: {said}"
    return Status.FAILED, f"{type(error).__name__}: {said}"
