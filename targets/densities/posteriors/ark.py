"""An autoregression of five lags: the easy control."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors import _laws as laws
from tiltbench.targets.densities.posteriors._observed import Data, Observed, Place, stored


@dataclass(frozen=True)
class ArK(Observed):
    """y_t ~ N(alpha + sum_k beta_k y_(t-k), sigma) for t > 5, alpha and beta_k ~ N(0, 10), sigma ~
    Cauchy(0, 2.5) above 0 (not renormalised): the model of posteriordb's arK, on 200 values drawn
    from it (data/make_posteriors.py)."""

    name = "arK"
    test_value = -3.6157595633903234

    def data(self) -> Data:
        return laws.least_squares(laws.lagged(stored("arK"), 5))

    def table(self, data: Data) -> Table:
        beta = Parameter("beta", size=len(data["fit"]) - 1)
        return (Parameter("alpha"), beta, Parameter("sigma", POSITIVE))

    def place(self, data: Data) -> Place:
        return laws.fitted(data)

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        coefficients = torch.cat([theta["alpha"][..., None], theta["beta"]], -1)
        prior = laws.normal(coefficients, 0, 10).sum(-1) + laws.cauchy(theta["sigma"], 0, 2.5)
        return prior + laws.regression(data, coefficients, theta["sigma"])
