"""Monte Carlo score matching (iDEM): regress u on a self-normalised estimate of u* at X_t.

u*(x, t) = sigma grad log E_base[exp r(X_1) | X_t = x].  With DRAWS exact draws X_i of X_1 | X_t = x
under the base, which takes a base with a known posterior,

    y = sum_i softmax(r(X_i)) (target of novel score matching at X_i),

finite at every t.  With a flat prior, s -> infinity, X_i ~ N(x / alpha, (beta / alpha)^2) and y is
the estimator of iDEM (arXiv 2402.06121, section 3) in control units.  The points x are end points
of the present control, noised, and the ring of kept batches is its buffer: any x will do, so no
weights are needed.  A ratio of means is biased by O(1 / DRAWS), the more the less the draws know
of p*: by 4 per cent of |u*| with 32 draws on a linear tilt of a mixture at t = .2.  DRAWS values
and gradients of the reward a path.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tiltbench.samplers.loss import Batch, Loss, hints, regress_on_grid, reward_and_grad
from tiltbench.samplers.losses._matching import target, times
from tiltbench.samplers.losses.novel_score_matching import novel
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.noising import Known
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem

DRAWS = 32


def label(problem: Problem, model: Model, path: Path, share: float, generator: Generator) -> Batch:
    base = known(problem.base)
    blend = novel(base)
    k = times(blend.emphasis, path.x.shape[1], generator)
    x = base.renoise(path.x[-1], k, generator)
    y = estimate(problem, base, x, k, DRAWS, generator)
    batch = {"x": x, "k": k, "y": y}
    if not model.guided:
        return batch
    return {**batch, "hint": reward_and_grad(problem, x)[1]}


def estimate(
    problem: Problem, base: Known, x: Tensor, k: Tensor, draws: int, generator: Generator
) -> Tensor:
    """u*(x, t_k) up to O(1 / draws); x (b, d), k (b,)."""
    ends = base.posterior(x.expand(draws, *x.shape), k.expand(draws, -1), generator)
    r, g = reward_and_grad(problem, ends)
    weight = torch.softmax(r.clamp(min=torch.finfo(r.dtype).min), 0)[..., None]  # -inf is legal
    many = k.expand(draws, -1)
    x = x.expand_as(ends)
    y = target(base, novel(base), x, many, ends, g + base.score(ends, base.steps))
    return (weight * y).sum(0)


def value(model: Model, process: Process, batch: Batch, generator: Generator) -> Tensor:
    x, k, y = (batch[key] for key in ("x", "k", "y"))
    return regress_on_grid(model, process, x, k, y, batch.get("hint"))


def price(paths: int, steps: int, guided: bool) -> Cost:
    noised = Cost(paths, paths) if guided else Cost()
    sampled = Cost(DRAWS * paths, DRAWS * paths)
    return sampled.plus(noised).plus(hints(paths, steps, guided))


def known(process: Process) -> Known:
    if not isinstance(process, Known):
        raise Unsupported("Monte Carlo score matching needs a base with a known posterior of X_1")
    return process


monte_carlo_score_matching = Loss("monte_carlo_score_matching", label, value, price, any_law=True)
