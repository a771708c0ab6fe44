"""A log-Gaussian Cox process: points of a square, and a field of 1,600 cells."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.densities.posteriors._laws import normal, poisson
from tiltbench.targets.densities.posteriors._observed import Data, Observed, stored

VARIANCE, MEAN = 1.91, math.log(126) - 1.91 / 2


@dataclass(frozen=True)
class CoxProcess(Observed):
    """counts_j ~ Poisson(exp(field_j) / 1600) in the cells of the unit square, field = MEAN + root
    white, white ~ N(0, I), root root^T = VARIANCE exp(-33 distance): model and constants of Moller,
    Syversveen and Waagepetersen (1998), on points drawn from it (data/make_posteriors.py)."""

    name = "cox_process"
    test_value = -2303.40573096486

    def data(self) -> Data:
        cells = torch.cartesian_prod(*[torch.arange(40).double() / 40] * 2)
        apart = (cells[:, None] - cells).square().sum(-1).sqrt()
        root = torch.linalg.cholesky(VARIANCE * (-33 * apart).exp())
        return {"counts": stored("cox_process"), "root": root}

    def table(self, data: Data) -> Table:
        return (Parameter("white", size=len(data["counts"])),)

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        log_rate = MEAN - math.log(1600) + theta["white"] @ data["root"].T
        return (poisson(data["counts"], log_rate) + normal(theta["white"], 0, 1)).sum(-1)

    def reported(self, theta: Theta) -> Theta:
        field = MEAN + theta["white"] @ self.given(theta["white"].device)["root"].T
        return {"points": field.exp().mean(-1), "mean": field.mean(-1), "field": field[..., ::54]}
