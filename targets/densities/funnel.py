"""Neal's funnel: a neck and a mouth of very different widths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.target import Density, Observable, Truth

SPREAD = 3.0  # sd of x_0
LOG_2PI = math.log(2 * math.pi)
NODES = 8  # standard deviations of X_0 to each side in `_noised_score`


@dataclass(frozen=True)
class Funnel(Density):
    """x_0 ~ N(0, 9); x_i | x_0 ~ N(0, e^{x_0}), i = 1..9; normalised (Neal, Ann. Stat. 31, 2003).

    Variance 9, not the variance 1 that some papers print.  E x_i^2 = e^{4.5} with a variance of
    order e^{18}: the observables are chosen so that their errors are finite and honest.
    """

    name = "funnel"
    dim = 10
    scale = 9.1
    test_value = -35.183474558987

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        scaled, _ = _scaled(x)
        return self._from(x[..., 0], scaled.square().sum(-1))

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        x = x.detach()
        scaled, factor = _scaled(x)
        x0, inner = x[..., 0], scaled.square().sum(-1)
        slope = (inner - (self.dim - 1)) / 2 - x0 / SPREAD**2
        return self._from(x0, inner), torch.cat([slope[..., None], scaled * -factor], -1)

    def _from(self, x0: Tensor, inner: Tensor) -> Tensor:
        """log rho from x_0 and sum x_i^2 e^{-x_0}."""
        constant = math.log(SPREAD) + self.dim / 2 * LOG_2PI
        return -((x0 / SPREAD).square() + inner + (self.dim - 1) * x0) / 2 - constant

    def truth(self) -> Truth:
        tail = math.erfc(1 / math.sqrt(2)) / 2  # P(x_0 > 3)
        width = math.sqrt(tail * (1 - tail))
        k = self.dim - 1
        return Truth(
            "closed form",
            log_Z=0.0,
            sample=self._sample,
            observables={
                "neck_share": Observable(lambda x: (x[:, 0] < -SPREAD).to(x.dtype), tail, width),
                "mouth_share": Observable(lambda x: (x[:, 0] > SPREAD).to(x.dtype), tail, width),
                "mean_0": Observable(lambda x: x[:, 0], 0.0, SPREAD),
                "square_0": Observable(lambda x: x[:, 0] ** 2, SPREAD**2, SPREAD**2 * math.sqrt(2)),
                "within": Observable(
                    lambda x: x[:, 1:].square().mean(-1) * torch.exp(-x[:, 0]),
                    1.0,
                    math.sqrt(2 / k),
                ),
            },
            noised_score=_noised_score,
        )

    def _sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        shape = (n, self.dim)
        xi = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
        x0 = SPREAD * xi[:, :1]
        return torch.cat([x0, torch.exp(x0 / 2) * xi[:, 1:]], -1)


def _noised_score(
    x: Float[Tensor, "*b d"], signal: Tensor | float, noise: Tensor | float
) -> Float[Tensor, "*b d"]:
    """Of Y = signal X + noise xi, by quadrature over X_0, given which the Y_i are independent.

    Given Y_0, X_0 ~ N(lean Y_0, 9 noise^2 / total) with lean = 9 signal / total and total =
    9 signal^2 + noise^2; given X_0 as well, Y_i ~ N(0, v) with v = signal^2 e^{X_0} + noise^2.
    What is integrated falls off like a Gaussian, wider than the nodes' spacing, so that the
    trapezoidal rule is exact to rounding (test).
    """
    a = torch.as_tensor(signal, dtype=x.dtype, device=x.device).expand(x.shape[:-1])[..., None]
    b = torch.as_tensor(noise, dtype=x.dtype, device=x.device).expand(x.shape[:-1])[..., None]
    nodes = torch.linspace(-NODES, NODES, 20 * NODES + 1, dtype=x.dtype, device=x.device)
    first, rest = x[..., :1], x[..., 1:]
    total = (SPREAD * a).square() + b.square()
    lean = SPREAD**2 * a / total
    most = math.log(torch.finfo(x.dtype).max) / 2  # far out noise is nothing beside it
    level = (lean * first + SPREAD * b / total.sqrt() * nodes).clamp(max=most)
    widened = a.square() * torch.exp(level)
    v = widened + b.square()
    inner = rest.square().sum(-1, keepdim=True)
    share = torch.softmax((nodes.square() + inner / v + rest.shape[-1] * v.log()) / -2, -1)
    slope = (share * widened * (inner / v - rest.shape[-1]) / v).sum(-1, keepdim=True) / 2
    return torch.cat([lean * slope - first / total, -rest * (share / v).sum(-1, keepdim=True)], -1)


def _scaled(x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
    """(x_i e^{-x_0 / 2} for i > 0, e^{-x_0 / 2})."""
    factor = torch.exp(x[..., :1] / -2)
    return x[..., 1:] * factor, factor
