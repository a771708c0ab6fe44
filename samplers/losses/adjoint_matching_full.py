"""Basic adjoint matching: the full adjoint, the control's own Jacobian included (arXiv 2409.08861).

    a_k = (d/dx [m_k(x) + std_k sqrt(dt_k) u(x, t_k)])^T a_{k+1} - dt_k (du/dx)^T u,  a_K = grad r

is the gradient of r(x_K) - sum_j dt_j |u_j|^2 / 2 (j >= k) in x_k along the path, its noise held
fixed, so that regressing u_k on std_k / sqrt(dt_k) a_{k+1} has the gradient of relative entropy,
exactly, at any number of steps and away from the optimum too.  The lean adjoint drops the terms in
du/dx, whose conditional mean is 0 at the optimum only (math.md 4).  A guided control's hints are
constants here, as in relative entropy.
"""

import torch
from torch import Generator

from tiltbench.samplers.loss import Batch, Loss, reward_and_grad
from tiltbench.samplers.losses._additive import additive
from tiltbench.samplers.losses.adjoint_matching import price, value
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.bases.process import Path
from tiltbench.targets.problem import Problem


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    """y_k = std_k / sqrt(dt_k) a_{k+1} at every point of the path."""
    base = additive(problem.base, "adjoint matching")
    _, a = reward_and_grad(problem, path.x[-1])
    dt = path.dt
    sigma = path.std / dt.sqrt()
    with torch.no_grad():  # the embedded times are constants
        control = model.on_grid(path.t[:-1])
    y = torch.empty_like(path.u)
    back = base.pull_backs(path.x)
    for k in reversed(range(len(y))):
        y[k] = sigma[k] * a
        bend = dt[k] * (y[k] - path.u[k])
        hint = None if path.hint is None else path.hint[k]
        with torch.enable_grad():
            x = path.x[k].detach().requires_grad_()
            u = control(x, k, hint)
            through = torch.autograd.grad(u, x, bend, materialize_grads=True)[0]
        a = back(k, a) + through
    batch = {"x": path.x[:-1], "t": path.t[:-1, None], "y": y}
    return batch if path.hint is None else {**batch, "hint": path.hint}


adjoint_matching_full = Loss("adjoint_matching_full", label, value, price, pulls_back=True)
