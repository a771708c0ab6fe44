"""One problem for everything: draw from p*(x) proportional to p_base(x) exp r(x) (math.md 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.bases.confined import Confined
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Process
from tiltbench.targets.purity import pure
from tiltbench.targets.target import Density, Target, Tilt

Reward = Callable[[Tensor], Tensor]  # (*b, D) -> (*b,), nats


class Diverged(ArithmeticError):
    """A number that must be finite is not; the message says which, where, and how many."""


@dataclass(frozen=True)
class Problem:
    """All that a sampler sees: E_base[exp r(X_1)] = Z."""

    dim: int
    base: Process
    reward: Reward


def pose(
    target: Target, reference: Linear, watch: Callable[[Reward], Reward] = lambda f: f
) -> Problem:
    """The problem of `target`; densities use `reference` widened by the public scale.

    `watch` wraps the reward once (the meter).  Evaluating log rho to NaN or +inf raises Diverged.
    Raises ValueError where the geometry that the target states does not fit it (`misfit`).
    """
    if wrong := misfit(target):
        raise ValueError(f"{wrong.what}: {wrong.remedy}")
    match target:
        case Density():
            base = reference.widened(target.scale)
            if target.particles or target.lattice:
                base = Confined(base, target)
            sound = checked(target.log_rho, f"log rho of {target.name}", target.dim)

            def reward(x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
                x = target.project(x)  # so that the gradient lies on the subspace too
                return sound(x) - base.log_end(x)

            return Problem(target.dim, base, watch(reward))
        case Tilt():
            sound = checked(target.reward, f"the reward of {target.name}", target.dim)
            return Problem(target.dim, target.base, watch(lambda x: sound(target.project(x))))
    raise TypeError(f"{type(target).__name__} must extend Density or Tilt to be sampled")


class Misfit(NamedTuple):
    """What is wrong with the geometry that a target states, and what to do about it."""

    what: str
    remedy: str


def misfit(target: Target) -> Misfit | None:
    """Why `particles` or `lattice` cannot be those of the target; None where they can."""
    if target.particles and math.prod(target.particles) != target.dim:
        n, d = target.particles
        return Misfit(
            f"{n} particles in {d} dimensions are not the {target.dim} coordinates of "
            f"{target.name}",
            "state particles = (n, d) with n d = dim",
        )
    if target.lattice and math.prod(target.lattice) != target.dim:
        return Misfit(
            f"a lattice of {target.lattice} has not the {target.dim} sites of {target.name}",
            "state the sides, whose product is dim",
        )
    if isinstance(target, Tilt) and target.base.removed != target.dim - target.rank:
        return Misfit(
            f"{target.name} has {target.rank} free dimensions, its base "
            f"{target.dim - target.base.removed}",
            "give the tilt a base that removes the centre of mass, or leave `particles` out",
        )
    return None


def tempered(problem: Problem, beta: float) -> Problem:
    """p_base exp(beta r): the same base, a weaker tilt."""
    return Problem(problem.dim, problem.base, lambda x: beta * problem.reward(x))


def checked(f: Reward, what: str, dim: int) -> Reward:
    """f, raising Diverged at NaN and +inf, and ValueError where it is not (*b, dim) -> (*b).

    -inf is zero density and passes.  Impure is raised where f changes its argument.  The values are
    a copy: f may return a view of its argument, or a tensor that it will write to again."""
    f = pure(f, what)

    def sound(x: Tensor) -> Tensor:
        if x.shape[-1] != dim:  # (1, n dim) would be charged as one point
            raise ValueError(f"{what} takes points of {dim} coordinates, not {x.shape[-1]}")
        y = f(x)
        if y.shape != x.shape[:-1]:
            raise ValueError(
                f"{what} has shape {tuple(y.shape)} at x of shape {tuple(x.shape)}; "
                f"it must be {tuple(x.shape[:-1])}, one number a point"
            )
        return _Checked.apply(y, x.detach(), what)

    return sound


class _Checked(torch.autograd.Function):
    """A copy of y; a Function with a vmap rule, so that points under vmap are seen too."""

    @staticmethod
    def forward(y: Tensor, x: Tensor, what: str) -> Tensor:
        bad = ~(y < torch.inf)  # NaN or +inf
        if bad.any():
            first = x.expand(*y.shape, x.shape[-1])[bad][0]
            shown = ", ".join(f"{v:.4g}" for v in first[:6].tolist())
            more = ", ..." if len(first) > 6 else ""
            value = y[bad][0].item()
            raise Diverged(
                f"{what} is {value} at {int(bad.sum())} of {y.numel()} points, "
                f"first at x = ({shown}{more})"
            )
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return grad[0], None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, y: Tensor, x: Tensor, what: str) -> Any:
        y, x = front(info, in_dims[0], y), front(info, in_dims[1], x)
        return _Checked.apply(y, x, what), 0


def front(info: Any, dim: int | None, x: Tensor) -> Tensor:
    """The batch dimension of a vmap rule's argument moved (or expanded) to the front."""
    return x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
