"""Validates what `draw` of a sampler returns, before a record has it."""

from __future__ import annotations

import torch

from tiltbench.samplers.sampler import Draws
from tiltbench.targets.checks import Diverged


def validated(draws: Draws, most: int, dim: int) -> Draws:
    """The draws, detached.  Raises ValueError for wrong shapes, Diverged for what is not finite."""
    x, log_w, group = draws.x.detach(), draws.log_w, draws.group
    if x.dim() != 2 or x.shape[1] != dim or not 0 < len(x) <= most:
        raise ValueError(
            f"draw returned x of shape {tuple(x.shape)}; it must be (n, {dim}), n from 1 to {most}"
        )
    for name, values in {"log_w": log_w, "group": group}.items():
        if values is not None and values.shape != (len(x),):
            raise ValueError(
                f"draw returned {name} of shape {tuple(values.shape)}; it must be ({len(x)},)"
            )
    bad = ~x.isfinite().all(-1)
    if bad.any():
        raise Diverged(f"{int(bad.sum())} of {len(x)} draws are not finite")
    if log_w is not None:
        log_w = log_w.detach()
        bad = ~(log_w < torch.inf)
        if bad.any():
            raise Diverged(f"{int(bad.sum())} of {len(x)} log-weights are NaN or +inf")
    return draws._replace(x=x, log_w=log_w)
