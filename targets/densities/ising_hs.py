"""The 2-D Ising model made continuous by the Hubbard-Stratonovich transform."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.densities._ising import (
    LARGEST_EXACT,
    log_Z_and_slope,
    row_transfer,
    swendsen_wang,
)
from tiltbench.targets.problem import front
from tiltbench.targets.target import Density, Modes, Observable, Truth

GAP = 0.05  # smallest eigenvalue of K
DENSE = 256  # sites up to which a product with K^-1 is faster than a pair of FFTs


@dataclass(frozen=True)
class IsingHS(Density):
    """log rho(x) = log N(x; 0, K) + sum_i log(2 cosh x_i) on R^(side^2), K = beta A + c I.

    A is the adjacency of the side x side torus and c = 0.05 - beta min eig A.  Then
    x | s ~ N(K s, K), P(s_i = 1 | x) = 1 / (1 + exp(-2 x_i)), s is the Ising model at inverse
    temperature beta, and log Z = log Z_Ising + c side^2 / 2 (Kaufman 1949).  K^-1 acts as a matrix
    up to side 16 and by FFT above.  The default is critical.
    """

    name = "ising_hs"
    side: int = 8
    beta: float = 0.4406868
    test_value = -14.5492866453992

    def __post_init__(self) -> None:
        if self.side < 3 or not self.beta > 0:
            raise ValueError(
                f"side is {self.side} and beta {self.beta}; side must be at least 3, beta positive"
            )

    @property
    def dim(self) -> int:  # type: ignore[override]
        return self.side**2

    @property
    def lattice(self) -> tuple[int, ...]:
        return (self.side, self.side)

    @property
    def scale(self) -> float:  # type: ignore[override]
        """Above side 8 from the two-point function of side 8."""
        return _scale(self.side, self.beta)

    @property
    def shift(self) -> float:
        """c."""
        return GAP - self.beta * _adjacency(self.side).min().item()

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        half, _ = _Half.apply(x, self)
        return _log_cosh(x) - half - self._norm

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        x = x.detach()
        y = self._solve(x)
        value = _log_cosh(x) - (x * y).sum(-1) / 2 - self._norm
        return value, torch.tanh(x) - y

    @property
    def _norm(self) -> float:
        """Minus the logarithm of N(0; 0, K)."""
        _, log_det = _levels(self.side, self.beta, torch.device("cpu"), torch.float64)
        return (log_det + self.dim * math.log(2 * math.pi)) / 2

    def _solve(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """K^-1 x."""
        if self.dim <= DENSE:
            return x @ _inverse(self.side, self.beta, x.device, x.dtype)
        if x.numel() == 0:  # which FFT libraries refuse
            return x
        level, _ = _levels(self.side, self.beta, x.device, x.dtype)
        wave = torch.fft.rfft2(self._square(x)) / level[:, : self.side // 2 + 1]
        return torch.fft.irfft2(wave, s=(self.side, self.side)).flatten(-2)

    def truth(self) -> Truth:
        """Draws: spins by transfer matrix, i.i.d. and exact, up to side 10; above that each draw
        ends a Swendsen-Wang chain of its own.  The mean of `energy` is exact, the others are to
        side 10; above, they come from 512 draws and say their error.  The sd of `energy` and
        `opposite` comes from 4,096 draws (1 %; 512 above side 10)."""
        log_Z, slope = log_Z_and_slope(self.side, self.beta)
        observables = {"energy": Observable(self._energy, -slope, _sd(self, IsingHS._energy))}
        if self.side <= LARGEST_EXACT:
            observables |= self._magnetisation() | {"opposite": self._opposite()}
            spins = "transfer matrix"
        else:
            observables |= self._measured()
            spins = "Swendsen-Wang, 50 sweeps a draw"
        return Truth(
            f"log Z by Kaufman's formula; spins by {spins}",
            log_Z=log_Z + self.shift * self.dim / 2,
            sample=self._sample,
            modes=Modes(torch.tensor([0.5, 0.5], dtype=torch.float64), _sign_of_mean),
            observables=observables,
        )

    def _square(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:-1], self.side, self.side)

    def _sample(self, n: int, generator: Generator) -> Float[Tensor, "n d"]:
        """K s + K^(1/2) xi."""
        if self.side <= LARGEST_EXACT:
            s = row_transfer(self.side, self.beta).sample(n, generator)
        else:
            s = swendsen_wang(self.side, self.beta, n, generator)
        xi = torch.randn(s.shape, generator=generator, device=s.device, dtype=s.dtype)
        level, _ = _levels(self.side, self.beta, s.device, s.dtype)
        wave = level * torch.fft.fft2(s) + level.sqrt() * torch.fft.fft2(xi)
        return torch.fft.ifft2(wave).real.flatten(1)

    def _energy(self, x: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """E[-sum over bonds s_i s_j | x]: given x the spins are independent, of means tanh x_i."""
        s = self._square(torch.tanh(x))
        return -(s * (s.roll(1, -1) + s.roll(1, -2))).sum((-2, -1))

    def _far(self, x: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """E[s_i s_j | x], averaged over the pairs side // 2 apart in a row or column."""
        s, half = self._square(torch.tanh(x)), self.side // 2
        return (s * (s.roll(half, -1) + s.roll(half, -2))).mean((-2, -1)) / 2

    def _opposite(self) -> Observable:
        mean = row_transfer(self.side, self.beta).two_point()[0, self.side // 2]
        return Observable(self._far, float(mean), _sd(self, IsingHS._far))

    def _magnetisation(self) -> dict[str, Observable]:
        """|mean x| and (mean x)^2.

        The constant field is an eigenvector of K, with eigenvalue k, so that mean x =
        k m + N(0, k / side^2) with m the mean spin."""
        torus, n = row_transfer(self.side, self.beta), self.dim
        k = 4 * self.beta + self.shift
        law = torus.magnetisation()
        m = k * (2 * torch.arange(n + 1, dtype=torch.float64) - n) / n
        var = k / n
        folded = math.sqrt(2 * var / math.pi) * torch.exp(-m.square() / (2 * var))
        folded = folded + m * torch.erf(m / math.sqrt(2 * var))
        first = float(law @ folded)
        second = float(law @ m.square()) + var
        fourth = float(law @ (m**4 + 6 * m**2 * var + 3 * var**2))
        return {
            "magnetisation": Observable(_modulus, first, math.sqrt(second - first**2)),
            "susceptibility": Observable(_square, second, math.sqrt(fourth - second**2)),
        }

    def _measured(self) -> dict[str, Observable]:
        x = _draws(self)
        named = {"magnetisation": _modulus, "susceptibility": _square, "opposite": self._far}
        values = {name: f(x) for name, f in named.items()}
        return {
            name: Observable(
                named[name], float(v.mean()), float(v.std()), float(v.std()) / math.sqrt(len(v))
            )
            for name, v in values.items()
        }


class _Half(torch.autograd.Function):
    """(x . K^-1 x / 2, K^-1 x) of points x (*b, d).

    One product with K^-1 serves value and gradient, where autograd would need two.  Both outputs
    are differentiable, so that every order of derivatives is right."""

    @staticmethod
    def forward(x: Tensor, law: IsingHS) -> tuple[Tensor, Tensor]:
        y = law._solve(x)
        return (x * y).sum(-1) / 2, y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)  # K^-1 0 would cost as much as any
        ctx.law = inputs[1]
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        (y,) = ctx.saved_tensors
        of_half, of_y = grad
        first = None if of_half is None else of_half[..., None] * y
        second = None if of_y is None else ctx.law._solve(of_y)
        return second if first is None else first if second is None else first + second, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, law: IsingHS) -> Any:
        return _Half.apply(front(info, in_dims[0], x), law), (0, 0)


