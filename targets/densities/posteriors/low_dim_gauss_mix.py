"""A mixture of two Gaussians with ordered means."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.posteriordb import Raw
from tiltbench.targets.constrained.transforms import ORDERED, POSITIVE, UNIT
from tiltbench.targets.densities.posteriors._laws import HALF_LOG_TWO_PI, normal
from tiltbench.targets.densities.posteriors._observed import Data, InDatabase, stored


@dataclass(frozen=True)
class LowDimGaussMix(InDatabase):
    """y_n ~ theta N(mu_1, sigma_1) + (1 - theta) N(mu_2, sigma_2), mu_1 < mu_2, mu_k and sigma_k ~
    N(0, 2) (of half lines not renormalised), theta ~ Beta(5, 5): the model of posteriordb's
    low_dim_gauss_mix, on 1,000 values drawn from it (data/make_posteriors.py)."""

    name = "low_dim_gauss_mix"
    test_value = -2082.808318015453
    centre = (-1.88, 1.223, 0.005, 0.211, -0.31)
    width = (0.1, 0.023, 0.065, 0.055, 0.12)

    def data(self) -> Data:
        return _powers(stored("low_dim_gauss_mix"))

    def read(self, raw: Raw) -> Data:
        return _powers(raw.array("y", raw.whole("N")))

    def table(self, data: Data) -> Table:
        return (
            Parameter("mu", ORDERED, 2), Parameter("sigma", POSITIVE, 2), Parameter("theta", UNIT)
        )  # fmt: skip

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        mu, sigma, weight = theta["mu"], theta["sigma"], theta["theta"]
        shares = torch.stack([weight.log(), torch.log1p(-weight)], -1)
        precision = sigma**-2
        level = shares - precision * mu.square() / 2 - sigma.log() - HALF_LOG_TWO_PI
        law = torch.stack([level, precision * mu, -precision / 2], -1)  # of 1, y and y^2
        one, two = law.unbind(-2)
        powers = data["powers"]
        seen = two @ powers.sum(-1) + softplus((one - two) @ powers, threshold=40).sum(-1)
        prior = normal(mu, 0, 2).sum(-1) + normal(sigma, 0, 2).sum(-1)
        return seen + prior + 4 * shares.sum(-1) + math.log(630)


def _powers(y: Tensor) -> Data:
    return {"powers": torch.stack([torch.ones_like(y), y, y.square()])}
