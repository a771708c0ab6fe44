"""An autoregression of five lags: the easy control."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.posteriordb import Raw
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors._laws import (
    cauchy,
    least_squares,
    normal,
    regression,
)
from tiltbench.targets.densities.posteriors._observed import Data, InDatabase, stored


@dataclass(frozen=True)
class ArK(InDatabase):
    """y_t ~ N(alpha + sum_k beta_k y_(t-k), sigma) for t > 5, alpha and beta_k ~ N(0, 10), sigma ~
    Cauchy(0, 2.5) above 0 (not renormalised): the model of posteriordb's arK, on 200 values drawn
    from it (data/make_posteriors.py)."""

    name = "arK"
    test_value = -3.870256629807063
    centre = (0.081, 0.688, -0.431, 0.331, -0.088, 0.184, -1.614)
    width = (0.026, 0.072, 0.088, 0.091, 0.088, 0.072, 0.052)

    def data(self) -> Data:
        return _lagged(stored("arK"), 5)

    def read(self, raw: Raw) -> Data:
        count, lags = raw.whole("T"), raw.whole("K")
        raw.must(count > lags > 1, "K", "it must be above 1 and below T, the length of y")
        return _lagged(raw.array("y", count), lags)

    def table(self, data: Data) -> Table:
        lags = len(data["fit"]) - 1
        return (
            Parameter("alpha"), Parameter("beta", size=lags), Parameter("sigma", POSITIVE)
        )  # fmt: skip

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        coefficients = torch.cat([theta["alpha"][..., None], theta["beta"]], -1)
        prior = normal(coefficients, 0, 10).sum(-1) + cauchy(theta["sigma"], 0, 2.5)
        return prior + regression(data, coefficients, theta["sigma"])


def _lagged(y: Tensor, lags: int) -> Data:
    """Of the rows 1, y_(t-1), ..., y_(t-lags) and y_t."""
    before = [y[lags - k : len(y) - k] for k in range(1, lags + 1)]
    return least_squares(torch.stack([torch.ones_like(y[lags:]), *before, y[lags:]], -1))
