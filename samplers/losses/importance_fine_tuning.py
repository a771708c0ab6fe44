"""Iterative importance fine-tuning: conditional score matching on a buffer of resampled end points.

Paths of the present control are filtered by their path weights, the survivors join a replay buffer
(the ring of kept batches), and the control is fitted to it many times between two simulations
(arXiv 2502.04468; math.md 3).  Values of the reward only.  Filters: resampling by self-normalised
weights; or relaxed rejection, accept with probability min(1, w / c), c the QUANTILE of the batch's
weights, whose survivors follow min(w, c) times the control's law: p* but for the weights above c,
and p* itself once the weights are equal.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.losses._matching import VALUES, matching, plain
from tiltbench.samplers.losses.conditional_score_matching import conditional
from tiltbench.samplers.weights import resample
from tiltbench.targets.checks import Checks

QUANTILE = 0.9
SHRINK = 0.01


def rejection(
    log_w: Float[Tensor, " n"], generator: Generator, checks: Checks
) -> Int[Tensor, " n"]:
    """The accepted ones, at least the n (1 - QUANTILE) points of the largest weights, each so often
    that they are n again: the number accepted stays on the device, and shapes do not change."""
    chance = (log_w - log_w.quantile(QUANTILE)).exp()
    draw = torch.rand(len(log_w), generator=generator, device=log_w.device, dtype=log_w.dtype)
    return resample(torch.where(draw < chance, 0.0, -torch.inf), len(log_w), generator, checks)


importance_fine_tuning = Preset(
    "importance_fine_tuning",
    Diffusion(matching("importance_fine_tuning", conditional, VALUES, plain), repeats=8, memory=16),
)
"""Iterative importance fine-tuning by resampling."""

importance_fine_tuning_rejection = Preset(
    "importance_fine_tuning_rejection",
    Diffusion(
        matching("importance_fine_tuning_rejection", conditional, VALUES, rejection),
        repeats=8,
        memory=16,
    ),
)
"""Iterative importance fine-tuning by relaxed rejection."""

importance_fine_tuning_kl = Preset(
    "importance_fine_tuning_kl",
    Diffusion(
        matching("importance_fine_tuning_kl", conditional, VALUES, plain, shrink=SHRINK),
        repeats=8,
        memory=16,
    ),
)
"""Iterative importance fine-tuning with a pull to the base, SHRINK E|u|^2 added to the regression.

The fixed point is u* / (1 + SHRINK), not u*: one per cent short.  Path weights stay exact."""
