"""Normalising flows of zuko, fitted by either divergence: needs the extra `flows`."""

import math

import torch
import zuko

from tiltbench.samplers.adapters.functions import from_torch


class Scaled:
    """The law of scale y, y ~ flow: networks see coordinates of order 1."""

    def __init__(self, flow, scale):
        self.flow, self.scale = flow, scale

    def log_prob(self, x):
        return self.flow().log_prob(x / self.scale) - x.shape[-1] * math.log(self.scale)

    def draw(self, n):
        """x and log q(x), differentiable in the flow through x."""
        y, log_q = self.flow().rsample_and_log_prob((n,))
        return self.scale * y, log_q - y.shape[-1] * math.log(self.scale)


def trained(loss, log_prob, dim, budget, rng, batch, lr, transforms, width, draws):
    """Adam on `loss(q)` while `budget` pays, less what the weights of the draws cost."""
    flow = zuko.flows.NSF(dim, transforms=transforms, hidden_features=(width, width)).to(rng.device)
    q, draws = Scaled(flow, log_prob.scale), min(draws, budget // 4)
    steps = (budget - draws) // batch
    adam = torch.optim.Adam(flow.parameters(), lr)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(steps, 1))
    for _ in range(steps):
        adam.zero_grad()
        loss(q).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        adam.step()
        fall.step()
    with torch.no_grad():
        x, log_q = q.draw(draws)
        return x, log_prob(x).double() - log_q.double()


def reverse(
    log_prob, grad, dim, budget, rng, batch=128, lr=1e-3, transforms=3, width=64, draws=5_000
):
    """A neural spline flow q (Durkan et al., arXiv 1906.04032) of least KL(q | p).

    E_q[log q - log rho] through the flow (Rezende and Mohamed, arXiv 1505.05770): a value and a
    gradient a draw.  It leaves out modes that q does not cover.  Draws have importance weights."""

    def loss(q):
        x, log_q = q.draw(batch)
        return (log_q - log_prob(x)).mean()

    return trained(loss, log_prob, dim, budget, rng, batch, lr, transforms, width, draws)


def forward(
    log_prob, grad, dim, budget, rng, batch=128, lr=1e-3, transforms=3, width=64, draws=5_000
):
    """The same flow of least KL(p | q), on its own draws, self-normalised.

    -sum_i w_i log q(x_i) with w = softmax(log rho - log q) (Mueller et al., arXiv 1808.03856): a
    value a draw, no gradients.  Biased at any batch size.  Draws have importance weights."""

    def loss(q):
        with torch.no_grad():
            x, log_q = q.draw(batch)
            w = torch.softmax(log_prob(x) - log_q, 0)
        return -(w * q.log_prob(x)).sum()

    return trained(loss, log_prob, dim, budget, rng, batch, lr, transforms, width, draws)


flow_reverse = from_torch("flow_reverse", reverse)
"""A neural spline flow of zuko, by the reverse KL divergence, with importance weights."""

flow_forward = from_torch("flow_forward", forward)
"""A neural spline flow of zuko, by the forward KL divergence on self-normalised draws."""
