"""A loss in one file: log-variance with Huber's function, which outliers move less."""

import torch

from tiltbench.samplers.loss import path_space


def spread(log_w, model):
    """log_w (B,) = r(x_K) - log dP^u/dP^base, differentiable in the control; constant at u*."""
    centre = log_w.mean().detach().expand_as(log_w)
    return torch.nn.functional.huber_loss(log_w, centre, delta=5.0)


huber_variance = path_space("huber_variance", spread)
