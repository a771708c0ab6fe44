"""log Z of a field on a torus by thermodynamic integration from a free field on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor


class FreeField(NamedTuple):
    """S_0 = sum_x [sum_mu (phi_(x+mu) - phi_x)^2 + square_mass phi_x^2] / 2 on a torus."""

    sides: tuple[int, ...]
    square_mass: float

    def level(self, device: torch.device) -> Tensor:
        """Eigenvalues square_mass + sum_mu 4 sin^2(k_mu / 2) of S_0, in the order of fftn."""
        total = torch.full(self.sides, self.square_mass, dtype=torch.float64, device=device)
        for axis, side in enumerate(self.sides):
            k = 2 * math.pi * torch.arange(side, dtype=torch.float64, device=device) / side
            shape = [-1 if i == axis else 1 for i in range(len(self.sides))]
            total = total + (2 - 2 * k.cos()).reshape(shape)
        return total

    @property
    def log_Z(self) -> float:
        level = self.level(torch.device("cpu"))
        return float((math.log(2 * math.pi) - level.log()).sum() / 2)

    def action(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        phi = x.unflatten(-1, self.sides)
        total = self.square_mass * phi.square()
        for axis in range(-len(self.sides), 0):
            total = total + (phi.roll(-1, axis) - phi).square()
        return total.flatten(-len(self.sides)).sum(-1) / 2

    def sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        """White noise with its Fourier modes divided by the roots of the eigenvalues."""
        device = generator.device
        xi = torch.randn((n, *self.sides), generator=generator, device=device, dtype=torch.float64)
        axes = tuple(range(1, len(self.sides) + 1))
        wave = torch.fft.fftn(xi, dim=axes) / self.level(device).sqrt()
        return torch.fft.ifftn(wave, dim=axes).real.flatten(1)


def integrated(
    log_rho: Callable[[Tensor], Tensor],
    free: FreeField,
    generator: Generator,
    nodes: int = 12,
    chains: int = 128,
    trajectories: int = 200,
    step: float = 0.15,
) -> tuple[float, float]:
    """(log Z, standard error): log Z_0 + int_0^1 E_t[log rho + S_0] dt, the mean under the density
    exp(t log rho - (1 - t) S_0).

    Gauss-Legendre nodes in t, from 0 up; `chains` chains start from exact free fields and move from
    node to node by HMC (8 leapfrogs, each trajectory after a change of all signs with probability
    1/2, under which both actions must be even); the first quarter at each node is left out.  The
    error is that between chains and leaves out that of the quadrature, which falls exponentially
    with `nodes` where E_t is smooth in t."""
    at, weight = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(nodes))
    x = free.sample(chains, generator)
    total = x.new_zeros(chains)
    options: dict[str, Any] = {"generator": generator, "device": x.device}
    for t, w in zip(((at + 1) / 2).tolist(), (weight / 2).tolist(), strict=True):

        def log_p(x: Tensor, t: float = t) -> Tensor:
            return t * log_rho(x) - (1 - t) * free.action(x)

        def climb(x: Tensor, log_p: Callable[[Tensor], Tensor] = log_p) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                value = log_p(x)
                return value.detach(), torch.autograd.grad(value.sum(), x)[0]

        slopes = []
        value, g = climb(x)
        for _ in range(trajectories):
            sign = torch.where(torch.rand((chains, 1), **options) < 0.5, 1.0, -1.0).to(x.dtype)
            x, g = sign * x, sign * g
            p = torch.randn(x.shape, dtype=x.dtype, **options)
            # steps vary, so that no mode of the free field returns to where it was
            h = step * (0.5 + torch.rand((chains, 1), dtype=x.dtype, **options))
            y, q, force = x, p, g
            for _ in range(8):
                q = q + h / 2 * force
                y = y + h * q
                new, force = climb(y)
                q = q + h / 2 * force
            gain = new - value + (p.square() - q.square()).sum(-1) / 2
            accepted = torch.rand(chains, dtype=x.dtype, **options) < gain.exp()
            x = torch.where(accepted[:, None], y, x)
            g = torch.where(accepted[:, None], force, g)
            value = torch.where(accepted, new, value)
            slopes.append(log_rho(x) + free.action(x))
        total = total + w * torch.stack(slopes[trajectories // 4 :]).mean(0)
    return free.log_Z + float(total.mean()), float(total.std() / math.sqrt(chains))
