"""Escorted annealing: Langevin steps along pi_t = p_t exp(r_t)/Z_t, carried by a learned velocity.

    dX = [v + w + eps (s + grad r_t)] dt + sqrt(2 eps) dB,    X_0 ~ p_0,    w = spread u,

v and s the base's velocity and score, u the model's control.  Jarzynski (PRE 56, 5018, 1997),
escorted (Vaikuntanathan and Jarzynski, PRL 100, 190601, 2008), controlled Monte Carlo diffusions
(arXiv 2307.01050) and NETS (2410.02711), on any base (math.md 5.2, 5.3).  w is in units that do not
know eps: the same trained model serves any other.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.recipes.annealing import Annealed, Annealing
from tiltbench.samplers.recipes.borrowed import Borrowed
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.noising import Current, Noising, Side, turn, turns
from tiltbench.targets.bases.process import Controlled, Kernel, Path
from tiltbench.targets.constants import constant
from tiltbench.targets.problem import Reward


@dataclass(frozen=True, eq=False, kw_only=True)
class EscortPath(Path):
    """A path of an escort, whose u and hint are at all K+1 points, with what was met there."""

    u: Float[Tensor, "k1 *b d"]
    hint: Float[Tensor, "k1 *b d"] | None = None
    velocity: Float[Tensor, "k1 *b d"]  # v of the base
    score: Float[Tensor, "k1 *b d"]  # grad log p_t of the base
    pull: Float[Tensor, "k1 *b d"]  # grad r_t
    height: Float[Tensor, " k1 *b"]  # r_t
    change: Float[Tensor, " k1 *b"]  # d/dt r_t


@dataclass(frozen=True, eq=False, kw_only=True)
class MeasuredPath(EscortPath):
    """An escort's path with the divergence of w at every point, which drawing alone pays for."""

    growth: Float[Tensor, " k1 *b"]  # div w of the escort w = spread u


class Place(NamedTuple):
    """Points at one time, or on one side of k steps, and what is known there."""

    x: Float[Tensor, "*b d"]
    u: Float[Tensor, "*b d"]
    velocity: Float[Tensor, "*b d"]
    score: Float[Tensor, "*b d"]
    pull: Float[Tensor, "*b d"]


def escorted(path: Path) -> EscortPath:
    """The path as an escort's; raises TypeError where another process has made it."""
    if not isinstance(path, EscortPath):
        raise TypeError(f"an escort weighs its own paths, not a {type(path).__name__}")
    return path


class Weighing(ABC):
    """How the paths of an escort are weighed: A_k, with E[exp A_k f(x_k)] = Z_k E_pi_k[f]."""

    @abstractmethod
    def along(self, escort: Escort, path: EscortPath) -> Float[Tensor, " k1 *b"]:
        """A_k at every point, float64; A_0 = 0."""

    @abstractmethod
    def log_ratio(self, escort: Escort, path: EscortPath) -> Float[Tensor, " *b"]:
        """r(x_K) - A_K."""

    def log_law_over_chain(self, escort: Escort, path: EscortPath) -> Float[Tensor, " *b"]:
        """What A_K lacks to be exact at any number of steps; 0 where that is not known."""
        return torch.zeros_like(path.height[-1], dtype=torch.float64)


