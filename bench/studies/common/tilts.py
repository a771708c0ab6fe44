"""Mixture bases under rewards whose partial tilts are mixtures: everything is closed form.

Under u_lambda, the optimal control of the reward lambda r, a memoryless base has the path law
P_base exp(lambda r(X_1)) / Z_lambda (math.md 2): the terminal law is that of `Tilting.law`, and the
noising kernel is the base's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.components import Components
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.process import Controlled
from tiltbench.targets.bases.schedules import Schedule


class Tilting(NamedTuple):
    reward: Callable[[Tensor], Tensor]  # r: (*b, d) -> (*b,), nats
    slope: Callable[[Tensor], Tensor]  # grad r: (*b, d) -> (*b, d)
    law: Callable[[Components, float], Components]  # (p, lambda) -> p exp(lambda r) / Z_lambda


def linear(slope: tuple[float, ...]) -> Tilting:
    """r = slope . x."""
    c = torch.tensor(slope, dtype=torch.float64)
    return Tilting(
        lambda x: x @ c.to(x),
        lambda x: c.to(x).expand_as(x),
        lambda law, strength: law.tilted_linear(strength * c)[1],
    )


def quadratic(centre: tuple[float, ...], power: float = 1.0) -> Tilting:
    """r = -|x - centre|^2 / (2 power)."""
    y = torch.tensor(centre, dtype=torch.float64)
    return Tilting(
        lambda x: (x - y.to(x)).square().sum(-1) / (-2 * power),
        lambda x: (y.to(x) - x) / power,
        lambda law, strength: law.tilted_quadratic(y, power, strength)[1],
    )


def mixture(
    weights: tuple[float, ...], means: tuple[tuple[float, ...], ...], variances: tuple[float, ...]
) -> Components:
    values = (torch.tensor(v, dtype=torch.float64) for v in (weights, means, variances))
    return Components(*values)


def flow(law: Components, schedule: Schedule, steps: int) -> MixtureFlow:
    """The ancestral chain towards a mixture."""
    means = tuple(tuple(mean) for mean in law.mean.tolist())
    variances, weights = tuple(law.var.tolist()), tuple(law.weight.tolist())
    return MixtureFlow(weights, means, variances, schedule, steps=steps)


class _Closed(Control):
    """A control in closed form, where a loss asks for a model."""

    def __init__(self, closed: Controlled) -> None:
        super().__init__()
        self.closed = closed

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        return self.closed.control(x, t, hint)


def steered(closed: Controlled) -> Model:
    """The model of a control in closed form."""
    return Model(_Closed(closed))


class _Free(Control):
    """u = 0, differentiable as the full adjoint asks for."""

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        return 0 * x


def free() -> Model:
    """The model of no control."""
    return Model(_Free())


def optimal(base: MixtureFlow, law: Components) -> Model:
    """The control whose terminal law is `law` and whose noising kernel is the base's."""
    return steered(Optimal(base, lambda x, a, b: law.score(x, a[..., None], b[..., None])))
