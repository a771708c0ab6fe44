"""Whether a target moves with its points to another device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from tiltbench.check.findings import Finding, expect
from tiltbench.targets.target import Target

MEND = "make constants with the dtype and device of x (x.new_tensor, .to(x))"


def devices(target: Target, f: Callable[[Tensor], Tensor], called: str) -> Iterator[Finding]:
    """On torch's device without data, `meta`, which every machine has; on a GPU where there is one.

    A function that looks at values (`.item()`, `.cpu()`) cannot be tried without data."""
    x = target.scale * torch.randn(
        4, target.dim, generator=Generator().manual_seed(23), dtype=torch.float64
    )
    try:
        y = f(x.to("meta"))
    except (RuntimeError, NotImplementedError) as error:
        yield expect(
            "device" not in str(error),
            f"{called} was not tried on another device: it looks at values",
            f"{called} fails for x on another device: {' '.join(str(error).split())}",
            MEND,
        )
    else:
        yield expect(
            y.device.type == "meta",
            f"{called} moves with x to another device",
            f"{called} at x on another device is on the {y.device.type}",
            MEND,
        )
    if torch.cuda.is_available():
        yield from _on_gpu(target, f, called, x)


def _on_gpu(
    target: Target, f: Callable[[Tensor], Tensor], called: str, x: Tensor
) -> Iterator[Finding]:
    y = f(x.cuda())
    yield expect(
        y.is_cuda and torch.allclose(y.cpu(), f(x), rtol=1e-9, atol=1e-9),
        f"{called} is the same on the GPU",
        f"{called} at x on the GPU is on the {y.device.type}, or has other values than on the CPU",
        MEND,
    )
    sample = target.truth().sample
    if sample is None:
        return
    draws = sample(10, Generator("cuda").manual_seed(0))
    yield expect(
        draws.is_cuda,
        "draws are on the generator's device",
        f"draws of a generator on the GPU are on the {draws.device.type}",
        "make them with device=generator.device",
    )
