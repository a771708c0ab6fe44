"""The axis on which laws of several samplers can be compared, where no exact draws set it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WIDER = 5.0  # times the usual spread: a set that is wider does not set the axis
AWAY = 20.0  # usual spreads: nor does one that is farther away
TAIL = 8.0  # spreads of its own from its median: what is farther does not count


def span(sets: Sequence[np.ndarray]) -> tuple[float, float]:
    """The interval that holds nearly all of each usual set of finite values: (0, 1) without any.

    The spread of a set is its interquartile range, the usual one the lower median of those that are
    not 0.  A set that is much wider than usual, or far away, lies partly or all outside: a handful
    of bad draws would flatten all others."""
    known = [values for values in sets if len(values)]
    if not known:
        return 0.0, 1.0
    middles = np.array([np.median(values) for values in known])
    spreads = np.array([np.subtract(*np.quantile(values, [0.75, 0.25])) for values in known])
    moved = np.flatnonzero(spreads > 0)
    if len(moved):
        usual = moved[np.argsort(spreads[moved], kind="stable")[(len(moved) - 1) // 2]]
        near = abs(middles - middles[usual]) <= AWAY * spreads[usual]
        kept = np.flatnonzero(near & (spreads <= WIDER * spreads[usual]))
    else:
        kept = np.arange(len(known))
    ends = []
    for k in kept:
        low, high = np.quantile(known[k], [0.001, 0.999])
        reach = TAIL * spreads[k]
        ends += [max(low, middles[k] - reach), min(high, middles[k] + reach)]
    return float(min(ends)), float(max(ends))
