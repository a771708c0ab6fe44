"""What is trained, and what builds it: a control and the free energy along time."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Controlled, Process

BENDS = 8  # sines that bend the free energy away from a straight line


class Earlier(NamedTuple):
    """A frozen copy of a model as it was at the end of a stage of its training (tilt matching)."""

    model: Model
    tilt: float  # a: its law is p_base exp(a r)
    goal: float  # the tilt the model itself is now trained towards


class Model(nn.Module, Controlled):
    """What is trained: a control and the free energy F(t), F(0) = 0 and F(1) = -log_Z."""

    guided = False  # whether `control` wants grad r(x) as its hint
    forward_points = 0  # points (x, t) at which the control was evaluated, and of those
    backward_points = 0  # the ones whose graph was kept: recorded, never limited
    earlier: Earlier | None = None  # a tuple: copied with the model, but no part of its parameters

    def __init__(self) -> None:
        super().__init__()
        self.log_Z = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.bend = nn.Parameter(torch.zeros(BENDS, dtype=torch.float64))
        self.correction: nn.Module | None = None  # h, given by `Corrected`

    def get_extra_state(self) -> dict[str, Any]:
        """The counts and the earlier stage, beside the parameters in a `state_dict`."""
        points, past = [self.forward_points, self.backward_points], self.earlier
        stage = None if past is None else [past.tilt, past.goal, past.model.state_dict()]
        return {"points": points, "earlier": stage}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.earlier = None
        if state["earlier"] is not None:
            tilt, goal, parameters = state["earlier"]
            past = copy.deepcopy(self).requires_grad_(False)
            past.load_state_dict(parameters)
            self.earlier = Earlier(past, float(tilt), float(goal))
        self.forward_points, self.backward_points = map(int, state["points"])

    def free_energy(self, t: Tensor) -> Tensor:
        """-t log_Z + sum_j bend_j sin(j pi t) / (j pi), BENDS terms, differentiable in t: the
        parameters are amplitudes of dF/dt, so that one learning rate suits them all."""
        waves = torch.arange(1, BENDS + 1, device=t.device) * math.pi
        bends = (self.bend / waves * torch.sin(t.double()[..., None] * waves)).sum(-1)
        return -t * self.log_Z + bends.to(t)

    def free_energy_rate(self, t: Tensor) -> Tensor:
        """dF/dt, in closed form."""
        waves = torch.arange(1, BENDS + 1, device=t.device) * math.pi
        bends = (self.bend * torch.cos(t.double()[..., None] * waves)).sum(-1)
        return bends.to(t) - self.log_Z.to(t)

    def free_energy_parameters(self) -> Iterator[nn.Parameter]:
        """What only F depends on: trained at a rate of its own."""
        yield self.log_Z
        yield self.bend

    def corrector(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """h(x) of the adjoint Schroedinger bridge, in units of a score (1/length).

        Raises Unsupported where the network has none."""
        if self.correction is None:
            raise Unsupported("the network has no corrector: use model=Corrected")
        out: Tensor = self.correction(x)
        return out

    def potential(self, x: Float[Tensor, "*b d"], t: Tensor) -> Float[Tensor, " *b"]:
        """phi(x, t), length^2, of which spread u is the gradient.

        Raises Unsupported where the network has none."""
        raise Unsupported("this loss trains a potential: use model=Potential")

    def stretched(
        self, x: Float[Tensor, "*b d"], t: Tensor, directions: Float[Tensor, "*c m d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
        """u and xi_i . (du/dx) xi_i for each of m directions xi, shared or a set a point.

        Summed over the axes it is the divergence of u; at one random xi of unit covariance an
        estimate of it (Hutchinson).  Differentiable in the parameters.  This one takes a
        vector-Jacobian product a direction, of any network; raises Unsupported for guided ones."""
        if self.guided:
            raise Unsupported(
                "the divergence of a guided control takes second derivatives of the reward: use an "
                "unguided network, or recipe=Escorted, which needs no divergence"
            )
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            y = x if keep and x.requires_grad else x.detach().requires_grad_()
            u = self.control(y, t) + 0 * y  # a control that ignores x has divergence 0
            found = []
            for xi in directions.unbind(-2):
                (pulled,) = torch.autograd.grad(
                    (u * xi).sum(), y, create_graph=keep, retain_graph=True
                )
                found.append((pulled * xi).sum(-1))
        each = torch.stack(found, -1)
        return (u, each) if keep else (u.detach(), each.detach())


class Network(ABC):
    """The description of a model: a frozen dataclass, `name` registers it."""

    name: ClassVar[str]

    @abstractmethod
    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        """A fresh model on the generator's device, u = 0 at first."""


def at_least_one(network: Network, *fields: str) -> None:
    for field in fields:
        if getattr(network, field) < 1:
            raise ValueError(f"{field} is {getattr(network, field)}; it must be 1 or more")
