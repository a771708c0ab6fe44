"""Densities that write their gradient down, as functions that autograd and torch.func know."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.problem import front
from tiltbench.targets.reference import Referenced


class Analytic(Referenced):
    """log rho whose gradient comes from the same pass as its values, and whose Hessian-vector
    products are differentiable: autograd gives derivatives of every order.  There is no forward
    mode.

    Where log rho is -inf all derivatives are 0."""

    @abstractmethod
    def fill(
        self,
        x: Float[Tensor, "b D"],
        value: Float[Tensor, " b"],
        slope: Float[Tensor, "b D"] | None,
    ) -> None:
        """log rho into `value` and its gradient into `slope`, where that is asked for."""

    @abstractmethod
    def bent(
        self, x: Float[Tensor, "*b D"], v: Float[Tensor, "*b D"], alive: Tensor
    ) -> Float[Tensor, "*b D"]:
        """The Hessian of log rho at x applied to v, 0 where not `alive`; differentiable.

        Called under vmap too: no values decide, and v may have hidden dimensions that x has not."""

    @abstractmethod
    def block(self, x: Tensor) -> int:
        """Points to work on at a time."""

    def log_rho(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, " *b"]:
        if x.requires_grad and torch.is_grad_enabled():
            return _Slope.apply(x, self)[0]
        return _Value.apply(x, self)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b D"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b D"]]:
        return _Slope.forward(x.detach(), self)


def blocks(x: Float[Tensor, "b D"], size: int) -> Iterator[slice]:
    """Slices of a batch, at least one, of a size that does not grow with it."""
    return (slice(k, k + size) for k in range(0, max(len(x), 1), size))


class _Slope(torch.autograd.Function):
    """x -> (log rho, its gradient).  As an output the gradient is differentiable, and create_graph
    or torch.func.grad cost no second pass."""

    @staticmethod
    def forward(x: Tensor, law: Analytic) -> tuple[Tensor, Tensor]:
        flat = x.reshape(-1, x.shape[-1])
        value, slope = flat.new_empty(len(flat)), torch.empty_like(flat)
        for block in blocks(flat, law.block(flat)):
            law.fill(flat[block], value[block], slope[block])
        return value.reshape(x.shape[:-1]), slope.reshape(x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.law = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *output)

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        x, value, slope = ctx.saved_tensors
        of_value, of_slope = grad
        total = None if of_value is None else of_value[..., None] * slope
        if of_slope is not None:
            bent = ctx.law.bent(x, of_slope, value > -torch.inf)
            total = bent if total is None else total + bent
        return total, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, law: Analytic) -> Any:
        return _Slope.apply(front(info, in_dims[0], x), law), (0, 0)


class _Value(torch.autograd.Function):
    """x -> log rho, without the gradient; a transform that hides one still finds it."""

    @staticmethod
    def forward(x: Tensor, law: Analytic) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        value = flat.new_empty(len(flat))
        for block in blocks(flat, law.block(flat)):
            law.fill(flat[block], value[block], None)
        return value.reshape(x.shape[:-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.law = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad[0][..., None] * _Slope.apply(x, ctx.law)[1], None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, law: Analytic) -> Any:
        return _Value.apply(front(info, in_dims[0], x), law), 0
