"""E|a_t|^2 of the lean adjoint under P* on a plane, by quadrature on a grid and without noise.

On a mixture base a few paths that stay between the modes carry most of E|a|^2, so that plain means
over paths look settled long before they are.  With N_t(x) = p*_t(x) E*[a_t a_t^T | X_t = x],

    N_s(y) = J (int K(y | x) J' N_t(x) J' dx) J,   s < t,

K the noising kernel N(alpha_s/alpha_t x, v), which is exact.  `halves` takes J, J' = exp(dt/2
grad b), the lean adjoint over half a step at either end (Strang), for an error of O(step^2);
`chain` what a sampler of that many steps pulls back with, whose own mean is had exactly.  K is
applied in Fourier space, exact to rounding while the grid resolves N.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.samplers.loss import reward_and_grad
from tiltbench.studies.integrated_variance.integrated import Array, Case

_ONE = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
Slopes = tuple[Tensor, Tensor]  # entries 11, 12, 22 of J' at t_{k+1} and J at t_k, (3, *b)


def lean_moment(
    case: Case, reach: float, points: int, slopes: Callable[[Case, int, Tensor], Slopes]
) -> Float[Array, " t"]:
    """E|a_t|^2 at the nodes of the case's rule, on points^2 places in [-reach, reach]^2."""
    base = case.base
    axis = torch.arange(points, dtype=torch.float64) * (2 * reach / points) - reach
    place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    assert case.truth.log_Z is not None
    r, slope = reward_and_grad(case.problem, place)
    density = (base.log_end(place) + r - case.truth.log_Z).exp()
    n = density * torch.stack([slope[..., 0] ** 2, slope.prod(-1), slope[..., 1] ** 2])
    moments = np.zeros(base.steps - 1)
    for k in range(base.steps - 1, 0, -1):
        before, after = slopes(case, k, place)
        kernel = _kernel(case, k, axis)
        n = _pulled(kernel @ _pulled(n, before) @ kernel.T, after)
        moments[k - 1] = float((n[0] + n[2]).sum()) * (2 * reach / points) ** 2
    return moments


def halves(case: Case, k: int, x: Float[Tensor, "*b 2"]) -> Slopes:
    half = (case.base.times[k + 1] - case.base.times[k]) / 2
    before, after = (exponential(half * _drift_slope(case, j, x)) for j in (k + 1, k))
    return before, after


def chain(case: Case, k: int, x: Float[Tensor, "*b 2"]) -> Slopes:
    first, second = (
        case.base.pull_back(x, k, torch.eye(2).to(x)[i].expand_as(x)) for i in range(2)
    )
    return _ONE.to(x), torch.stack([first[..., 0], first[..., 1], second[..., 1]])


def _kernel(case: Case, k: int, axis: Float[Tensor, " g"]) -> Float[Tensor, "g g"]:
    """X_k | X_{k+1} in one coordinate: g(y) = int f(x) N(y; ratio x, std^2) dx."""
    base = case.base
    ratio = base.signals[k] / base.signals[k + 1]
    power = base.noises[k] ** 2 - (ratio * base.noises[k + 1]) ** 2
    wave = 2 * torch.pi * torch.fft.fftfreq(len(axis), float(axis[1] - axis[0])).to(axis)
    damp = torch.exp(-power / 2 * wave.square())
    ahead, behind = torch.outer(axis, wave), ratio * torch.outer(wave, axis)
    cosine = (damp * ahead.cos()) @ behind.cos() + (damp * ahead.sin()) @ behind.sin()
    return cosine / len(axis)


def _drift_slope(case: Case, k: int, x: Float[Tensor, "*b 2"]) -> Tensor:
    """grad b, b = kappa x + sigma^2 score: a symmetric matrix."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        score = case.base.score(x, k)
        (first,) = torch.autograd.grad(score[..., 0].sum(), x, retain_graph=True)
        (second,) = torch.autograd.grad(score[..., 1].sum(), x)
    (rate, power), alpha, beta = case.base.rates[k], case.base.signals[k], case.base.noises[k]
    kappa = rate / alpha
    hessian = torch.stack([first[..., 0], first[..., 1], second[..., 1]])
    return (2 * kappa * beta**2 - power) * hessian + kappa * torch.tensor([1.0, 0.0, 1.0]).to(
        hessian
    )[:, None, None]


def exponential(m: Tensor) -> Tensor:
    mean, half, cross = (m[0] + m[2]) / 2, (m[0] - m[2]) / 2, m[1]
    size = torch.sqrt(half**2 + cross**2).clamp(min=1e-12)
    grow, turn = mean.exp() * size.cosh(), mean.exp() * size.sinh() / size
    return torch.stack([grow + turn * half, turn * cross, grow - turn * half])


def _pulled(n: Tensor, j: Tensor) -> Tensor:
    """J N J."""
    a, b, c = n
    p, q, r = j
    return torch.stack(
        [
            p * p * a + 2 * p * q * b + q * q * c,
            p * q * a + (p * r + q * q) * b + q * r * c,
            q * q * a + 2 * q * r * b + r * r * c,
        ]
    )
