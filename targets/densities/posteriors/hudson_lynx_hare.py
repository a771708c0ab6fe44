"""Hares and lynxes of Hudson's Bay: 42 printed numbers and a differential equation inside."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constants import constant
from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.posteriordb import Raw
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors._laws import lognormal, normal
from tiltbench.targets.densities.posteriors._lotka_volterra import years
from tiltbench.targets.densities.posteriors._observed import Data, InDatabase

PELTS = (  # thousands of hares and lynxes, 1900 to 1920
    (30.0, 4.0), (47.2, 6.1), (70.2, 9.8), (77.4, 35.2), (36.3, 59.4), (20.6, 41.7), (18.1, 19.0),
    (21.4, 13.0), (22.0, 8.3), (25.4, 9.1), (27.1, 7.4), (40.3, 8.0), (57.0, 12.3), (76.6, 19.5),
    (52.3, 45.7), (19.5, 51.1), (11.2, 29.7), (7.6, 15.8), (14.6, 9.7), (16.2, 10.1), (24.7, 8.6),
)  # fmt: skip
SIZES = {"theta": 4, "z_init": 2, "sigma": 2}


@dataclass(frozen=True)
class HudsonLynxHare(InDatabase):
    """du/dt = (theta_1 - theta_2 v) u, dv/dt = (theta_4 u - theta_3) v, from z_init; the pelts of a
    year are log-normal about (u, v) with sds sigma.  theta_1, theta_3 ~ N(1, .5), theta_2, theta_4
    ~ N(.05, .05), positive (not renormalised), log z_init ~ N(log 10, 1), log sigma ~ N(-1, 1):
    Stan's case study (Carpenter 2018), pelts as printed by Howard (2009); Runge-Kutta of order 4.
    """

    name = "hudson_lynx_hare"
    test_value = -159.51001859328284
    centre = (-0.61, -3.6, -0.23, -3.74, 3.524, 1.776, -1.41, -1.4)
    width = (0.12, 0.15, 0.11, 0.15, 0.086, 0.088, 0.17, 0.17)

    def data(self) -> Data:
        return {"pelts": torch.tensor(PELTS).double()}

    def read(self, raw: Raw) -> Data:
        n = raw.whole("N")
        raw.must(raw.array("ts", n).tolist() == [1.0 + i for i in range(n)], "ts", "1, 2, ... N")
        first, rest = raw.positive("y_init", 2), raw.positive("y", n, 2)
        return {"pelts": torch.cat([first[None], rest])}

    def table(self, data: Data) -> Table:
        return tuple(Parameter(name, POSITIVE, size) for name, size in SIZES.items())

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        rates, first, sigma = (theta[name] for name in SIZES)
        about = constant((1.0, 0.05, 1.0, 0.05), rates)
        prior = normal(rates, about, constant((0.5, 0.05, 0.5, 0.05), rates)).sum(-1)
        prior = prior + lognormal(first, math.log(10), 1).sum(-1) + lognormal(sigma, -1, 1).sum(-1)
        z, inside = years(rates, first.log(), len(data["pelts"]) - 1)
        seen = lognormal(data["pelts"], z, sigma[..., None, :]).sum((-1, -2))
        return (prior + seen).masked_fill(~inside, -torch.inf)
