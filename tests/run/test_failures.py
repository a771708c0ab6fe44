"""What an exception stands for: memory that is not to be had is no fault of the code."""

import pytest
import torch

from tiltbench.records.record import Status
from tiltbench.run.failures import explain
from tiltbench.run.meter import BudgetExceeded
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.checks import Diverged

WORDS = [
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 8000000000000 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate",
    "can't start new thread",
    "std::bad_alloc",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other "
    "API call, so the stacktrace below might be incorrect.",
    "CUDA driver error: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "Triton Error [CUDA]: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseCreate(handle)`",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "CUDA error: CURAND_STATUS_ALLOCATION_FAILED",
]


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_no_memory_in_the_words_of_every_library(kind, words):
    status, reason = explain(kind(words))
    assert status is Status.OUT_OF_MEMORY
    assert reason == f"out of memory: {' '.join(words.split())}"


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_errors_that_are_named_after_memory(kind):
    assert explain(kind("CUDA failed"))[0] is Status.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "error, status",
    [
        (RuntimeError("CUDA error: device-side assert triggered"), Status.FAILED),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), Status.FAILED),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), Status.FAILED),
        (RuntimeError("Expected all tensors to be on the same device"), Status.FAILED),
        (ValueError("the table of words ran out of memory"), Status.FAILED),  # a word of its own
        (Diverged("out of memory of its start"), Status.DIVERGED),
        (Unsupported("it would run out of memory"), Status.UNSUPPORTED),
        (BudgetExceeded("out of memory"), Status.FAILED),
    ],
)
def test_what_is_no_lack_of_memory(error, status):
    found, reason = explain(error)
    assert found is status and str(error) in reason
