"""A hidden Markov chain of two states, by the forward algorithm."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.transforms import POSITIVE_ORDERED, SIMPLEX
from tiltbench.targets.densities.posteriors._laws import normal
from tiltbench.targets.densities.posteriors._observed import Data, Observed, stored


@dataclass(frozen=True)
class HmmExample(Observed):
    """y_t ~ N(mu_(z_t), 1), z a chain that leaves state j by the row theta_j, flat on simplices;
    0 < mu_1 < mu_2, mu_1 ~ N(3, 1), mu_2 ~ N(10, 1) (not renormalised), and each first state
    counts as 1: the model of posteriordb's hmm_example, on 100 values drawn from it
    (data/make_posteriors.py)."""

    name = "hmm_example"
    test_value = -193.55596430749367
    centre = (1.96, -0.6, 1.116, 1.756)
    width = (0.35, 0.43, 0.037, 0.04)

    def data(self) -> Data:
        return {"y": stored("hmm_example")}

    def table(self, data: Data) -> Table:
        rows = (Parameter("theta1", SIMPLEX, 2), Parameter("theta2", SIMPLEX, 2))
        return (*rows, Parameter("mu", POSITIVE_ORDERED, 2))

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        mu = theta["mu"]
        seen = normal(data["y"][:, None], mu[..., None, :], 1).unbind(-2)
        step = torch.stack([theta["theta1"], theta["theta2"]], -2).log()
        log_p = seen[0]
        for law in seen[1:]:
            log_p = (log_p[..., None] + step).logsumexp(-2) + law
        return log_p.logsumexp(-1) + normal(mu[..., 0], 3, 1) + normal(mu[..., 1], 10, 1)
