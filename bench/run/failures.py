"""What an exception stands for in a record."""

from __future__ import annotations

import errno
import re

import torch

from tiltbench.records.record import Status
from tiltbench.run.meter import BudgetExceeded
from tiltbench.samplers.adapters.density import Misuse
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.checks import Diverged
from tiltbench.targets.purity import Impure

# No memory, of the machine or of a GPU, in the words of those who ask for it: PyTorch, CUDA and its
# libraries (cuBLAS, cuSOLVER, cuSPARSE, cuFFT, cuRAND; cuDNN 9 says which memory), Triton, C++.
NO_MEMORY = re.compile(
    r"out[ _]of[ _]memory|allocate memory|not enough memory|can't start new thread|bad_alloc"
    r"|\w+_ALLOC(ATION)?_FAILED",
    re.IGNORECASE,
)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no fault of the cell: the run stops


def explain(error: BaseException) -> tuple[Status, str]:
    """The status and the one sentence."""
    message = " ".join(str(error).split()) or type(error).__name__
    match error:
        case Unsupported():
            return Status.UNSUPPORTED, message
        case Diverged():
            return Status.DIVERGED, message
        case BudgetExceeded() | Impure() | Misuse():
            return Status.FAILED, message
        case MemoryError() | torch.OutOfMemoryError():
            return Status.OUT_OF_MEMORY, f"out of memory: {message}"
        case RuntimeError() if NO_MEMORY.search(message):
            return Status.OUT_OF_MEMORY, f"out of memory: {message}"
    return Status.FAILED, f"{type(error).__name__}: {message}"
