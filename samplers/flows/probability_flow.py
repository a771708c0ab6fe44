"""log q(x) and draws of a model by the ODE of its probability flow (arXiv 2011.13456, 4.3).

A control displaces the denoiser of its base, E_u[X_1 | x] = E_base[X_1 | x] + u / lift, and any
denoiser along a noising has a flow, here in the coordinates of `Continuous`:

    dy / d angle = cos(angle) E_u[X_1 | y] / spread - sin(angle) E_u[xi | y],    y_0 ~ N(0, I),

which in the time of the process is dX = (v_base + eta u / sigma) dt, v_base + sigma u / 2 with the
memoryless noise.  x = spread y at the end, so that by the change of variables

    log q(x) = log N(y_0; 0, I) - int div d angle - rank log(spread).

*Which law this is.*  q is the law of the ODE, whatever the control.  The controlled SDE, whose law
draws and path weights are of, has the same marginals where s_base + u / sigma is the score of its
own marginals: at the optimum u* of a memoryless base, and wherever the displaced denoiser is that
of the model's own end.  Elsewhere the two laws differ, and q is that of the ODE alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.flows.divergence import Divergence, along
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.continuous import Continuous
from tiltbench.targets.bases.process import Controlled, Process
from tiltbench.targets.checks import Diverged

REMEMBERED = 0.05  # corr(X_0, X_1) from which on a control does not stand for a denoiser


@dataclass(frozen=True)
class Solver:
    """Dormand and Prince's pair of order 5 with adaptive steps (torchdiffeq, `dopri5`).

    A step is accepted where, at the worst point of the batch, the root mean square over coordinates
    and log-density of error / (atol + rtol |value|) is at most 1, so that no point hides behind the
    others; a point's solution still depends, within the tolerance, on the batch it is solved in.
    No step turns by more than `longest`, because the estimate of its error is blind to what
    oscillates within it, as networks told the time by Fourier features do.  The steps are chosen on
    the host, which waits for the device at each."""

    rtol: float = 1e-6
    atol: float = 1e-6
    longest: float = 0.05  # radians, of the pi / 2 in all
    most: int = 5_000  # evaluations of the velocity

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            if not 1e-12 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 1e-12 to 1")
        if not self.longest > 0:
            raise ValueError(f"longest is {self.longest}; it must be positive")
        if self.most < 10:
            raise ValueError(f"most is {self.most}; a single step takes 10 evaluations")

    def solve(
        self, f: Callable[[float, Tensor], Tensor], state: Tensor, start: float, end: float
    ) -> tuple[Tensor, int]:
        """The state (n, m) at `end` and the number of evaluations of f.

        Raises Diverged where these are more than `most`, or a state is not finite."""
        from torchdiffeq import odeint  # here: it imports SciPy's integrators

        counted = itertools.count(1)
        evaluations = 0

        def velocity(t: Tensor, state: Tensor) -> Tensor:
            nonlocal evaluations
            evaluations = next(counted)
            if evaluations > self.most:
                raise Diverged(
                    f"the flow's ODE takes more than {self.most:,} evaluations at rtol "
                    f"{self.rtol:g}: raise rtol and atol, or allow more (most)"
                )
            return f(float(t), state)

        grid = torch.tensor([start, end], dtype=torch.float64, device=state.device)
        # without step_t the last step would lead beyond the end, where there is no velocity
        options = {"norm": _worst, "dtype": torch.float64, "step_t": grid[1:]}
        options["max_step"] = self.longest
        tolerance = {"rtol": self.rtol, "atol": self.atol}
        try:
            states = odeint(velocity, state, grid, method="dopri5", options=options, **tolerance)
        except AssertionError as error:  # so torchdiffeq says it: a step too short, or not finite
            raise Diverged(
                f"the flow's ODE cannot be solved, {_reason(error)}: the velocity is not "
                "finite, or it jumps"
            ) from error
        return states[-1], evaluations


def _worst(error: Float[Tensor, "n m"]) -> Tensor:
    """The root mean square of the worst point."""
    return error.square().mean(-1).amax().sqrt()


def _reason(error: Exception) -> str:
    return str(error).partition(":")[0]


class Solved(NamedTuple):
    """Points with their log-densities, float64."""

    x: Float[Tensor, "n d"]
    log_q: Float[Tensor, " n"]
    noise: Float[Tensor, " n"]  # the variance of log_q by random directions; 0: exact
    evaluations: int  # of the velocity, at all points


@dataclass(frozen=True)
class ProbabilityFlow:
    """The flow of `base` displaced by `control`; None: of the base itself.

    Raises Unsupported for a base that is known on its grid only, and for a control on a base that
    remembers its start: its marginals are no noising of its end, and no ODE is known."""

    base: Process
    dim: int
    control: Controlled | None = None
    solver: Solver = Solver()

    def __post_init__(self) -> None:
        if not isinstance(self.base, Continuous):
            raise Unsupported(
                f"{type(self.base).__name__} is known on its grid only, and has no flow: a base "
                "along an interpolant or a Gaussian reference has one"
            )
        if self.control is not None and self.base.memory > REMEMBERED:
            raise Unsupported(
                f"the base is not memoryless, corr(X_0, X_1) = {self.base.memory:.2g}: no flow has "
                "the marginals of its controlled paths"
            )

    def velocity(self) -> Callable[[float, Tensor], Tensor]:
        """(angle, y) -> dy / d angle."""
        assert isinstance(self.base, Continuous)
        base, control, (_, last) = self.base.precise(), self.control, self.base.angles

        def f(angle: float, y: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
            at = base.moment(angle)
            end, xi = base.ends(y, at)
            turn = at.noise / base.spread * end - at.signal * base.spread * xi
            reach = base.reach(at.t) if control is not None and angle < last else 0.0
            if reach == 0:
                return turn
            assert control is not None
            x = at.size * y
            u = control.control(x, x.new_full(x.shape[:-1], at.t))
            return turn + reach / (base.spread * at.noise) * u

        return f

    def draw(self, n: int, divergence: Divergence, generator: Generator) -> Solved:
        """n draws with their log-densities, from noise to data."""
        shape = (n, self.dim)
        y = self.base.normal(shape, generator, torch.float64)
        first, last = self._angles
        end, each, evaluations = self._carried(y, first, last, divergence, generator)
        log_q = self._log_start(y) - divergence.total(each) - self._log_size
        return Solved(self.base.spread * end, log_q, divergence.noise(each), evaluations)

    def log_density(
        self, x: Float[Tensor, "n d"], divergence: Divergence, generator: Generator
    ) -> Solved:
        """log q at given points, from data to noise; the generator is for random directions."""
        y = self.base.project(x.double()) / self.base.spread
        first, last = self._angles
        start, each, evaluations = self._carried(y, last, first, divergence, generator)
        log_q = self._log_start(start) + divergence.total(each) - self._log_size
        return Solved(x, log_q, divergence.noise(each), evaluations)

    @property
    def _angles(self) -> tuple[float, float]:
        assert isinstance(self.base, Continuous)
        return self.base.angles

    def _carried(
        self,
        y: Float[Tensor, "n d"],
        start: float,
        end: float,
        divergence: Divergence,
        generator: Generator,
    ) -> tuple[Tensor, Tensor, int]:
        """y at `end`, what div integrates to in each direction, and the evaluations taken."""
        f, directions = self.velocity(), divergence.directions(self.base, tuple(y.shape), generator)

        def both(angle: float, state: Tensor) -> Tensor:
            return torch.cat(along(lambda y: f(angle, y), state[:, : self.dim], directions), -1)

        state = torch.cat([y, y.new_zeros(len(y), len(directions))], -1)
        end_state, evaluations = self.solver.solve(both, state, start, end)
        return end_state[:, : self.dim], end_state[:, self.dim :], evaluations

    def _log_start(self, y: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        rank = self.dim - self.base.removed
        return -y.square().sum(-1) / 2 - rank / 2 * math.log(2 * math.pi)

    @property
    def _log_size(self) -> float:
        return (self.dim - self.base.removed) * math.log(self.base.spread)
