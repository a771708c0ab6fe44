"""A value and its gradient at once: by autograd, where nobody has written them down."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


class Ungraded(ValueError):
    """A function that records no graph of its argument, so that autograd has nothing to pass."""


def value_and_grad(
    f: Callable[[Tensor], Tensor], x: Float[Tensor, "*b d"]
) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
    """f(x) and its gradient at every point, by autograd; neither records a graph.

    Raises Ungraded where f records none."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = f(x)
        if not y.requires_grad:
            raise Ungraded(
                "its gradient is asked for, and it records none: compute it with torch from x, "
                "without detach, .data or no_grad, or use a loss of values alone"
            )
        (g,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), g
