"""How float32 numbers are multiplied: exactly rounded, or on a GPU perhaps as TF32.

TF32 keeps 10 of the 23 bits of a factor.  It is several times faster on large products, and it is
what cuDNN does unless it is told not to: log P of the digits' classifier moves by up to 8e-3 nats.
PyTorch has two ways to say it, flags and (from 2.9 on) a word for every operation; where a session
has used both, reading the flags raises.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import torch

EXACT, ROUNDED = "ieee", "tf32"
GPU = ("cuda.matmul", "cudnn.conv", "cudnn.rnn")  # in torch.backends
CPU = ("mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


class Precision(NamedTuple):
    """What a process has."""

    matmul: str | None  # "highest", "high" or "medium" of products; None where reading it raises
    cudnn: bool | None  # whether cuDNN may use TF32; likewise
    words: tuple[str, ...]  # of GPU and CPU; none before PyTorch 2.9


def _operation(name: str) -> Any:
    """The part of torch.backends with a word of its own; None before PyTorch 2.9."""
    library, kind = name.split(".")
    part = getattr(getattr(torch.backends, library), kind, None)
    return part if hasattr(part, "fp32_precision") else None


_PLACES = [place for place in map(_operation, (*GPU, *CPU)) if place is not None]


def _precision(gpu: str, matmul: str) -> Precision:
    words = (*[gpu] * len(GPU), *[EXACT] * len(CPU))
    return Precision(matmul, gpu == ROUNDED, words if _PLACES else ())


FULL = _precision(EXACT, "highest")
TF32 = _precision(ROUNDED, "high")  # where the device has it


def read() -> Precision:
    matmul, cudnn = None, None
    with suppress(RuntimeError):
        matmul = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        cudnn = torch.backends.cudnn.allow_tf32
    return Precision(matmul, cudnn, tuple(place.fp32_precision for place in _PLACES))


def write(wanted: Precision) -> None:
    """The flags first, as they write words too."""
    if read() == wanted:
        return
    # a flag that could not be read said something else than the words
    torch.set_float32_matmul_precision(wanted.matmul or "highest")
    words = dict(zip(GPU, wanted.words, strict=False))
    all_rounded = words.get("cudnn.conv") == words.get("cudnn.rnn") == ROUNDED
    torch.backends.cudnn.allow_tf32 = not all_rounded if wanted.cudnn is None else wanted.cudnn
    for place, word in zip(_PLACES, wanted.words, strict=True):
        if place.fp32_precision != word:
            place.fp32_precision = word


def allowed() -> bool:
    """Whether a product on a GPU may be of TF32 in this process."""
    now = read()
    if now.words:
        return ROUNDED in now.words[: len(GPU)]
    return bool(now.cudnn) or now.matmul != "highest"
