"""The truth of tilts of the digits: 50,000 stored draws of the base, weighed by exp r.

Of p*(x) = p_base(x) exp r(x) / Z nothing is closed form, but draws of p_base are to be had at will:
`tiltbench base digits --kind draws` stored those of the flow's memoryless chain in 50 steps.  They
are rounded to float16, by about 2e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.digits.digits import CLASSES, DIM, digits, log_classes
from tiltbench.targets.digits.images import ink, sharpness
from tiltbench.targets.target import Modes, Observable, Truth, table
from tiltbench.targets.truths.stored import without_replacement

COUNT = 50_000
PART = 500  # images that a network sees at once: more leave the cache and take 3 times as long
STORED = "digits_flow_draws"
SEED, AT_ONCE = 3, 2_000  # of the generator that the stored draws were made with; paths at once
ROUNDED = 0.02  # float16, and another processor's sums
LEAST = 50  # effective draws: fewer know neither log Z nor its error
Statistic = Callable[[Tensor], Tensor]
STATISTICS: Mapping[str, Statistic] = {"ink": ink, "sharpness": sharpness}


def draws(like: Tensor) -> Float[Tensor, "n 64"]:
    """The 50,000 on the device and in the dtype of `like`."""
    return table(STORED, like)


@torch.no_grad()
def tilted(reward: Statistic) -> Truth:
    """Self-normalised importance sampling (Owen, mcbook 9.2) for numbers, rejection for draws.

    w = exp r, ess = (sum w)^2 / (n sum w^2); log Z = log mean w, its error
    sqrt((1/ess - 1) / n); E f = sum w f / sum w, its error sqrt(sum w^2 (f - E f)^2) / sum w.  Row
    i is an exact draw of p* where a uniform u_i, fixed once, is below w_i / max w: the largest of
    the 50,000 stands for the bound on w (empirical supremum rejection, Caffo, Booth and Davis
    2002).  Modes are the digits as the classifier sees them.
    """
    x = draws(torch.empty(0))
    r = torch.cat([reward(part) for part in x.split(PART)]).double()
    n, most = len(r), r.max()
    w = (r - most).exp()
    share = w / w.sum()
    ess = 1 / float(share.square().sum())
    if not ess >= LEAST:
        return Truth(f"unknown: {n:,} draws of the base are worth {ess:.1f}, fewer than {LEAST}")
    accepted = torch.from_numpy(np.random.RandomState(0).random_sample(n)) < w
    weight = torch.zeros(CLASSES, dtype=torch.float64).index_add(0, _seen(), share)

    def known(f: Statistic) -> Observable:
        values = f(x).double()
        mean = (share * values).sum()
        far = (values - mean).square()
        se = float((share.square() * far).sum().sqrt())
        return Observable(f, float(mean), float((share * far).sum().sqrt()), se)

    rows = accepted.nonzero()[:, 0]

    def sample(count: int, generator: Generator) -> Float[Tensor, "n 64"]:
        return without_replacement(x[rows], count, generator, "these digits").double()

    def paths(count: int, generator: Generator) -> Float[Tensor, "k1 n 64"]:
        return reproduce_paths(without_replacement(rows, count, generator, "these digits"))

    return Truth(
        f"importance sampling: ESS {ess:,.0f} of {n:,} draws of the base, {len(rows):,} accepted",
        log_Z=float(most + w.mean().log()),
        log_Z_se=math.sqrt((n / ess - 1) / n),
        sample=sample,
        held=len(rows),
        modes=Modes(weight, lambda x: log_classes(x).argmax(-1)),
        observables={name: known(f) for name, f in STATISTICS.items()},
        paths=paths,
    )


@torch.no_grad()
def reproduce_paths(rows: Int[Tensor, " n"]) -> Float[Tensor, "k1 n 64"]:
    """The paths of the base's chain that ended in these of the COUNT draws, float32, from the noise
    they were made with: that of `SEED`, for AT_ONCE paths at a time.

    Raises RuntimeError where the ends are not those that are stored."""
    base, source, device = digits(), Generator().manual_seed(SEED), rows.device
    here = rows.cpu()
    start, noise = torch.empty(len(here), DIM), torch.empty(base.steps, len(here), DIM)
    last = int(here.max()) if len(here) else -1
    for first in range(0, last + 1, AT_ONCE):  # in the order of `simulate`
        x, xi = (
            base.start((AT_ONCE, DIM), source, torch.float32),
            base.normal((base.steps, AT_ONCE, DIM), source, torch.float32),
        )
        mine = ((here >= first) & (here < first + AT_ONCE)).nonzero()[:, 0]
        start[mine], noise[:, mine] = x[here[mine] - first], xi[:, here[mine] - first]
    points = [start.to(device)]
    for k, xi in enumerate(noise.to(device)):
        mean, std = base.base(points[-1], k)
        points.append(torch.add(mean, xi, alpha=std))
    if not (points[-1] - draws(points[-1])[rows]).abs().max() < ROUNDED:
        raise RuntimeError(
            "the paths of the stored draws of digits cannot be made again: this torch draws other "
            "normal numbers from a seed"
        )
    return torch.stack(points)


@lru_cache(maxsize=1)
def _seen() -> Int[Tensor, " n"]:
    """The digit that each draw shows."""
    parts = draws(torch.empty(0)).split(PART)
    return torch.cat([log_classes(part).argmax(-1) for part in parts])
