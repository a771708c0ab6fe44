"""Local score matching: the gradient only where a well, not the base, is as narrow as the noise.

omega = alpha^2 v / (alpha^2 v + beta^2) of `_matching`, v = spread^2 / NARROW the variance of X_1
within a well, on end points of the present control resampled by their path weights:

    T = X_1 + (alpha v / D) (X_t - alpha X_1) + (v beta^2 / D) g,     D = alpha^2 v + beta^2.

For p* = N(m, v) T is E*[X_1 | X_t], without variance.  Novel score matching and adjoint sampling
have s^2 = spread^2 in the place of v, right for a target as wide as the base.  Where wells are
narrow that multiplies g, whose square is rank / v, before the noise has chosen a well: early in
time nearly all of their variance.  A value and a gradient of the reward an end point.  Times are
uniform, one an end point at every use.
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, regress_on_grid
from tiltbench.samplers.losses._matching import SLOPES, Blend, matching, noising, target, times
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.weights import resample, temper
from tiltbench.targets.bases.noising import Noising
from tiltbench.targets.bases.process import Process
from tiltbench.targets.checks import Checks

NARROW = 100.0  # (base's rms coordinate / a well's)^2: both dw4 and lj13 are near it
LEAST_ESS = 0.5  # lower than elsewhere: the control has far to go, and its end points are kept


def local(base: Noising) -> Blend:
    """omega = alpha^2 v / (alpha^2 v + beta^2)."""
    v, move, slope = base.spread**2 / NARROW, [], []
    for alpha, beta in zip(base.signals[:-1], base.noises[:-1], strict=True):
        d = alpha * alpha * v + beta * beta
        move.append(alpha * v / d if d else 0.0)
        slope.append(v * beta * beta / d if d else 0.0)
    return Blend(move, slope, [1.0] * base.steps)


def halved(log_w: Float[Tensor, " n"], generator: Generator, checks: Checks) -> Int[Tensor, " n"]:
    """By w^beta, beta the largest exponent in [0, 1] that keeps the ESS at LEAST_ESS."""
    return resample(temper(log_w, LEAST_ESS) * log_w, len(log_w), generator, checks)


_shared = matching("local_score_matching", local, SLOPES, halved)


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    if model.guided:  # points where a hint was paid
        return _shared.value(model, process, batch, generator)
    base, x1 = noising(process), batch["x1"]
    blend = local(base)
    k = times(blend.emphasis, len(x1), generator)
    x = base.renoise(x1, k, generator)
    return regress_on_grid(model, base, x, k, target(base, blend, x, k, x1, batch["g"]))


local_score_matching = Loss(
    "local_score_matching", _shared.label, value, _shared.price, any_law=True
)
"""Local score matching, weights tempered to an ESS of 0.5."""
