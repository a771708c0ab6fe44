"""Conditional score matching: regress u on sigma (grad log p(X_t|X_1) - grad log p_t), X_1 ~ p*.

omega = 0 of `_matching`: T = X_1, denoising score matching (Vincent, Neural Comput. 23, 1661, 2011;
math.md 3) on end points of the present control resampled by their path weights.  Values of the
reward only.  The conditional variance of the target grows like 1/(1 - t) as t -> 1 (math.md 7), so
times are drawn with probability in proportion to lambda = sqrt(1 - w), w = alpha^2 s^2 / D: the
expected square is then integrable for beta ~ (1 - t)^q, q = 1/2 or 1.
"""

from __future__ import annotations

from tiltbench.samplers.losses._matching import (
    VALUES,
    Blend,
    matching,
    plain,
    quiet_end,
    tempered,
    unweighted,
)
from tiltbench.targets.bases.noising import Noising


def conditional(base: Noising) -> Blend:
    """omega = 0."""
    none = [0.0] * base.steps
    return Blend(none, none, quiet_end(base))


conditional_score_matching = matching("conditional_score_matching", conditional, VALUES, tempered)
"""Conditional score matching, weights tempered to an ESS of 0.8."""

conditional_score_matching_plain = matching(
    "conditional_score_matching_plain", conditional, VALUES, plain
)
"""Conditional score matching, plain self-normalised weights."""

conditional_score_matching_unweighted = matching(
    "conditional_score_matching_unweighted", conditional, VALUES, unweighted
)
"""Negative control: conditional score matching without weights, which carries no signal.

One fit sends any u to sigma grad log(q_t / p_t), q the terminal law of P^u and q_t its noised law:
the control changes, the terminal law does not (math.md 3)."""
