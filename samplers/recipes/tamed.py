"""The problem that a control is trained on: a part of the tilt, with its gradient clipped.

One point far out, where grad r is a million times what it is elsewhere, must not throw the control
out after it.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.samplers.recipes.recipe import Recipe
from tiltbench.samplers.tempering import tempered
from tiltbench.targets.problem import Graded, Problem, graded


def tamed(problem: Problem, recipe: Recipe, tilt: float, steepest: float) -> Problem:
    """The problem of tilt r on the recipe's chain, with grad r clipped to length `steepest` sqrt(D)
    / spread; r itself is left as it is."""
    most = tilt * steepest * math.sqrt(problem.dim) / problem.base.spread

    bare = tempered(graded(problem.reward, problem.checks), tilt)
    if tilt < 1:
        problem = replace(problem, reward=bare)

    def reward(x: Tensor) -> Tensor:
        return bare.value(_ClippedGrad.apply(x, most) if torch.is_grad_enabled() else x)

    def with_grad(x: Tensor) -> tuple[Tensor, Tensor]:
        r, g = bare.value_and_grad(x)
        return r, clipped(g, most)

    short = Graded(reward, with_grad, problem.checks)
    return Problem(problem.dim, recipe.process(problem, short), short, problem.checks)


class _ClippedGrad(torch.autograd.Function):
    """Identity whose gradient is shortened to length `most` at each point."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float) -> Tensor:
        ctx.most = most
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return clipped(grad[0], ctx.most), None


def clipped(g: Float[Tensor, "*b d"], most: float) -> Float[Tensor, "*b d"]:
    """g shortened to length `most` at each point."""
    # in float64, or the squares of g may overflow
    length = torch.linalg.vector_norm(g, dim=-1, keepdim=True, dtype=torch.float64)
    return g / (length / most).clamp(min=1).to(g)
