"""Log-variance: Var of log dP^u/dP* over paths of any control (arXiv 2307.01198).

The present control simulates the paths, detached; the variance over the batch then has the gradient
of relative entropy in expectation, with less noise, and needs no gradient of the reward.
"""

from torch import Tensor

from tiltbench.samplers.loss import path_space
from tiltbench.samplers.networks.model import Model


def variance(log_w: Tensor, model: Model) -> Tensor:
    return log_w.var()


log_variance = path_space("log_variance", variance)
