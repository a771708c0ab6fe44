"""What foreign code hands over is looked at once, where it still has a name to be called by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.adapters.density import Misuse
from tiltbench.samplers.classical._leapfrog import spread_out
from tiltbench.samplers.sampler import Draws
from tiltbench.targets.checks import Diverged


class Handed(NamedTuple):
    """Draws of independent chains; draws that are independent themselves are one chain."""

    x: Float[Tensor, "c n d"]
    log_w: Float[Tensor, "c n"] | None
    chains: bool  # whether draws of one chain depend on each other

    def draws(self, n: int, generator: Generator) -> Draws:
        """min(n, all) of them, spread evenly over chains and over each chain."""
        chains, each, dim = self.x.shape
        index = spread_out(chains, each, n, generator)
        return Draws(
            self.x.reshape(-1, dim)[index],
            None if self.log_w is None else self.log_w.reshape(-1)[index],
            index // each if self.chains else None,
        )


def handed(given: Any, name: str, dim: int, device: torch.device) -> Handed:
    """`draws` or `(draws, log_w)` as tensors on `device`: draws (n, dim), or (chains, n, dim) where
    those of a chain depend on each other; log_w of the same shape without the last dimension.

    Raises Misuse for anything else, Diverged for NaN and infinite draws, for NaN and +inf among
    log-weights, and for log-weights that are all -inf."""
    log_w = None
    if isinstance(given, tuple):
        if len(given) != 2:
            raise Misuse(
                f"{name} handed over a tuple of {len(given)}; it must be draws, or (draws, log_w)"
            )
        given, log_w = given
    x = _tensor(given, name, "draws", device)
    if x.dim() not in (2, 3) or x.shape[-1] != dim or x.numel() == 0:
        turned = x.dim() == 2 and x.shape[0] == dim
        raise Misuse(
            f"{name} handed over draws of shape {tuple(x.shape)}; they must be (n, {dim}), or "
            f"(chains, n, {dim}) with n from 1"
            + ("; these look transposed: return draws.T" if turned else "")
        )
    bad = int((~x.isfinite().all(-1)).sum())
    if bad:
        raise Diverged(f"{name}: {bad} of {x.shape[:-1].numel()} draws are not finite")
    if log_w is not None:
        log_w = _weights(_tensor(log_w, name, "log_w", device), name, x)
    chains = x.dim() == 3
    return Handed(x if chains else x[None], log_w, chains)


def _weights(log_w: Tensor, name: str, x: Tensor) -> Tensor:
    if log_w.shape != x.shape[:-1]:
        raise Misuse(
            f"{name} handed over log_w of shape {tuple(log_w.shape)} with draws of shape "
            f"{tuple(x.shape)}; it must be {tuple(x.shape[:-1])}, one number a draw"
        )
    bad = int((~(log_w < torch.inf)).sum())
    if bad:
        raise Diverged(f"{name}: {bad} of {log_w.numel()} log-weights are NaN or +inf")
    if bool((log_w == -torch.inf).all()):
        raise Diverged(f"{name}: every log-weight is -inf, so that no draw lies where p* has mass")
    return log_w.double().reshape(-1, x.shape[-2])


def _tensor(given: Any, name: str, what: str, device: torch.device) -> Tensor:
    if isinstance(given, Tensor):
        tensor = given.detach()
    else:
        if given is None or not (hasattr(given, "__array__") or isinstance(given, Sequence)):
            raise Misuse(
                f"{name} handed over {what} of type {type(given).__name__}; return an array of "
                "draws (n, dim), or (draws, log_w)"
            )
        try:
            array = np.asarray(given)
        except Exception as error:
            raise Misuse(
                f"{name} handed over {what} that make no array ({error}); all draws need the same "
                "number of coordinates"
            ) from error
        if array.dtype.kind not in "fiu":
            raise _of_kind(name, what, array.dtype)
        tensor = torch.from_numpy(
            np.array(array, order="C", copy=True).astype(_torch_dtype(array.dtype))
        )
    if not tensor.dtype.is_floating_point:
        raise _of_kind(name, what, tensor.dtype)
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.to(device, copy=True)


def _torch_dtype(dtype: np.dtype[Any]) -> Any:
    """Whole numbers stay what they are, to be refused; of floats torch has those of 8 bytes."""
    return np.float64 if dtype.kind == "f" and dtype.itemsize > 8 else dtype


def _of_kind(name: str, what: str, dtype: Any) -> Misuse:
    return Misuse(
        f"{name} handed over {what} of {dtype}; return floating-point numbers, float32 or float64"
    )
