"""The budget is enforced where the reward is called: every value and gradient at a point counts.

The wrapper is an identity `torch.autograd.Function` on the reward's *input* (its backward is a
gradient being delivered, however it was asked for) and another on its *output* (whose backward
runs first and refuses what would overspend).  Both have vmap rules, so that vmap(grad),
Hessian-vector products and jacrev(grad) are counted by points, not by calls.  It keeps honest code
honest: Python cannot stop code in the same process that digs the bare density out of a closure.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tiltbench.targets.cost import BudgetExceeded as BudgetExceeded  # met where the meter is
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Graded, Reward, front, graded


@dataclass
class Meter:
    """Counts a reward's evaluations against `budget`; `spent` never exceeds it."""

    budget: Cost
    spent: Cost = Cost()
    refused: bool = False  # whether anything was
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def left(self) -> Cost:
        return self.budget.minus(self.spent)

    def require(self, cost: Cost) -> None:
        """Raises BudgetExceeded unless `cost` is left."""
        if not self.left.covers(cost):
            self.refused = True
            raise BudgetExceeded(
                f"{cost.values} values and {cost.grads} gradients asked for, "
                f"{self.left.values} and {self.left.grads} left of "
                f"{self.budget.values} and {self.budget.grads}"
            )

    def charge(self, cost: Cost) -> None:
        with self.lock:  # a sampler may use threads
            self.require(cost)
            self.spent = self.spent.plus(cost)

    def close(self) -> None:
        """Nothing is left from here on: a reward kept from this phase is of no use in the next."""
        self.budget = self.spent

    def watch(self, f: Reward) -> Graded:
        """The same reward, counted.  Forward-mode differentiation through it raises."""
        bare = graded(f)

        def counted(x: Tensor) -> Tensor:
            if not _differentiable(x):
                self.charge(Cost(values=_points(x)))
                return bare.value(x)
            return _Exit.apply(bare.value(_Entry.apply(x, self)), self)

        def both(x: Tensor) -> tuple[Tensor, Tensor]:
            if torch._C._functorch.is_functorch_wrapped_tensor(x):
                raise RuntimeError(
                    "value_and_grad hides points from the meter under torch.func; use "
                    "torch.func.grad of the reward, which is counted"
                )
            self.charge(Cost(_points(x), _points(x)))
            return bare.value_and_grad(x)

        return Graded(counted, both, bare.checks)

    def captured(self, capture: Callable[[], Callable[[], None]]) -> Callable[[], None]:
        """What `capture()` returns, a replay of what it recorded, charged before each time it runs
        with what recording charged; raises BudgetExceeded where that is not left.

        Recording a CUDA graph launches nothing, so what it charged is given back."""
        before = self.spent
        try:
            replay = capture()
        finally:
            with self.lock:
                cost, self.spent = self.spent.minus(before), before

        def run() -> None:
            self.charge(cost)
            replay()

        return run


def _differentiable(x: Tensor) -> bool:
    """Whether a derivative may be taken at x, in any way."""
    return (
        torch.is_grad_enabled()
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        or forward_ad._current_level >= 0
    )


class _Entry(torch.autograd.Function):
    """Identity on the points x: charges values forward, gradients backward."""

    @staticmethod
    def forward(x: Tensor, meter: Meter) -> Tensor:
        meter.charge(Cost(values=_points(x)))
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.meter = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return _Gradient.apply(grad[0], ctx.meter), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, meter: Meter) -> Any:
        return _Entry.apply(front(info, in_dims[0], x), meter), 0


class _Gradient(torch.autograd.Function):
    """Identity on gradients at points, charged; a pass back through them is refused in advance."""

    @staticmethod
    def forward(g: Tensor, meter: Meter) -> Tensor:
        meter.charge(Cost(grads=_points(g)))
        return g.view_as(g)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.meter = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return _Require.apply(grad[0], ctx.meter, 1), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, meter: Meter) -> Any:
        return _Gradient.apply(front(info, in_dims[0], g), meter), 0


class _Exit(torch.autograd.Function):
    """Identity on the reward's values (*b): a backward pass must be affordable before it starts."""

    @staticmethod
    def forward(y: Tensor, meter: Meter) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.meter = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return _Require.apply(grad[0], ctx.meter, 0), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, y: Tensor, meter: Meter) -> Any:
        return _Exit.apply(front(info, in_dims[0], y), meter), 0


class _Require(torch.autograd.Function):
    """Identity that refuses a pass over more points than are left.

    `event` is the number of trailing dimensions that belong to one point: 0 for values, 1 for
    gradients."""

    @staticmethod
    def forward(g: Tensor, meter: Meter, event: int) -> Tensor:
        if torch._C._functorch.is_legacy_batchedtensor(g):
            raise RuntimeError(
                "is_grads_batched hides how many gradients it takes from the meter; "
                "use torch.func.vmap or torch.func.jacrev, which are counted"
            )
        meter.require(Cost(grads=math.prod(g.shape[: g.dim() - event])))
        return g.view_as(g)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return grad[0], None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, meter: Meter, event: int) -> Any:
        return _Require.apply(front(info, in_dims[0], g), meter, event), 0


def _points(x: Tensor) -> int:
    return math.prod(x.shape[:-1])
