"""Laplace's approximation: a Gaussian at the mode of a log-concave density."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor


class Laplace(NamedTuple):
    """N(mode, (F F^T)^-1) with -Hessian of log rho = F F^T at the mode; float64 on the CPU."""

    mode: Float[Tensor, " d"]
    factor: Float[Tensor, "d d"]  # lower triangular
    height: float  # log rho at the mode

    @property
    def log_Z(self) -> float:
        """log rho(mode) + d/2 log 2 pi - log det F: exact for Gaussian rho only."""
        d = len(self.mode)
        return self.height + d / 2 * math.log(2 * math.pi) - float(self.factor.diag().log().sum())

    def log_density(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """Normalised."""
        far = (x - self.mode.to(x)) @ self.factor.to(x)
        return self.height - self.log_Z - far.square().sum(-1) / 2

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        """n i.i.d. draws, float64, on the generator's device."""
        device = generator.device
        xi = torch.randn(n, len(self.mode), generator=generator, device=device, dtype=torch.float64)
        factor = self.factor.to(device)
        step = torch.linalg.solve_triangular(factor.T, xi.T, upper=True)  # F^-T xi
        return self.mode.to(device) + step.T


def laplace(log_rho: Callable[[Tensor], Tensor], start: Float[Tensor, " d"]) -> Laplace:
    """By Newton's method from `start`, each step halved until log rho rises.

    Raises ValueError where it does not converge or the Hessian is not negative definite."""
    x = start.double()
    for _ in range(100):
        slope = torch.autograd.functional.jacobian(log_rho, x)
        curve = -torch.autograd.functional.hessian(log_rho, x)
        factor, bad = torch.linalg.cholesky_ex(curve)
        if bad:
            break
        step = torch.cholesky_solve(slope[:, None], factor)[:, 0]
        gain = float(slope @ step)  # twice the rise of the quadratic model, in nats
        if gain < 1e-20:
            return Laplace(x, factor, float(log_rho(x)))
        part = 1.0
        while log_rho(x + part * step) < log_rho(x) and part > 1e-6:
            part /= 2
        x = x + part * step
    raise ValueError("Newton's method found no mode; the density must be log-concave near `start`")
