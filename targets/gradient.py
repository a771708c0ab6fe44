"""A value and its gradient at once: by autograd, where nobody has written them down."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def value_and_grad(
    f: Callable[[Tensor], Tensor], x: Float[Tensor, "*b d"]
) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
    """f(x) and its gradient at every point, by autograd; neither records a graph."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = f(x)
        (g,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), g
