"""A badly conditioned regression on 24 correlated columns, by its sufficient statistics."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.posteriordb import Raw
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors._laws import least_squares, normal, regression, student
from tiltbench.targets.densities.posteriors._observed import Data, InDatabase, stored


@dataclass(frozen=True)
class Diamonds(InDatabase):
    """y_n ~ N(intercept + x_n . b, sigma), b_k ~ N(0, 1), intercept ~ t_3(8, 10), sigma ~ t_3(0,
    10) above 0, renormalised: the model of posteriordb's diamonds (brms; columns x are centred),
    on 5,000 rows drawn from it (data/make_posteriors.py)."""

    name = "diamonds"
    test_value = 2951.7793029883355
    centre = (
        -0.079, -0.466, 0.135, 0.126, 0.147, -0.055, 0.354, 0.012, -0.132, 0.223, -0.279, -0.255,
        -0.145, -0.307, 0.262, 0.111, -0.22, 0.276, -0.196, 0.016, 0.162, -0.63, 0.54, 0.319, 8.0,
        -2.038,
    )  # fmt: skip
    width = (
        0.059, 0.067, 0.054, 0.044, 0.036, 0.029, 0.024, 0.02, 0.016, 0.013, 0.011, 0.0091, 0.009,
        0.011, 0.014, 0.016, 0.02, 0.024, 0.03, 0.037, 0.044, 0.056, 0.067, 0.059, 0.0018, 0.01,
    )  # fmt: skip

    def data(self) -> Data:
        return least_squares(stored("diamonds"))

    def read(self, raw: Raw) -> Data:
        rows, columns = raw.whole("N"), raw.whole("K")
        raw.must(columns > 2, "K", "it must be above 2: the first column is 1")
        x = raw.array("X", rows, columns)[:, 1:]
        full = torch.cat([torch.ones(rows, 1), x - x.mean(0), raw.array("Y", rows)[:, None]], -1)
        return least_squares(full)

    def table(self, data: Data) -> Table:
        slopes = len(data["fit"]) - 1
        return (
            Parameter("b", size=slopes), Parameter("Intercept"), Parameter("sigma", POSITIVE)
        )  # fmt: skip

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        b, first, sigma = theta["b"], theta["Intercept"], theta["sigma"]
        prior = normal(b, 0, 1).sum(-1) + student(first, 3, 8, 10) + student(sigma, 3, 0, 10)
        coefficients = torch.cat([first[..., None], b], -1)
        return prior + math.log(2) + regression(data, coefficients, sigma)
