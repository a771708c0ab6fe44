"""The bias of plug-in guidance on one Gaussian, in closed form (arXiv 2606.02884 asks for it).

The base is N(m, v I), the reward r(x) = -|x - y|^2 / (2 p), and guidance of strength s steers by
grad r of the posterior mean.  Let M_t = E[X_1 | X_t], a_t its gain, so that M = a_t X + const.
Under the base M is a martingale, dM = a sigma dW, whose clock q = int (a sigma)^2 dt runs from 0 at
pure noise to v at the end.  The control is s sigma a grad r(M), hence along that clock

    dM = -(s / p) (M - y) dq + dB_q,   M = m at q = 0,   X_1 = M at q = v:

an Ornstein-Uhlenbeck process, whatever the schedule.  So the guided law is Gaussian with

    mean  y + (m - y) exp(-s v / p),   variance  (p / 2s) (1 - exp(-2 s v / p)),

where the tilted law has mean y + (m - y) / (1 + s v / p) and variance v / (1 + s v / p).
As exp(-z) < 1 / (1 + z) and (1 - exp(-2z)) / 2 < z / (1 + z) for z > 0, guidance overshoots towards
the reward's best point and is too narrow.

Of the chain with K steps the same holds exactly with the sum of steps of length dq_k = (a_{k+1}
std_k)^2, which is Euler's scheme for that process: M - y is multiplied by 1 - s dq_k / p and gains
the variance dq_k.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from tiltbench.samplers.baselines.guidance import Guidance
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.problem import Problem, graded
from tiltbench.targets.tilts.tilt_quadratic import TiltQuadratic


class Law(NamedTuple):
    """N(y + kept (m - y), variance I): how much of the way to y is left, and the spread."""

    kept: float
    variance: float


def tilted(v: float, power: float, strength: float = 1.0) -> Law:
    """Of p_base exp(strength r), which guidance is to draw from."""
    z = 1 + strength * v / power
    return Law(1 / z, v / z)


def guided(v: float, power: float, strength: float = 1.0) -> Law:
    """Of plug-in guidance in continuous time."""
    z = strength * v / power
    return Law(math.exp(-z), -math.expm1(-2 * z) * v / (2 * z) if z else v)


def stepped(clock: Iterable[float], power: float, strength: float = 1.0) -> Law:
    """The same of a chain whose steps take the lengths dq_k of the `clock`."""
    kept, variance = 1.0, 0.0
    for dq in clock:
        pull = 1 - strength * dq / power
        kept, variance = pull * kept, pull * pull * variance + dq
    return Law(kept, variance)


def clock(base: MixtureFlow) -> list[float]:
    """dq_k of every step of a base of one component."""
    (v,) = base.variances
    gains = [a * v / (a * a * v + b * b) for a, b in zip(base.signals, base.noises, strict=True)]
    return [(gain * std) ** 2 for gain, std in zip(gains[1:], base.stds, strict=True)]


class SampledLaw(NamedTuple):
    """Guidance as it runs, on one Gaussian: what is left of the way to y, the variance, and the
    standard error of each."""

    kept: float
    kept_se: float
    variance: float
    variance_se: float


def sampled(base: MixtureFlow, strength: float, n: int, seed: int, device: str) -> SampledLaw:
    """n draws of `guidance` on the reward of `tilt_quadratic`; the coordinates serve as repeats."""
    target = TiltQuadratic()
    problem = Problem(target.dim, base, graded(target.reward))
    source = torch.Generator(device).manual_seed(seed)
    x = Guidance(strength=strength).draw(problem, None, n, source).x.double().cpu()
    way = torch.tensor(base.means[0], dtype=torch.float64) - torch.tensor(target.centre).double()
    along = (x - torch.tensor(target.centre).double()) @ way / way.square().sum()
    squares = (x - x.mean(0)).square()
    each = squares.mean(-1)  # of a draw, over coordinates
    return SampledLaw(
        float(along.mean()),
        float(along.std() / math.sqrt(n)),
        float(each.mean()) * n / (n - 1),
        float(each.std() / math.sqrt(n)),
    )


def components(steps: int) -> Sequence[MixtureFlow]:
    """Each Gaussian of the base of `tilt_quadratic`, by itself."""
    whole = TiltQuadratic().base
    return [
        MixtureFlow((1.0,), (mean,), (variance,), whole.schedule, whole.stepping, steps)
        for mean, variance in zip(whole.means, whole.variances, strict=True)
    ]
