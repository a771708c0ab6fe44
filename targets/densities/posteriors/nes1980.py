"""A regression with flat priors on correlated columns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.posteriordb import Raw
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors._laws import least_squares, regression
from tiltbench.targets.densities.posteriors._observed import Data, InDatabase, stored


@dataclass(frozen=True)
class Nes1980(InDatabase):
    """y_n ~ N(x_n . beta, sigma) with flat priors on the 9 numbers beta and on sigma > 0; x is 1,
    ideology, race, three age groups, education, gender and income: the model of posteriordb's
    nes1980, on 600 persons drawn from it (data/make_posteriors.py)."""

    name = "nes1980"
    test_value = -1255.4056646963998
    centre = (2.09, 0.493, -1.07, -0.22, -0.18, 0.13, 0.22, 0.21, 0.053, 0.647)
    width = (0.35, 0.055, 0.24, 0.2, 0.2, 0.29, 0.11, 0.16, 0.095, 0.029)

    def data(self) -> Data:
        return least_squares(stored("nes1980"))

    def read(self, raw: Raw) -> Data:
        n = raw.whole("N")
        age = raw.array("age_discrete", n)
        first = [torch.ones(n), raw.array("real_ideo", n), raw.array("race_adj", n)]
        groups = [(age == group).double() for group in (2, 3, 4)]
        last = [raw.array(name, n) for name in ("educ1", "gender", "income", "partyid7")]
        return least_squares(torch.stack([*first, *groups, *last], -1))

    def table(self, data: Data) -> Table:
        return (Parameter("beta", size=len(data["fit"])), Parameter("sigma", POSITIVE))

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        return regression(data, theta["beta"], theta["sigma"])
