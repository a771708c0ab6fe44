"""Escorted annealing with resampling along the path: sequential Monte Carlo by learned kernels.

The slots of an island carry log-weights w_k, with E[mean_i exp(w_k^i) f(x_k^i)] = Z_k E_pi_k[f].
At the boundaries of segments an island whose effective sample size has fallen is resampled: every
slot then goes on from a slot drawn by the weights, and carries the log-mean-exp of them all
(Del Moral, Doucet and Jasra 2006; with learned kernels SCLD, arXiv 2412.07081).  For steps that are
fixed beforehand the estimate of Z is unbiased, however the kernels were learned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.recipes.annealing import height
from tiltbench.samplers.recipes.escort import (
    Escort,
    EscortPath,
    KernelRatio,
    Place,
)
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.noising import Current
from tiltbench.targets.bases.process import Controlled, Path


@dataclass(frozen=True, eq=False, kw_only=True)
class ResampledPath(EscortPath):
    """The slots of a population: what is recorded at t_k is the point at which a slot arrives.

    It goes on from where slot `ancestor` has arrived: itself, but where it was resampled."""

    ancestor: Int[Tensor, "k1 n"]
    renewed: Bool[Tensor, "k1 n"]  # whether the slot's island was resampled there


@dataclass(frozen=True)
class Resampling(Escort):
    """The chain of an escort whose islands are resampled at every `every`-th step where the
    effective sample size of the weights, as a share of the island, is below `least`.

    n slots are as many islands of `island` or more as divide n evenly."""

    path: ClassVar[type[Path]] = ResampledPath
    every: int
    least: float
    island: int

    @property
    def boundaries(self) -> list[int]:
        """The steps between two segments."""
        return list(range(self.every, self.steps, self.every))

    def islands(self, n: int) -> int:
        most = max(n // self.island, 1)
        return next(m for m in range(most, 0, -1) if n % m == 0)

    def simulate(
        self,
        model: Controlled,
        shape: tuple[int, ...],
        generator: Generator,
        guided: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> ResampledPath:
        """A population forward from X_0 ~ p_0, a value and a gradient of r at K + 1 points a slot.

        Whether an island is resampled is decided on the device.  Raises Unsupported where a graph
        is wanted: nothing differentiates through the choice of ancestors."""
        if torch.is_grad_enabled():
            raise Unsupported(
                "a resampled path has no gradient: use recipe=Escorted for losses that "
                "differentiate through the path"
            )
        n, islands = shape[0], self.islands(shape[0])
        x, times = self.start(shape, generator, dtype), self.times
        noise = self.normal((self.steps, *shape), generator, dtype).unbind(0)
        turns = (self.steps + 1, islands, 1)
        starts = torch.rand(turns, generator=generator, device=x.device, dtype=torch.float64)
        control, itself = model.on_grid(self.grid(x)), torch.arange(n, device=x.device)
        never = torch.zeros_like(itself, dtype=torch.bool)
        rest = torch.zeros(n, dtype=torch.float64, device=x.device)  # log-weights less r_t
        left, arrived, tilts, ancestors, renewals = None, [], [], [], []
        for k, t in enumerate(times):
            tilt = self._tilt(x, k)
            u = control(x, k, tilt.pull if guided else None)
            here = Place(x, u, *self.flow.current(x, k), tilt.pull)
            tall = height(t, tilt.r).double()
            if left is not None:
                rest = rest + self.gains(left, here, k - 1)
            ancestor, renewed = itself, never
            if k in self.boundaries:
                tall = felt(tall, islands)
                log_w = (rest + tall).reshape(islands, -1)
                chosen, thin = ancestors_of(log_w, self.least, starts[k])
                ancestor, renewed = chosen.flatten(), thin.expand_as(chosen).flatten()
                rest = _renewed(rest, tall, ancestor, renewed, islands)
            arrived.append(here)
            tilts.append(tilt)
            ancestors.append(ancestor)
            renewals.append(renewed)
            if k < self.steps:
                left = Place(*(part[ancestor] for part in here)) if k in self.boundaries else here
                dt, eps = times[k + 1] - t, self.diffusion[k]
                drift = left.velocity + self.spread * left.u
                x = left.x + dt * drift + eps * dt * (left.score + left.pull)
                x = torch.add(x, noise[k], alpha=self.stds[k])
        xs, us, velocities, scores, _ = (list(part) for part in zip(*arrived, strict=True))
        met: list[Current | None] = list(zip(velocities, scores, strict=True))
        plain = self._recorded(xs, us, tilts, met, guided)
        known = {part.name: getattr(plain, part.name) for part in fields(EscortPath)}
        return ResampledPath(
            **known, ancestor=torch.stack(ancestors), renewed=torch.stack(renewals)
        )

    def gains(self, start: Place, end: Place, k: int) -> Float[Tensor, " n"]:
        """What step k adds to the log-weights, but for the change of r_t."""
        before, after = (Place(*(part[None] for part in place)) for place in (start, end))
        return KernelRatio().steps(self, before, after, k)[0]

    def log_w_along(self, path: Path) -> Float[Tensor, " k1 n"]:
        """The log-weights with which slots arrive at t_k: E[exp(log_w) f(x_k)] = Z_k E_pi_k[f].

        Of a reverse path, which was not resampled, they are those of the escort."""
        if not isinstance(path, ResampledPath):
            return super().log_w_along(path)
        return self._less_height(path) + path.height

    def _less_height(self, path: ResampledPath) -> Float[Tensor, "k1 n"]:
        """The log-weights with which slots arrive, less r_t: finite where r_t is -inf."""
        each, tall = self.steps_of(path), path.height.double()
        rest = torch.zeros_like(tall[0])
        arrivals = [rest]
        for k in range(1, self.steps + 1):
            rest = rest + each[k - 1]
            arrivals.append(rest)
            if k in self.boundaries:
                islands = self.islands(rest.shape[-1])
                here = felt(tall[k], islands)
                rest = _renewed(rest, here, path.ancestor[k], path.renewed[k], islands)
        return torch.stack(arrivals)

    def steps_of(self, path: ResampledPath) -> Float[Tensor, " k n"]:
        """`gains` of all steps, differentiable in path.u."""
        here = (path.x, path.u, path.velocity, path.score, path.pull)
        start = Place(*(gone_on(part[:-1], path.ancestor[:-1]) for part in here))
        return KernelRatio().steps(self, start, Place(*(part[1:] for part in here)), 0)

    def log_ratio(self, path: Path) -> Float[Tensor, " n"]:
        if not isinstance(path, ResampledPath):
            return super().log_ratio(path)
        return -self._less_height(path)[-1]

    def log_law_over_chain(self, path: Path) -> Float[Tensor, " n"]:
        """Of the line of ancestors that leads to a slot."""
        return super().log_law_over_chain(
            lineage(path) if isinstance(path, ResampledPath) else path
        )


def ancestors_of(
    log_w: Float[Tensor, "m n"], least: float, start: Float[Tensor, "m 1"]
) -> tuple[Int[Tensor, "m n"], Bool[Tensor, "m 1"]]:
    """For m islands the ancestors of all n slots, among all m n, and whether they were resampled.

    Systematic resampling, `start` uniform in [0, 1), where sum(w)^2 / (n sum w^2) < least; every
    slot is its own ancestor elsewhere, and where all weights are zero."""
    share = torch.softmax(log_w, -1)
    n = share.shape[-1]
    thin = 1 / (n * share.square().sum(-1, keepdim=True)) < least  # not where it is NaN
    itself = torch.arange(n, device=log_w.device).expand_as(share)
    resampled = torch.searchsorted(share.cumsum(-1), (itself + start) / n).clamp(max=n - 1)
    first = n * torch.arange(len(share), device=log_w.device)[:, None]
    return first + torch.where(thin, resampled, itself), thin


def felt(tall: Float[Tensor, " n"], islands: int) -> Float[Tensor, " n"]:
    """r_t as ancestors are drawn by, which must be finite: a step may lead out of a wall again,
    and what is never drawn there would be missing from Z.  A wall is as deep as the lowest other
    slot of the island; any depth would do, for what is drawn by it is divided by it."""
    each = tall.reshape(islands, -1)
    low = torch.where(each == -torch.inf, torch.inf, each).amin(-1, keepdim=True)
    low = torch.where(low == torch.inf, 0.0, low)
    return torch.where(each == -torch.inf, low, each).flatten()


def _renewed(rest: Tensor, tall: Tensor, ancestor: Tensor, renewed: Tensor, islands: int) -> Tensor:
    """Log-weights less r_t after a boundary: those of a resampled island are equal, in all."""
    log_w = (rest + tall).reshape(islands, -1)
    mean = torch.logsumexp(log_w, -1, keepdim=True) - math.log(log_w.shape[-1])
    return torch.where(renewed, mean.expand_as(log_w).flatten() - tall[ancestor], rest)


def gone_on(part: Tensor, ancestor: Int[Tensor, "k n"]) -> Tensor:
    """What slots go on with from what they arrive with, (k, n) or (k, n, d)."""
    lead = ancestor if part.dim() == 2 else ancestor[..., None].expand_as(part)
    return part.gather(1, lead)


def lineage(path: ResampledPath) -> EscortPath:
    """The paths that lead to the slots at the end, each through its ancestors."""
    slot = torch.arange(path.x.shape[1], device=path.x.device)
    slots = [slot]
    for k in range(len(path.x) - 2, -1, -1):
        slot = path.ancestor[k][slot]
        slots.append(slot)
    through = torch.stack(slots[::-1])
    known = {part.name: getattr(path, part.name) for part in fields(EscortPath)}
    per_point = [name for name, part in known.items() if part is not None and part.dim() > 1]
    for name in per_point:
        known[name] = gone_on(known[name], through[: len(known[name])])
    return EscortPath(**known)
