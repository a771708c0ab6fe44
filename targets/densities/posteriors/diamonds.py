"""A badly conditioned regression on 24 correlated columns, by its sufficient statistics."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors import _laws as laws
from tiltbench.targets.densities.posteriors._observed import Data, Observed, Place, stored


@dataclass(frozen=True)
class Diamonds(Observed):
    """y_n ~ N(Intercept + x_n . b, sigma), b_k ~ N(0, 1), Intercept ~ t_3(8, 10), sigma ~ t_3(0,
    10) above 0, renormalised: the model of posteriordb's diamonds (brms; columns x are centred),
    on 5,000 rows drawn from it (data/make_posteriors.py)."""

    name = "diamonds"
    test_value = 2956.9770411773866

    def data(self) -> Data:
        return laws.least_squares(stored("diamonds"))

    def table(self, data: Data) -> Table:
        b = Parameter("b", size=len(data["fit"]) - 1)
        return (Parameter("Intercept"), b, Parameter("sigma", POSITIVE))

    def place(self, data: Data) -> Place:
        return laws.fitted(data)

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        b, first, sigma = theta["b"], theta["Intercept"], theta["sigma"]
        prior = laws.normal(b, 0, 1).sum(-1) + laws.student(first, 3, 8, 10)
        prior = prior + math.log(2) + laws.student(sigma, 3, 0, 10)
        return prior + laws.regression(data, torch.cat([first[..., None], b], -1), sigma)
