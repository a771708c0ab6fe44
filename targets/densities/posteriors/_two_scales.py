"""A Gaussian path of two unknown scales: its truth by quadrature over them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.constrained.parameters import unconstrain
from tiltbench.targets.densities.posteriors._laws import HALF_LOG_TWO_PI, normal
from tiltbench.targets.densities.posteriors._observed import Observed
from tiltbench.targets.truths.facts import Observable, Truth

STEP = 0.025
LOGS = torch.arange(-480, 201, dtype=torch.float64) * STEP  # of either scale: six sds of the priors


def over_scales(y: Tensor, seen: Tensor) -> Tensor:
    """log p(y, log innovation, log noise) on LOGS x LOGS, the path integrated out: y (n) is seen
    after the steps `seen` (n), both logarithms are N(0, 2)."""
    shares, axes = torch.linalg.eigh(torch.minimum(seen[:, None], seen).double())
    square = (y @ axes).square()
    log_p = (normal(LOGS, 0, 2)[:, None] + normal(LOGS, 0, 2)).clone()
    noise = (2 * LOGS).exp()[:, None]
    for row, innovation in zip(log_p, (2 * LOGS).exp(), strict=True):
        variance = innovation * shares + noise
        row -= (square / variance + variance.log()).sum(-1) / 2 + len(y) * HALF_LOG_TWO_PI
    return log_p


def draws(
    law: Tensor, y: Tensor, seen: Tensor, length: int, n: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """n draws of innovation, noise and path (n, length): a cell of the grid by its mass, a point
    of it evenly, and the path of its Gaussian.  The steps of the density are as fine as STEP."""
    device = generator.device
    mass = law.flatten().softmax(0).to(device)
    cell = torch.multinomial(mass, n, replacement=True, generator=generator)
    at = torch.stack([cell // len(LOGS), cell % len(LOGS)])
    within = torch.rand((2, n), generator=generator, device=device, dtype=torch.float64) - 0.5
    innovation, noise = (LOGS.to(device)[at] + STEP * within).exp()
    met = torch.zeros(length, dtype=torch.float64, device=device)
    steps = (met + 1).diag() - (met[1:] + 1).diag(-1)
    chain = steps.T @ steps
    met[seen.to(device) - 1] = 1.0
    pull = torch.zeros_like(met)
    pull[seen.to(device) - 1] = y.to(device)
    precision = chain / innovation[:, None, None] ** 2 + met.diag() / noise[:, None, None] ** 2
    root = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve((pull / noise[:, None] ** 2)[..., None], root)
    z = torch.randn((n, length, 1), generator=generator, device=device, dtype=torch.float64)
    path = mean + torch.linalg.solve_triangular(root.mT, z, upper=True)
    return innovation, noise, path[..., 0]


class TwoScales(Observed):
    """A model of innovation, noise and path, whose data are y (n), seen after the steps `seen`."""

    seen: ClassVar[tuple[int, ...]]

    def truth(self) -> Truth:
        return _truth(self)


@lru_cache(maxsize=4)
def _truth(target: TwoScales) -> Truth:
    y, seen, length = target.data()["y"], torch.tensor(target.seen), target.parameters[-1].size
    law = over_scales(y, seen)

    def sample(n: int, generator: Generator) -> Float[Tensor, "n d"]:
        innovation, noise, path = draws(law, y, seen, length, n, generator)
        theta = {"innovation": innovation, "noise": noise, "path": path}
        return unconstrain(target.parameters, theta)

    log_Z = float(law.flatten().logsumexp(0)) + 2 * math.log(STEP)
    how = "quadrature over both scales, the path in closed form"
    known = {"innovation": law.logsumexp(1).softmax(0), "noise": law.logsumexp(0).softmax(0)}
    observables = {name: _observable(target, name, mass) for name, mass in known.items()}
    return Truth(how, log_Z, sample=sample, observables=observables)


def _observable(target: TwoScales, name: str, mass: Tensor) -> Observable:
    mean = float(mass @ LOGS.exp())
    sd = float(mass @ (LOGS.exp() - mean).square()) ** 0.5
    return Observable(target.statistics()[name], mean, sd)
