"""Drawing from a trained control with another noise than it was trained with.

A control is a displaced denoiser, E*[X_1|x] = E_base[X_1|x] + u / lift_k; whatever steps a denoiser
along the interpolant takes it: the ODE (DDIM), or a chain with any other noise.  The marginals of
the optimum are those of p*_t for every noise, so that all end in p*, up to the steps' error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.sampler import Draws, Unsupported
from tiltbench.targets.bases.interpolant import Interpolant, Stepping
from tiltbench.targets.bases.noising import Step
from tiltbench.targets.bases.process import Controlled, simulate
from tiltbench.targets.problem import Problem, log_weight


@torch.no_grad()
def by_ode(
    base: Interpolant,
    model: Controlled,
    shape: tuple[int, ...],
    generator: Generator,
    dtype: torch.dtype = torch.float32,
) -> Draws:
    """Deterministic DDIM (arXiv 2010.02502, eta = 0), which on a rectified flow is Euler's method
    for dX = v dt: x <- alpha' E*[X_1|x] + beta' E*[xi|x].  There is no noise to weigh paths by:
    draws without weights.  Raises Unsupported where X_0 is a point."""
    if base.noises[0] == 0:
        raise Unsupported("this base starts from a point, where its ODE has nothing to transport")
    x = base.start(shape, generator, dtype)
    steered = _Steered(base, model)
    for k in range(base.steps):
        end = steered.denoise(x, k)
        noise = (x - base.signals[k] * end) / base.noises[k]
        x = base.signals[k + 1] * end + base.noises[k + 1] * noise
    return Draws(x)


@torch.no_grad()
def by_noise(
    problem: Problem, model: Controlled, stepping: Stepping, n: int, generator: Generator
) -> Draws:
    """The chain of `stepping` with the displaced denoiser, on the same grid: weights by Girsanov
    against that chain with the base's own, and from there to the base's law, where that is known;
    elsewhere E[exp log_w] = E exp r(X_1) under the latter, Z up to its O(1/K).  Raises Unsupported
    where the base is no interpolant."""
    if not isinstance(problem.base, Interpolant):
        raise Unsupported("only a base along an interpolant has other noises: a flow or diffusion")
    base = replace(problem.base, stepping=stepping)  # type: ignore[type-var]
    steered = _Steered(problem.base, model)
    path = simulate(base, _Towards(base, stepping, steered), (n, problem.dim), generator)
    return Draws(path.x[-1], log_weight(replace(problem, base=base), path))


@dataclass(frozen=True)
class _Towards(Controlled):
    """The control by which the chain of `base` takes the steps of `steered`."""

    base: Interpolant
    stepping: Stepping
    steered: _Steered

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        k = int((t * self.base.steps).round())  # `simulate` asks for one time at once
        mix = self.stepping.mix(self.steered, k)
        far = self.steered.mixed(x, k, mix) - self.base.base(x, k).mean
        return far / (self.base.stds[k] * math.sqrt(self.base.times[k + 1] - self.base.times[k]))


class _Steered(Interpolant):
    """A base whose denoiser is displaced by a control, in the units of the base's own chain."""

    def __init__(self, base: Interpolant, model: Controlled) -> None:
        self.inner, self.model = base, model
        self.schedule, self.stepping, self.steps = base.schedule, base.stepping, base.steps

    @property
    def spread(self) -> float:
        return self.inner.spread

    @property
    def uncertainty(self) -> list[float]:
        return self.inner.uncertainty

    def denoise(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        end = self.inner.denoise(x, k)
        assert isinstance(k, int)
        if not self.inner.lifts[k]:  # the noise it was trained with could not move X_1 there
            return end
        u = self.model.control(x, x.new_full(x.shape[:-1], self.times[k]))
        return end + u / self.inner.lifts[k]

    def score(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        return self.current(x, k)[1]

    def current(
        self, x: Float[Tensor, "*b d"], k: Step
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]]:
        """By Tweedie's formula, so that the control is asked once."""
        assert isinstance(k, int)
        end, (first, second) = self.denoise(x, k), self.rates[k]
        score = (self.signals[k] * end - x) / self.noises[k] ** 2
        return first * end - second / 2 * score, score

    def denoise_rate(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        raise Unsupported("a steered base has no rate of its denoiser")
