"""A density stated in the model's own parameters, sampled in unconstrained ones."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.constrained.parameters import Table, Theta, constrain, dimension
from tiltbench.targets.target import COORDINATES, Density, Truth


class Posterior(Density):
    """log rho(x) = log p(y, theta(x)) + log |det d theta / d x|.

    A subclass states the table of its parameters and log p(y, theta); Z is then the evidence p(y)
    of the constrained model, whatever the transforms.  All is computed in float64.  `tiltbench
    check` compares log rho with the two parts, the Jacobian taken by autograd: a subclass that
    writes a `log_rho` of its own is found out where that one's Jacobian is wrong."""

    @property
    @abstractmethod
    def parameters(self) -> Table:
        """The table, in the order of x."""

    @abstractmethod
    def log_joint(self, theta: Theta) -> Float[Tensor, " *b"]:
        """log p(y | theta) + log p(theta) in nats, as a density of the constrained parameters."""

    def reported(self, theta: Theta) -> Mapping[str, Tensor]:
        """What tables report, in the model's own terms; by default every parameter."""
        return theta

    @property
    def dim(self) -> int:  # type: ignore[override]
        return dimension(self.parameters)

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        theta, log_jacobian, inside = constrain(self.parameters, x.double())
        value = self.log_joint(theta) + log_jacobian
        return value.masked_fill(~inside, -torch.inf).to(x.dtype)

    def statistics(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The parameters by name, vectors as `b[1]`, `b[2]`, ...; the first 32 of them."""
        point = torch.zeros(self.dim, dtype=torch.float64)
        statistics: dict[str, Callable[[Tensor], Tensor]] = {}
        for name, value in self.reported(constrain(self.parameters, point).theta).items():
            if value.dim() == 0:
                statistics[name] = partial(self._reported, name)
            for i in range(value.shape[-1] if value.dim() else 0):
                statistics[f"{name}[{i + 1}]"] = partial(self._component, name, i)
        return dict(list(statistics.items())[:COORDINATES])

    def _reported(self, name: str, x: Tensor) -> Tensor:
        return self.reported(constrain(self.parameters, x.double()).theta)[name].to(x.dtype)

    def _component(self, name: str, i: int, x: Tensor) -> Tensor:
        return self._reported(name, x)[..., i]

    def truth(self) -> Truth:
        return Truth("unknown")
