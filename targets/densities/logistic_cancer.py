"""Bayesian logistic regression on the Wisconsin breast cancer data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiltbench.targets.reference import Referenced, Statistic
from tiltbench.targets.target import table


@dataclass(frozen=True)
class LogisticCancer(Referenced):
    """log rho(w) = log N(w; 0, I) + sum_i log sigmoid(y_i (1, z_i) . w), 569 patients, 31 weights.

    z_i are 30 standardised features, y_i = 1 benign and -1 malignant (data/logistic_cancer.npy
    holds the rows y_i (1, z_i)); w_0 is the intercept, under the same prior.  Without the prior the
    posterior is improper: the data are separable.  log Z is the log evidence of the labels.
    Log-concave, one mode; strongly correlated features leave weights that only the prior holds.
    """

    name = "logistic_cancer"
    dim = 31
    scale = 1.07
    test_value = -345.623730191436

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return _log_likelihood(x) - self._prior(x)

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        x = x.detach()
        rows = table("logistic_cancer", x)
        z = x @ rows.T
        value = logsigmoid(z).sum(-1) - self._prior(x)
        return value, z.neg_().sigmoid_() @ rows - x

    def _prior(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """- log N(x; 0, I)."""
        return x.square().sum(-1) / 2 + self.dim / 2 * math.log(2 * math.pi)

    def statistics(self) -> Mapping[str, Statistic]:
        return {
            "log_likelihood": _log_likelihood,
            "square": lambda x: x.square().mean(-1),
            **{f"weight_{i}": _weight(i) for i in (0, 1, 22, 30)},
        }


def _log_likelihood(x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
    return logsigmoid(x @ table("logistic_cancer", x).T).sum(-1)


def _weight(i: int) -> Statistic:
    return lambda x: x[..., i]
