"""Settings of a process that decide numbers: PyTorch's, NumPy's, and the global generators'.

A session or a plug-in may have changed any of them (`torch.set_default_dtype`,
`torch.set_default_device`, `torch.set_grad_enabled`, `numpy.seterr`, seeds, ...).  What is run or
scored here must not depend on that, and must leave them as it found them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch

from tiltbench.targets import precision


class Setting(NamedTuple):
    """How one of them is read and written, and what a run has."""

    read: Callable[[], Any]
    write: Callable[[Any], Any]
    usual: Any


def _flushes() -> bool:
    """Whether this thread rounds denormal numbers to zero, which PyTorch sets but does not say."""
    smallest = math.ulp(0.0)
    return smallest + smallest == 0.0


CUDNN = {"enabled": True, "benchmark": False, "deterministic": False}  # which algorithm it takes


def _cudnn(name: str, usual: bool) -> Setting:
    cudnn = torch.backends.cudnn
    return Setting(lambda: getattr(cudnn, name), lambda on: setattr(cudnn, name, on), usual)


SETTINGS = (
    Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    Setting(torch.is_grad_enabled, torch.set_grad_enabled, True),
    Setting(
        lambda: torch.is_autocast_enabled("cpu"),
        lambda on: torch.set_autocast_enabled("cpu", on),
        False,
    ),
    Setting(
        lambda: torch.is_autocast_enabled("cuda"),
        lambda on: torch.set_autocast_enabled("cuda", on),
        False,
    ),
    Setting(torch.is_anomaly_enabled, torch.set_anomaly_enabled, False),
    Setting(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
    Setting(precision.read, precision.write, precision.FULL),
    *(_cudnn(name, usual) for name, usual in CUDNN.items()),
    Setting(_flushes, torch.set_flush_denormal, False),
    Setting(
        np.geterr,
        lambda reactions: np.seterr(**reactions),
        {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
    ),
)

GENERATORS = (
    Setting(random.getstate, random.setstate, None),
    Setting(np.random.get_state, np.random.set_state, None),
    Setting(torch.get_rng_state, torch.set_rng_state, None),
)


@contextmanager
def preserved() -> Iterator[None]:
    """Whatever happens inside, settings, threads and global generators are as before at the end."""
    with ExitStack() as after:
        device = torch.get_default_device()
        after.callback(_put_device, device)
        after.callback(_put_threads, torch.get_num_threads())
        for setting in (*SETTINGS, *GENERATORS):
            after.callback(setting.write, setting.read())
        if torch.cuda.is_initialized():
            after.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        yield


@contextmanager
def standard(seed: int = 0) -> Iterator[None]:
    """`preserved`, and inside are the settings of a fresh process: float32, the CPU as the default
    device, gradients on.  One is not a fresh process's: float32 is not rounded to TF32 on a GPU
    (`precision`).  The global generators start from `seed`, for the plug-ins that draw from them
    although they should not."""
    with preserved(), torch.inference_mode(False), ExitStack() as inside:
        for setting in SETTINGS:
            if setting.read() != setting.usual:
                setting.write(setting.usual)
        if torch.get_default_device().type != "cpu":
            with suppress(AssertionError):  # PyTorch's, inside a `with torch.device(...)`
                torch.set_default_device(None)
        if torch.empty(0).device.type != "cpu":  # an innermost mode wins; it costs, so only then
            inside.enter_context(torch.device("cpu"))
        _seed(seed)
        yield


def _seed(seed: int) -> None:
    """Not `torch.manual_seed`, which would also seed devices that the session has yet to use."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def _put_device(device: torch.device) -> None:
    if torch.get_default_device() != device:
        torch.set_default_device(None if device.type == "cpu" else device)


def _put_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
