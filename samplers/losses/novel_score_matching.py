"""Novel score matching: conditional and target score matching mixed to be finite at both ends.

omega = w = alpha^2 s^2 / D, D = alpha^2 s^2 + beta^2, of `_matching` (arXiv 2402.06320; math.md 3),

    T = X_1 + (alpha s^2 / D) (X_t - alpha X_1) + (s^2 beta^2 / D) g,

on end points of the present control resampled by their path weights.  A value and a gradient of the
reward an end point.  On a Gaussian base N(0, s^2 I) the target is that of adjoint sampling, a
function of X_1 only.  Times are uniform.
"""

from __future__ import annotations

from tiltbench.samplers.losses._matching import SLOPES, Blend, matching, plain, tempered
from tiltbench.targets.bases.noising import Noising


def novel(base: Noising) -> Blend:
    """omega = w; at a point start, which says nothing of X_1, as if alpha were 0 and beta not."""
    s2, move, slope = base.spread**2, [], []
    for alpha, beta in zip(base.signals[:-1], base.noises[:-1], strict=True):
        d = alpha * alpha * s2 + beta * beta
        move.append(alpha * s2 / d if d else 0.0)
        slope.append(s2 * beta * beta / d if d else s2)
    return Blend(move, slope, [1.0] * base.steps)


novel_score_matching = matching("novel_score_matching", novel, SLOPES, tempered)
"""Novel score matching, weights tempered to an ESS of 0.8."""

novel_score_matching_plain = matching("novel_score_matching_plain", novel, SLOPES, plain)
"""Novel score matching, plain self-normalised weights."""