@dataclass(frozen=True)
class KernelRatio(Weighing):
    """A_k = r_t(x_k) + sum_{j<k} [log N_bwd - log N_fwd] + log p_{t_k}(x_k) - log p_0(x_0)

    with N_bwd the step of the reversed chain, drift v + w - eps (s + grad r_t) at the later end
    (math.md 5.3).  Needs eps > 0.  Exact at any number of steps where the base knows its density;
    elsewhere `Noising.log_change` stands in, and E[exp A] = Z as dt -> 0 only."""

    def along(self, escort: Escort, path: EscortPath) -> Float[Tensor, " k1 *b"]:
        return path.height.double() + self._gained(escort, path)

    def log_ratio(self, escort: Escort, path: EscortPath) -> Float[Tensor, " *b"]:
        return -self._gained(escort, path)[-1]

    def log_law_over_chain(self, escort: Escort, path: EscortPath) -> Float[Tensor, " *b"]:
        """log p_base(x_K) - log p_0(x_0), less what `Noising.log_change` has put in its place."""
        ends = escort.flow.log_ends(path.x)
        if ends is None:
            return super().log_law_over_chain(escort, path)
        eps = constant(escort.diffusion, path.t, torch.float64)
        w = escort.spread * path.u
        put = escort.flow.log_change(path.x, path.velocity, path.score, w, path.dt, eps)
        return ends - put[-1]

    def _gained(self, escort: Escort, path: EscortPath) -> Tensor:
        eps = constant(escort.diffusion, path.t, torch.float64)
        w = escort.spread * path.u
        carried = path.velocity + w
        lead = (-1, *[1] * (path.x.dim() - 1))
        push, up = constant(escort.diffusion, path.x).reshape(lead), slope(path)
        ahead, behind = carried[:-1] + push * up[:-1], carried[1:] - push * up[1:]
        back = turn(path.x.diff(dim=0), ahead, behind, path.dt, eps)
        return back + escort.flow.log_change(path.x, path.velocity, path.score, w, path.dt, eps)

    def steps(self, escort: Escort, start: Place, end: Place, first: int) -> Float[Tensor, " k *b"]:
        """log N_bwd - log N_fwd + log p_{t_{j+1}}(end) - log p_{t_j}(start) of the steps
        j = first, first + 1, ..., float64: what A gains by each but for the change of r_t.

        Where a step starts from where the last has ended they add up to `_gained`, which evaluates
        every point once."""
        here = slice(first, first + len(start.x))
        eps = constant(escort.diffusion[here], start.x, torch.float64)
        dt = escort.grid(start.x).diff()[here]
        push = constant(escort.diffusion[here], start.x).reshape(-1, *[1] * (start.x.dim() - 1))
        left, come = (
            Side(at.x, at.velocity, at.score, escort.spread * at.u) for at in (start, end)
        )
        ahead = start.velocity + left.carried + push * (start.score + start.pull)
        behind = end.velocity + come.carried - push * (end.score + end.pull)
        back = turns(end.x - start.x, ahead, behind, dt, eps)
        return back + escort.flow.log_steps(left, come, dt, eps, first)


@dataclass(frozen=True)
class Divergence(Weighing):
    """dA = [d/dt r_t + v . grad r_t + div w + w . (s + grad r_t)] dt by the trapezium rule.

    Any eps >= 0, and no density of the base; E[exp A] = Z as dt -> 0 (math.md 5.2)."""

    def along(self, escort: Escort, path: EscortPath) -> Float[Tensor, " k1 *b"]:
        if not isinstance(path, MeasuredPath):
            raise Unsupported(
                "the divergence form weighs drawn paths only: train with nets_pinn, or use "
                "recipe=Escorted for losses of path weights"
            )
        work = (escort.spread * path.u * slope(path)).sum(-1)
        gain = (rate(path) + path.growth + work).double()
        dt = path.dt.double().reshape(-1, *[1] * (gain.dim() - 1))
        each = dt * (gain[:-1] + gain[1:]) / 2
        return torch.cat([torch.zeros_like(each[:1]), each.cumsum(0)])

    def log_ratio(self, escort: Escort, path: EscortPath) -> Float[Tensor, " *b"]:
        return path.height[-1].double() - self.along(escort, path)[-1]


def slope(path: EscortPath) -> Float[Tensor, " k1 *b d"]:
    """grad log pi_t = s + grad r_t at every point."""
    return path.score + path.pull


def rate(path: EscortPath) -> Float[Tensor, " k1 *b"]:
    """dA/dt where w = 0: d/dt r_t + v . grad r_t at every point."""
    return path.change + (path.velocity * path.pull).sum(-1)


