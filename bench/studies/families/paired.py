"""Two methods on the same targets: the exact sign-flip test of their mean difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class SignFlipTest(NamedTuple):
    """a - b over targets."""

    mean: float
    se: float  # NaN for a single target
    ahead: int  # targets on which a is nearer
    behind: int
    p: float  # two-sided
    targets: int


def paired(differences: Sequence[float]) -> SignFlipTest:
    """Were both alike, every difference d_t would as well have the other sign: p is the share of
    the 2^n choices of signs with a sum as far from 0 (Fisher's randomisation test); NaN for none.
    """
    d = np.asarray(differences, dtype=float)
    n = len(d)
    if n == 0:
        return SignFlipTest(math.nan, math.nan, 0, 0, math.nan, 0)
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    sums = np.abs(signs @ d)
    p = float((sums >= abs(d.sum()) * (1 - 1e-12)).mean())
    se = float(d.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return SignFlipTest(float(d.mean()), se, int((d < 0).sum()), int((d > 0).sum()), p, n)
