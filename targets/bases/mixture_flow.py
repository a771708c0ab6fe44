"""The analytic mixture as an exact "pretrained" flow or diffusion: the suite's own oracle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.bases.components import Components
from tiltbench.targets.bases.continuous import Continuous, Moment
from tiltbench.targets.bases.interpolant import Ancestral, Interpolant, Mix, Stepping
from tiltbench.targets.bases.noised_mixture import NoisedMixture
from tiltbench.targets.bases.noising import Known, Step, pick
from tiltbench.targets.bases.process import Kernel, Path, log_normal
from tiltbench.targets.bases.schedules import RectifiedFlow, Schedule

MOST_STEPS = 10_000
PROBES = 4096  # draws that fix the uncertainty of the ends


@dataclass(frozen=True)
class MixtureFlow(Interpolant, Known, Continuous):
    """p_base = sum_j weight_j N(mean_j, variance_j I), denoiser and score in closed form.

    A sampler may use what any pretrained model offers; `log_end` and `end` serve the classical
    methods.  The chain's own terminal law is O(1/K) from p_base: it would put log Z of
    `tilt_linear` off by -.013, -.005 and -.002 at 10, 25 and 50 steps, which `log_law_over_chain`
    makes good.
    """

    name: ClassVar[str] = "MixtureFlow"
    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    variances: tuple[float, ...]
    schedule: Schedule = RectifiedFlow()
    stepping: Stepping = Ancestral()
    steps: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MOST_STEPS:
            raise ValueError(f"steps is {self.steps}; it must be from 1 to {MOST_STEPS}")
        self.stepping.check(self.schedule)

    @cached_property
    def law(self) -> Components:
        weight, mean, var = (
            torch.tensor(v, dtype=torch.float64) for v in (self.weights, self.means, self.variances)
        )
        return Components(weight, mean, var)

    @cached_property
    def spread(self) -> float:
        return math.sqrt(self.law.mean_square())

    @cached_property
    def uncertainty(self) -> list[float]:
        """By a fixed set of draws, the covariance given each of them in closed form."""
        fixed = Generator().manual_seed(0)
        x1 = self.law.sample(PROBES, fixed)
        xi = torch.randn(x1.shape, generator=fixed, dtype=torch.float64)
        deviations = []
        for alpha, beta in zip(self.signals[:-1], self.noises[:-1], strict=True):
            x = alpha * x1 + beta * xi
            if beta == 0:  # a point start: the end is as uncertain as it ever was
                alpha, beta = 0.0, 1.0
            deviations.append(math.sqrt(float(self.law.left(x, alpha, beta).mean()) / x.shape[-1]))
        return deviations

    def noised(self, like: Tensor) -> NoisedMixture:
        """The law along the grid, on the device and in the dtype of `like`, worked out once."""
        place = (like.dtype, like.device)
        if place not in self._noised:
            with torch.inference_mode(False), torch.no_grad():
                self._noised[place] = NoisedMixture(self.law, self._grid, self._affine, like)
        return self._noised[place]

    @cached_property
    def _noised(self) -> dict[tuple[torch.dtype, torch.device], NoisedMixture]:
        return {}

    @cached_property
    def _grid(self) -> list[tuple[float, float]]:
        """(signal, noise); a point start, X_0 = 0, is as good as pure noise of any size."""
        start = self.noises[0] or 1.0
        return list(zip(self.signals, [start, *self.noises[1:]], strict=True))

    @cached_property
    def _affine(self) -> list[tuple[float, float, float]]:
        """The parts of x, E[X_1 | x] and the score in the mean of every step."""
        return [self._parts(mix, k) for k, mix in enumerate(self.mixes)]

    def _parts(self, mix: Mix, k: int) -> tuple[float, float, float]:
        first, second = self.rates[k]
        return mix.x, mix.end + mix.velocity * first, mix.score - mix.velocity * second / 2

    def denoise(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        return self.noised(x).end(x, k)

    def ends(self, y: Float[Tensor, "*b d"], at: Moment) -> tuple[Tensor, Tensor]:
        score = self.law.score(y, at.signal, at.noise)
        return self.law.denoise(y, at.signal, at.noise), -at.noise * score

    def score(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        return self.noised(x).score(x, k)

    def current(
        self, x: Float[Tensor, "*b d"], k: Step
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        first = pick([rate for rate, _ in self.rates], k, x)
        second = pick([rate for _, rate in self.rates], k, x)
        end, score = self.noised(x).both(x, k)
        return first * end - second / 2 * score, score

    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        return Kernel(self.noised(x).mean(x, k), self.stds[k])

    def mixed(self, x: Float[Tensor, "*b d"], k: int, mix: Mix) -> Float[Tensor, "*b d"]:
        still, pull, push = self._parts(mix, k)
        end, score = self.noised(x).both(x, k)
        return still * x + pull * end + push * score

    def pull_back(self, x: Float[Tensor, "*b d"], k: int, a: Tensor) -> Tensor:
        rows = x.reshape(1, -1, x.shape[-1])
        back = self.noised(x).mean.pull_backs(rows, k)
        return back(k, a.expand_as(x).reshape(rows.shape[1:])).reshape(x.shape)

    def pull_backs(self, x: Float[Tensor, "k1 *b d"]) -> Callable[[int, Tensor], Tensor]:
        rows = x[: self.steps].flatten(1, -2) if x.dim() > 2 else x[: self.steps, None]
        back = self.noised(x).mean.pull_backs(rows)
        return lambda k, a: back(k, a.reshape(rows.shape[1:])).reshape(a.shape)

    def denoise_rate(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        """By a central difference of the closed form along the schedule, in float64."""
        h, y = 1e-6, x.double()
        (a, b2), (da, db2) = self._squares(x, k), self._slopes(x, k)
        # where beta = 0 there is nothing beyond: the difference is taken a step inside
        inward = [
            2 * h * ((i == 0) - (i == self.steps)) * (b == 0) for i, b in enumerate(self.noises)
        ]
        c = pick(inward, k, y)
        ahead, behind = (
            self.law.denoise(y, a + (c + s) * da, _root(b2 + (c + s) * db2)) for s in (h, -h)
        )
        return ((ahead - behind) / (2 * h)).to(x)

    def _squares(self, x: Tensor, k: Step) -> tuple[float | Tensor, float | Tensor]:
        y = x.double()
        return pick(self.signals, k, y), pick([b * b for b in self.noises], k, y)

    def _slopes(self, x: Tensor, k: Step) -> tuple[float | Tensor, float | Tensor]:
        y = x.double()
        return pick([a for a, _ in self.rates], k, y), pick([b for _, b in self.rates], k, y)

    def _levels(self, x: Tensor, k: Step) -> tuple[float | Tensor, float | Tensor]:
        alpha, beta = pick(self.signals, k, x), pick(self.noises, k, x)
        if self.noises[0] == 0:  # a point start, X_0 = 0, is as good as pure noise of any size
            beta = beta + pick([1.0] + [0.0] * self.steps, k, x)
        return alpha, beta

    def log_end(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self.law.log_density(x)

    def log_ends(self, x: Float[Tensor, "k1 *b d"]) -> Float[Tensor, " *b"] | None:
        if not self.start_std:  # X_0 is a point and has no density
            return None
        start = log_normal(x[0], 0.0, self.start_std, x.shape[-1])
        return self.log_end(x[-1].double()) - start

    def log_law_over_chain(self, path: Path) -> Float[Tensor, " *b"]:
        """log p_base(x_K) prod_k q(x_k | x_{k+1}) / p_0(x_0) prod_k N(x_{k+1}; m_k(x_k), std_k^2),
        q the kernels of `backward`."""
        d, log_ratio = path.x.shape[-1], self.log_ends(path.x)
        if log_ratio is None:  # nor has it in the other law
            log_ratio = self.log_end(path.x[-1].double())
        for k, ahead in enumerate(self.stds):
            mean, back = self.backward(path.x[k + 1], k)
            if back:
                log_ratio = log_ratio + log_normal(path.x[k], mean, back, d)
            log_ratio = log_ratio - log_normal(path.x[k + 1], path.mean[k], ahead, d)
        return log_ratio

    def end(
        self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        n = math.prod(shape[:-1])
        return self.law.sample(n, generator).to(dtype).reshape(shape)

    def posterior(
        self, x: Float[Tensor, "*b d"], k: Int[Tensor, " *b"], generator: Generator
    ) -> Float[Tensor, "*b d"]:
        return self.law.posterior(x, *self._levels(x, k), generator)


def _root(square: float | Tensor) -> float | Tensor:
    return square.clamp(min=0).sqrt() if isinstance(square, Tensor) else math.sqrt(max(square, 0.0))