def _log_cosh(x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
    """sum_i log(2 cosh x_i)."""
    return (x - torch.nn.functional.logsigmoid(2 * x)).sum(-1)


def _adjacency(side: int) -> Float[Tensor, "l l"]:
    """Eigenvalues of the torus' adjacency in the order of fft2."""
    wave = 2 * torch.cos(2 * math.pi * torch.arange(side, dtype=torch.float64) / side)
    return wave[:, None] + wave


@lru_cache(maxsize=32)
def _levels(
    side: int, beta: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """(eigenvalues of K, log det K)."""
    adjacency = _adjacency(side)
    level = beta * adjacency + (GAP - beta * adjacency.min())
    return level.to(device=device, dtype=dtype), float(level.log().sum())


@lru_cache(maxsize=32)
def _inverse(
    side: int, beta: float, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "d d"]:
    """K^-1, symmetric: row (i, j) is its first row moved by (i, j)."""
    with torch.inference_mode(False):  # or whoever records a graph later could not use it
        level, _ = _levels(side, beta, torch.device("cpu"), torch.float64)
        first = torch.fft.ifft2(1 / level).real
        moved = [first.roll((i, j), (0, 1)).flatten() for i in range(side) for j in range(side)]
        return torch.stack(moved).to(device=device, dtype=dtype)


@lru_cache(maxsize=32)
def _scale(side: int, beta: float) -> float:
    """sqrt(tr(K E[s s^T] K) + tr K) / side, rounded: E|x|^2 with x = K s + K^(1/2) xi."""
    side = min(side, 8)
    level, _ = _levels(side, beta, torch.device("cpu"), torch.float64)
    power = torch.fft.fft2(row_transfer(side, beta).two_point()).real  # E |FFT of s|^2
    return float(f"{math.sqrt(float((level.square() * power + level).mean())):.2g}")


@lru_cache(maxsize=16)
def _sd(target: IsingHS, statistic: Callable[[IsingHS, Tensor], Tensor]) -> float:
    return float(statistic(target, _draws(target)).std())


@lru_cache(maxsize=4)
def _draws(target: IsingHS) -> Tensor:
    n = 4096 if target.side <= LARGEST_EXACT else 512
    return target._sample(n, torch.Generator().manual_seed(1))


def _modulus(x: Tensor) -> Tensor:
    return x.mean(-1).abs()


def _square(x: Tensor) -> Tensor:
    return x.mean(-1).square()


def _sign_of_mean(x: Tensor) -> Tensor:
    return (x.mean(-1) > 0).long()
