"""Target score matching: regress u on sigma (grad log p*(X_1) / alpha - grad log p_t), X_1 ~ p*.

omega = 1 of `_matching`: T = X_t / alpha + (beta / alpha)^2 g (arXiv 2402.08667; math.md 3) on end
points of the present control resampled by their path weights.  A value and a gradient of the reward
an end point.  Near alpha = 0 the target's standard deviation is 1/w times that of novel score
matching, w = alpha^2 s^2 / D: times are drawn with probability in proportion to lambda = w^2, which
bounds the expected square.  The control learns least there: the price of this target.  At a start
with alpha = 0 exactly the target does not exist, and omega = 0, lambda = 1 stand in at that one
time of the grid.
"""

from __future__ import annotations

from tiltbench.samplers.losses._matching import (
    SLOPES,
    Blend,
    matching,
    plain,
    share_of_signal,
    tempered,
)
from tiltbench.targets.bases.noising import Noising


def from_target(base: Noising) -> Blend:
    """omega = 1, but 0 where alpha = 0."""
    levels = list(zip(base.signals[:-1], base.noises[:-1], strict=True))
    move = [1 / alpha if alpha else 0.0 for alpha, _ in levels]
    slope = [(beta / alpha) ** 2 if alpha else 0.0 for alpha, beta in levels]
    emphasis = [w * w if w else 1.0 for w in share_of_signal(base)]
    return Blend(move, slope, emphasis)


target_score_matching = matching("target_score_matching", from_target, SLOPES, tempered)
"""Target score matching, weights tempered to an ESS of 0.8."""

target_score_matching_plain = matching("target_score_matching_plain", from_target, SLOPES, plain)
"""Target score matching, plain self-normalised weights."""
