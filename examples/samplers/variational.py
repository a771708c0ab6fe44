"""Gaussian variational inference, as a function that knows nothing of the suite."""

import math

import torch

from tiltbench.samplers.adapters.functions import from_torch


def fit(log_prob, grad, dim, budget, rng, batch=64, lr=0.02, draws=5_000):
    """The normal law of least KL(q | p), q = N(m, L L^T), by the reparameterised gradient.

    Kucukelbir et al., "Automatic Differentiation Variational Inference" (2017), full rank.  Returns
    draws of q and their importance weights, which correct q wherever its tails cover p."""
    here = {"device": rng.device, "dtype": torch.float64}
    draws = min(draws, budget // 4)
    mean = torch.zeros(dim, **here, requires_grad=True)
    raw = (math.log(log_prob.scale) * torch.eye(dim, **here)).requires_grad_()
    steps = (budget - draws) // batch
    adam = torch.optim.Adam([mean, raw], lr)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(steps, 1))

    def q(n):
        """Draws of q and their log density."""
        noise = torch.randn(n, dim, **here, generator=rng)
        log_sd = raw.diagonal()
        root = raw.tril(-1) + log_sd.exp().diag()
        log_q = -noise.square().sum(-1) / 2 - log_sd.sum() - dim / 2 * math.log(2 * math.pi)
        return mean + noise @ root.T, log_q

    for _ in range(steps):
        x, log_q = q(batch)
        adam.zero_grad()
        (log_q - log_prob(x)).mean().backward()
        adam.step()
        fall.step()
    with torch.no_grad():
        x, log_q = q(draws)
        return x, log_prob(x) - log_q


gaussian_vi = from_torch("gaussian_vi", fit)
