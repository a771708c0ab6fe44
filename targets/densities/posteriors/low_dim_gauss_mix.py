"""A mixture of two Gaussians with ordered means."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.transforms import ORDERED, POSITIVE, UNIT
from tiltbench.targets.densities.posteriors._laws import natural, normal, powers
from tiltbench.targets.densities.posteriors._observed import Data, Observed, stored


@dataclass(frozen=True)
class LowDimGaussMix(Observed):
    """y_n ~ theta N(mu_1, sigma_1) + (1 - theta) N(mu_2, sigma_2), mu_1 < mu_2, mu_k and sigma_k ~
    N(0, 2) (of half lines not renormalised), theta ~ Beta(5, 5): the model of posteriordb's
    low_dim_gauss_mix, on 1,000 values drawn from it (data/make_posteriors.py)."""

    name = "low_dim_gauss_mix"
    test_value = -2082.808318015453
    centre = (-1.88, 1.223, 0.005, 0.211, -0.31)
    width = (0.1, 0.023, 0.065, 0.055, 0.12)

    def data(self) -> Data:
        return {"y": stored("low_dim_gauss_mix")}

    def table(self, data: Data) -> Table:
        mu, sigma = Parameter("mu", ORDERED, 2), Parameter("sigma", POSITIVE, 2)
        return (mu, sigma, Parameter("theta", UNIT))

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        mu, sigma, weight = theta["mu"], theta["sigma"], theta["theta"]
        shares = torch.stack([weight.log(), torch.log1p(-weight)], -1)
        one, two = natural(shares, mu, sigma).unbind(-2)
        y = powers(data["y"])
        seen = two @ y.sum(-1) + torch.nn.functional.softplus((one - two) @ y, threshold=40).sum(-1)
        prior = normal(mu, 0, 2).sum(-1) + normal(sigma, 0, 2).sum(-1)
        return seen + prior + 4 * shares.sum(-1) + math.log(630)
