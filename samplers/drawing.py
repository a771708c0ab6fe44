"""What a control hands over: draws with their weights, and the weights of given ends and paths."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.at_once import at_once
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.recipes.recipe import Recipe
from tiltbench.samplers.sampler import Draws, Traced
from tiltbench.targets.bases.process import Path
from tiltbench.targets.checks import Diverged
from tiltbench.targets.problem import Problem, log_weight

CHUNK = 2048  # paths simulated `at_once` when drawing: bounds the memory


@torch.no_grad()
def sample(posed: Problem, recipe: Recipe, model: Model, n: int, generator: Generator) -> Draws:
    """n draws of the recipe's chain.  Raises Diverged where a path leads to no finite point."""
    xs, log_ws, groups = [], [], []
    most = at_once(CHUNK, posed.dim, generator.device)
    for start in range(0, n, most):
        with posed.checks.together():
            path = recipe.simulate(posed, model, min(most, n - start), generator)
            path = recipe.weighed(posed, model, path)
            x = path.x[-1]
            posed.checks.never(~x.isfinite().all(), _lost)
            xs.append(x)
            log_ws.append(log_weight(posed, path))
            if (group := recipe.groups(posed, path)) is not None:
                groups.append(start + group)
    group = torch.cat(groups) if groups else None
    return Draws(torch.cat(xs), torch.cat(log_ws), group)


def _lost() -> Diverged:
    return Diverged("the trained control leads to infinite or undefined points")


@torch.no_grad()
def traced(
    posed: Problem,
    recipe: Recipe,
    model: Model,
    x: Float[Tensor, "*k1 n d"],
    paths: Callable[[Tensor], Path | None],
) -> Traced | None:
    """The weights of `paths` (ends or points of paths).  None where there are no paths."""
    log_ws, xs, us, t = [], [], [], None
    for part in x.float().split(at_once(CHUNK, posed.dim, x.device), dim=-2):
        with posed.checks.together():
            path = paths(part)
            if path is None:
                return None
            path = recipe.weighed(posed, model, path)
            log_ws.append(log_weight(posed, path))
        xs.append(path.x)
        us.append(path.u)
        t = path.t
    return Traced(torch.cat(log_ws), t, torch.cat(xs, 1), torch.cat(us, 1))
