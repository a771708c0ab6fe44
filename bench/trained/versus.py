"""Which of two samplers is nearer to a target whose truth is unknown, by the weights of both.

Sampler k makes x with a path from the law Q_k, and weighs it by W_k = rho(x) B_k(path | x) / Q_k,
B_k being the law of reverse paths from x; of a sampler with a density, q_k(x), W_k = rho / q_k.
Take x with two paths, one of each sampler: the target has p(x) B_1 B_2, and what sampler 1 makes
with a reverse path of sampler 2 from there has Q_1 B_2 = p B_1 B_2 Z / W_1.  Hence, exactly,

    E_m[(p B_1 B_2 / m) log (W_2 / W_1)] = KL(p B_2 | Q_2) - KL(p B_1 | Q_1),

m being the mixture of both, whose density over that of the target is Z (a / W_1 + (1 - a) / W_2),
a the share of draws of sampler 1 (the balance heuristic of Veach and Guibas, 1995).  log Z is in no
difference, and self-normalised weights need it nowhere.  Because draws of both are taken, a mode
that one of them misses counts against it; what both miss, nobody sees.

Of densities this is E_m[p log q_1 / q_2] / E_m[p], the difference of KL(p | q_2) and KL(p | q_1).
Of paths both terms are bounds from above, KL(p | q_k) <= KL(p B_k | Q_k), and the difference is
that of the bounds: EUBO_2 - EUBO_1, which the table has where exact draws are known.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench import estimators
from tiltbench.plan.errors import Refused
from tiltbench.samplers.weights import Estimate, ess
from tiltbench.trained.reload import Loaded, stream


class PathWeights(NamedTuple):
    """At draws of one sampler: log W of its own paths, and of the other's reverse paths."""

    forward: Float[Tensor, " n"]
    reverse: Float[Tensor, " n"]


class Nearer(NamedTuple):
    """By how many nats the first is nearer to the target than the second, with its error."""

    value: float
    se: float
    share: float  # effective, of the draws of both
    k_hat: float  # of their weights
    n: int

    @property
    def reliable(self) -> bool:
        """Whether the weights carry the number and its error (Vehtari et al., 2024)."""
        return math.isfinite(self.value) and not self.k_hat > estimators.steepest(self.n)


def nearer(one: PathWeights, two: PathWeights) -> Nearer:
    """KL(p B_2 | Q_2) - KL(p B_1 | Q_1), above 0 where the first is nearer; its error by the delta
    method, of two independent sets of independent draws."""
    n, m = len(one.forward), len(two.forward)
    first = torch.cat([one.forward, two.reverse]).double()  # log W_1
    second = torch.cat([one.reverse, two.forward]).double()
    share = math.log(n / (n + m)), math.log(m / (n + m))
    log_w = -torch.logaddexp(share[0] - first, share[1] - second)
    w = torch.exp(log_w - log_w.max())
    w = w / w.mean()
    difference = torch.where(w > 0, second - first, 0.0)
    value = float((w * difference).mean())
    rest = w * (difference - value)
    variance = sum(len(part) * float(part.var()) for part in rest.split([n, m]))
    k = estimators.k_hat(log_w)
    return Nearer(value, math.sqrt(variance) / (n + m), ess(log_w), k, n + m)


def versus(one: Loaded, two: Loaded, draws: int = 1_000) -> Nearer:
    """The same of two runs on one target, from `draws` of each and as many reverse paths of the
    other from there.

    Raises Refused where one of them has no weights a path, or no reverse paths."""
    return _between(one, two, weighed(one, draws), weighed(two, draws))


def _between(
    one: Loaded, two: Loaded, draws_one: WeightedDraws, draws_two: WeightedDraws
) -> Nearer:
    return nearer(
        PathWeights(draws_one.log_w, two.traced(draws_one.x, part=one.record.id)),
        PathWeights(draws_two.log_w, one.traced(draws_two.x, part=two.record.id)),
    )


class WeightedDraws(NamedTuple):
    x: Float[Tensor, "n d"]
    log_w: Float[Tensor, " n"]


def weighed(run: Loaded, draws: int) -> WeightedDraws:
    """Draws of a run with the log-weights of their paths, of a stream of its own: runs of one seed
    are independent here.  Raises Refused where there are none, or none of one path each."""
    sample, name = run.draw(draws, seed=stream(run.record.id)), run.record.labels["sampler"]
    if sample.log_w is None:
        raise Refused(f"{name} has no weights")
    if sample.group is not None:
        raise Refused(f"{name} weighs draws that depend on each other, not paths one by one")
    log_w = sample.log_w.detach().double().cpu()
    if len(log_w) < 2 or bool(log_w.isnan().any()) or log_w.max() == -torch.inf:
        raise Refused(f"{name} has no weights that are numbers")
    return WeightedDraws(sample.x.detach().cpu(), log_w)


@dataclass
class Compared:
    """Samplers of one target: by how many nats the first of a pair is nearer than the second, over
    all seeds, and why others cannot be compared, by sampler or by pair."""

    nearer: dict[tuple[str, str], Estimate]
    why: dict[str, str]


def compared(runs: Mapping[str, Sequence[Loaded]], draws: int) -> Compared:
    """Every two samplers, seed by seed in the order that they have here."""
    result, known = Compared({}, {}), dict[str, list[tuple[Loaded, WeightedDraws]]]()
    for name, loaded in runs.items():
        try:
            known[name] = [(run, weighed(run, draws)) for run in loaded]
            known[name][0][0].traced(known[name][0][1].x[:1])
        except Refused as error:
            known.pop(name, None)
            result.why[name] = str(error)
    for one, two in itertools.combinations(known, 2):
        pairs = list(zip(known[one], known[two], strict=False))
        seeds = [_between(a, b, draws_a, draws_b) for (a, draws_a), (b, draws_b) in pairs]
        if bad := [each for each in seeds if not each.reliable]:
            result.why[f"{one} and {two}"] = (
                f"the weights of their draws have too heavy a tail to tell: k_hat "
                f"{max(each.k_hat for each in bad):.2f} where "
                f"{estimators.steepest(bad[0].n):.2f} is the most"
            )
            continue
        mean = sum(each.value for each in seeds) / len(seeds)
        within = math.sqrt(sum(each.se**2 for each in seeds)) / len(seeds)
        values = torch.tensor([each.value for each in seeds], dtype=torch.float64)
        spread = float(values.std()) / math.sqrt(len(seeds)) if len(seeds) > 1 else 0.0
        result.nearer[one, two] = Estimate(mean, max(within, spread), len(seeds))
    return result