@dataclass(frozen=True)
class Escort(Borrowed):
    """The chain: Euler steps on the base's grid, both ways, with noise 2 eps_t dt.

    `diffusion` is eps_t of every step, length^2, that of its earlier end."""

    path: ClassVar[type[Path]] = EscortPath
    flow: Noising  # the base
    reward: Reward
    annealing: Annealing
    diffusion: tuple[float, ...]
    weighing: Weighing

    @cached_property
    def stds(self) -> list[float]:
        """sqrt(2 eps_t dt) of every step."""
        return [
            math.sqrt(2 * eps * (t - s))
            for eps, (s, t) in zip(self.diffusion, itertools.pairwise(self.times), strict=True)
        ]

    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        """w = 0, for a value and a gradient of r."""
        return Kernel(self._moved(x, self._tilt(x, k), k, k + 1)[0], self.stds[k])

    def backward(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        return Kernel(self._moved(x, self._tilt(x, k + 1), k + 1, k)[0], self.stds[k])

    def log_ratio(self, path: Path) -> Float[Tensor, " *b"]:
        return self.weighing.log_ratio(self, escorted(path))

    def log_law_over_chain(self, path: Path) -> Float[Tensor, " *b"]:
        return self.weighing.log_law_over_chain(self, escorted(path))

    def tempered(self, path: Path, factor: Tensor) -> EscortPath:
        """r_t is linear in r, so that all of it that a path has met grows by `factor`."""
        here = escorted(path)
        pull = factor * here.pull
        dt = here.dt.reshape(-1, *[1] * (here.x.dim() - 1))
        climb = constant(self.diffusion, here.x).reshape(dt.shape) * dt
        return replace(
            here,
            mean=here.mean + climb * (pull - here.pull)[:-1],
            hint=None if here.hint is None else pull,
            pull=pull,
            height=factor * here.height,
            change=factor * here.change,
        )

    def log_w_along(self, path: Path) -> Float[Tensor, " k1 *b"]:
        """A_k at every point: weighted by exp A_k, x_k is drawn from pi_t at t = t_k."""
        return self.weighing.along(self, escorted(path))

    def simulate(
        self,
        model: Controlled,
        shape: tuple[int, ...],
        generator: Generator,
        guided: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> EscortPath:
        """Paths forward from X_0 ~ p_0: a value and a gradient of r at each of the K + 1 points."""
        x = self.start(shape, generator, dtype)
        return self._walk(model, x, range(self.steps + 1), generator, guided)

    def retrace(
        self,
        model: Controlled,
        x_end: Float[Tensor, "*b d"],
        generator: Generator,
        guided: bool = False,
    ) -> EscortPath:
        """Paths of the reversed chain, drift v + w - eps (s + grad r_t), from X_1 = x_end."""
        return self._walk(model, x_end, range(self.steps, -1, -1), generator, guided)

    def _walk(
        self, model: Controlled, x: Tensor, order: range, generator: Generator, guided: bool
    ) -> EscortPath:
        """Points of the grid in the given order, forward or backward in time."""
        control = model.on_grid(self.grid(x))
        noise = iter(self.normal((self.steps, *x.shape), generator, x.dtype).unbind(0))
        xs, us, tilts, flows = [], [], [], []
        for k in order:
            tilt = self._tilt(x, k)
            u = control(x, k, tilt.pull if guided else None)
            j = k if k == order[-1] else k + order.step
            moved, flow = self._moved(x, tilt, k, j)
            xs.append(x)
            us.append(u)
            tilts.append(tilt)
            flows.append(flow)
            if j != k:
                dt = self.times[j] - self.times[k]
                steered = torch.add(moved, u, alpha=dt * self.spread)
                x = torch.add(steered, next(noise), alpha=self.stds[min(j, k)])
        in_time = slice(None, None, order.step)
        return self._recorded(xs[in_time], us[in_time], tilts[in_time], flows[in_time], guided)

    def _recorded(
        self,
        xs: list[Tensor],
        us: list[Tensor],
        tilts: list[Annealed],
        flows: list[Current | None],
        guided: bool,
    ) -> EscortPath:
        x, pull = torch.stack(xs), torch.stack([tilt.pull for tilt in tilts])
        velocity, score = self.flow.currents(x, flows)
        height, change = self.annealing.along(self.flow, tilts)
        t = self.grid(x).clone()
        dt = t.diff().reshape(-1, *[1] * (x.dim() - 1))
        climb = constant(self.diffusion, x).reshape(dt.shape) * dt
        mean = x[:-1] + dt * velocity[:-1] + climb * (score[:-1] + pull[:-1])
        return EscortPath(
            t,
            x,
            mean,
            constant(self.stds, x).clone(),
            u=torch.stack(us),
            hint=pull if guided else None,
            velocity=velocity,
            score=score,
            pull=pull,
            height=height,
            change=change,
        )

    def _tilt(self, x: Tensor, k: int) -> Annealed:
        return self.annealing.at(self.flow, self.reward, x, k)

    def _moved(self, x: Tensor, tilt: Annealed, k: int, j: int) -> tuple[Tensor, Current | None]:
        """The mean from t_k to its neighbour t_j, with the flow, and uphill whichever way time
        runs; and what was met of the flow."""
        dt, eps = self.times[j] - self.times[k], self.diffusion[min(j, k, self.steps - 1)]
        carried, flow = self.flow.carried(x, k, dt, eps * abs(dt))
        return torch.add(carried, tilt.pull, alpha=eps * abs(dt)), flow
