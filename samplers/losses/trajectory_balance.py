"""Trajectory balance: E[(log w - log Z_theta)^2] with log Z_theta learned (arXiv 2201.13259).

log Z_theta = -F(1) starts at the first batch's mean log-weight and has a learning rate of its own.
"""

import torch
from torch import Tensor

from tiltbench.samplers.loss import path_space
from tiltbench.samplers.networks.model import Model


def squared_imbalance(log_w: Tensor, model: Model) -> Tensor:
    log_Z = -model.free_energy(torch.ones((), dtype=log_w.dtype, device=log_w.device))
    return (log_w - log_Z).square().mean()


trajectory_balance = path_space("trajectory_balance", squared_imbalance, learns_log_Z=True)
