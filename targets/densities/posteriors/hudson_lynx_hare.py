"""Hares and lynxes of Hudson's Bay: 42 printed numbers and a differential equation inside."""

import math
from dataclasses import dataclass

from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors._laws import lognormal, normal
from tiltbench.targets.densities.posteriors._lotka_volterra import PELTS, years
from tiltbench.targets.densities.posteriors._observed import Data, Observed, printed


@dataclass(frozen=True)
class HudsonLynxHare(Observed):
    """du/dt = (theta_1 - theta_2 v) u, dv/dt = (theta_4 u - theta_3) v, from z_init; the pelts of a
    year are log-normal about (u, v) with sds sigma.  theta_1, theta_3 ~ N(1, .5), theta_2, theta_4
    ~ N(.05, .05), positive (not renormalised), log z_init ~ N(log 10, 1), log sigma ~ N(-1, 1):
    Stan's case study (Carpenter 2018), pelts as printed by Howard (2009)."""

    name = "hudson_lynx_hare"
    test_value = -159.5100180470771
    centre = (-0.61, -3.6, -0.23, -3.74, 3.524, 1.776, -1.41, -1.4)
    width = (0.12, 0.15, 0.11, 0.15, 0.086, 0.088, 0.17, 0.17)

    def data(self) -> Data:
        return {"pelts": printed(*PELTS)}

    def table(self, data: Data) -> Table:
        sizes = {"theta": 4, "z_init": 2, "sigma": 2}
        return tuple(Parameter(name, POSITIVE, size) for name, size in sizes.items())

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        rates, first, sigma = theta["theta"], theta["z_init"], theta["sigma"]
        prior = (normal(rates[..., 0::2], 1, 0.5) + normal(rates[..., 1::2], 0.05, 0.05)).sum(-1)
        prior = prior + lognormal(first, math.log(10), 1).sum(-1) + lognormal(sigma, -1, 1).sum(-1)
        z, inside = years(rates, first.log(), len(data["pelts"]) - 1)
        seen = lognormal(data["pelts"], z, sigma[..., None, :]).sum((-1, -2))
        return (prior + seen).masked_fill(~inside, -math.inf)
