"""What a network gives a model: a control u(x, t) and its derivative along directions."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltbench.samplers.flows.probability_flow import ProbabilityFlow
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Controlled, Process


class Control(nn.Module, Controlled):
    """A control with parameters; it counts the points at which it is evaluated."""

    guided = False  # whether `control` wants grad r(x) as its hint
    forward_points = 0  # points (x, t) at which it was evaluated, and of those
    backward_points = 0  # the ones whose graph was kept: recorded, never limited

    @abstractmethod
    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        """u(x, t), with t broadcastable to x.shape[:-1]; `hint` is grad r(x) for guided ones."""

    def stretched(
        self, x: Float[Tensor, "*b d"], t: Tensor, directions: Float[Tensor, "*c m d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
        """u and xi_i . (du/dx) xi_i for each of m directions xi (see `Model.stretched`)."""
        if self.guided:
            raise Unsupported(
                "the divergence of a guided control takes second derivatives of the reward: use an "
                "unguided network, or recipe=Escorted, which needs no divergence"
            )
        return by_products(lambda y: self.control(y, t), x, directions)

    def probability_flow(self, base: Process, dim: int) -> ProbabilityFlow:
        """The flow of the base displaced by a frozen copy of this control, in float64.

        Raises Unsupported for guided controls, and where the base has no flow."""
        if self.guided:
            raise Unsupported(
                "the flow of a guided control takes second derivatives of the reward: use an "
                "unguided network"
            )
        return ProbabilityFlow(base, dim, copy.deepcopy(self).double().requires_grad_(False))

    def count(self, x: Float[Tensor, "*b d"]) -> None:
        points = math.prod(x.shape[:-1])
        state = self.__dict__  # a module's own way to set an attribute costs as much as a layer
        state["forward_points"] = self.forward_points + points
        state["backward_points"] = self.backward_points + points * torch.is_grad_enabled()


class Sloped(Control):
    """A control that is the slope of a potential: spread u = grad phi."""

    @abstractmethod
    def potential(self, x: Float[Tensor, "*b d"], t: Tensor) -> Float[Tensor, " *b"]:
        """phi(x, t), length^2."""


def by_products(
    u_of: Callable[[Tensor], Tensor],
    x: Float[Tensor, "*b d"],
    directions: Float[Tensor, "*c m d"],
) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
    """u(x) and xi_i . (du/dx) xi_i by a vector-Jacobian product a direction, of any function.

    Differentiable in its parameters, and in x where that requires a gradient."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        y = x if keep and x.requires_grad else x.detach().requires_grad_()
        u = u_of(y) + 0 * y  # a control that ignores x has divergence 0
        products = []
        for xi in directions.unbind(-2):
            (pulled,) = torch.autograd.grad((u * xi).sum(), y, create_graph=keep, retain_graph=True)
            products.append((pulled * xi).sum(-1))
    each = torch.stack(products, -1)
    return (u, each) if keep else (u.detach(), each.detach())
