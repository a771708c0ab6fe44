"""One problem for everything: draw from p*(x) proportional to p_base(x) exp r(x) (math.md 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.bases.confined import Confined
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Path, Process
from tiltbench.targets.checks import Checks
from tiltbench.targets.checks import Diverged as Diverged  # met where the problem is
from tiltbench.targets.gradient import value_and_grad
from tiltbench.targets.purity import pure
from tiltbench.targets.target import Density, Target, Tilt

Function = Callable[[Tensor], Tensor]  # (*b, D) -> (*b,), nats
Both = Callable[[Tensor], tuple[Tensor, Tensor]]  # (*b, D) -> (*b,) and (*b, D)


class Graded(NamedTuple):
    """A reward with its gradient: r(x), through which autograd passes, and (r, grad r) at once,
    without a graph, which costs a fraction of asking autograd for it.

    grad r is 0 where r = -inf."""

    value: Function
    value_and_grad: Both
    checks: Checks

    def __call__(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        return self.value(x)

    def recorded(self, x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
        """`value_and_grad` with a graph, for whoever differentiates once more."""
        r = self.value(x)
        (g,) = torch.autograd.grad(r.sum(), x, create_graph=True)
        self.checks.values("the reward", x.detach(), r.detach(), g.detach())
        return r, alive(r, g)


Reward = Graded | Function


@dataclass(frozen=True)
class Problem:
    """All that a sampler sees: E_base[exp r(X_1)] = Z."""

    dim: int
    base: Process
    reward: Reward
    checks: Checks = field(default_factory=Checks, compare=False, repr=False)
    share: Callable[[], float] = field(default=lambda: 0.0, compare=False, repr=False)
    # of the training budget, that is spent: the most advanced of calls, operations and seconds


def log_weight(problem: Problem, path: Path) -> Float[Tensor, " *b"]:
    """log w of paths, float64, for a value each: E[exp log_w] = E_{p_base}[exp r], the law of the
    base where that is known and that of its chain elsewhere (`Process.log_law_over_chain`)."""
    ratio = problem.base.log_ratio(path) - problem.base.log_law_over_chain(path)
    return problem.reward(path.x[-1]).double() - ratio


def pose(
    target: Target, reference: Linear, watch: Callable[[Graded], Graded] = lambda f: f
) -> Problem:
    """The problem of `target`; densities use `reference` widened by the public scale.

    `watch` wraps the reward once (the meter).  Evaluating log rho to NaN or +inf raises Diverged.
    Raises ValueError where the geometry that the target states does not fit it (`misfit`).
    """
    if wrong := misfit(target):
        raise ValueError(f"{wrong.what}: {wrong.remedy}")
    checks, project = Checks(), target.project
    match target:
        case Density():
            base = reference.widened(target.scale)
            if target.particles or target.lattice:
                base = Confined(base, target)
            what = f"log rho of {target.name}"
            sound = checked(target.log_rho, what, target.dim, checks)
            both = of_points(target.log_rho_and_grad, target.log_rho, what, target.dim)

            def reward(x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
                x = project(x)  # so that the gradient lies on the subspace too
                return sound(x) - base.log_end(x)

            def with_grad(x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
                x = project(x.detach())
                y, g = both(x)
                r, g = base.less_log_end(x, y, project(g))
                checks.values(what, x, y, g)  # g is finite where the gradient of log rho is
                return r, alive(r, g)

            return Problem(target.dim, base, watch(Graded(reward, with_grad, checks)), checks)
        case Tilt():
            what = f"the reward of {target.name}"
            sound = checked(target.reward, what, target.dim, checks)
            both = of_points(target.reward_and_grad, target.reward, what, target.dim)

            def tilted(x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor]:
                x = project(x.detach())
                r, g = (part.clone() for part in both(x))  # a target may write to its own again
                checks.values(what, x, r, g)
                return r.clone(), alive(r, project(g))

            plain = Graded(lambda x: sound(project(x)), tilted, checks)
            return Problem(target.dim, target.base, watch(plain), checks)
    raise TypeError(f"{type(target).__name__} must extend Density or Tilt to be sampled")


def graded(reward: Reward, checks: Checks | None = None) -> Graded:
    """The reward with its gradient, by autograd where it comes without one; raises Diverged where
    that is not finite."""
    if isinstance(reward, Graded):
        return reward
    bare, seen = reward, checks or Checks()

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        r, g = value_and_grad(bare, x)
        seen.values("the reward", x.detach(), r, g)
        return r.clone(), alive(r, g)

    return Graded(bare, both, seen)


def alive(y: Float[Tensor, " *b"], g: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """The gradient g of y, 0 where y = -inf."""
    return g.masked_fill((y == -torch.inf)[..., None], 0.0)


class Misfit(NamedTuple):
    """What is wrong with the geometry that a target states, and what to do about it."""

    what: str
    remedy: str


def misfit(target: Target) -> Misfit | None:
    """Why `particles`, `alike` or `lattice` cannot be those of the target; None where they can."""
    if target.particles and math.prod(target.particles) != target.dim:
        n, d = target.particles
        return Misfit(
            f"{n} particles in {d} dimensions are not the {target.dim} coordinates of "
            f"{target.name}",
            "state particles = (n, d) with n d = dim",
        )
    named = [one for group in target.alike for one in group]
    if len(set(named)) < len(named) or not set(named) <= set(range((target.particles or (0,))[0])):
        return Misfit(
            f"the groups {target.alike} are not of particles of {target.name}, each named once",
            "count them from 0 in `alike`",
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


def checked(f: Function, what: str, dim: int, checks: Checks | None = None) -> Function:
    """f, raising Diverged at NaN and +inf, and ValueError where it is not (*b, dim) -> (*b).

    -inf is zero density and passes.  Impure is raised where f changes its argument.  The values are
    a copy: f may return a view of its argument, or a tensor that it will write to again."""
    f, seen = pure(f, what), checks or Checks()

    def sound(x: Tensor) -> Tensor:
        _of_points(x, what, dim)
        y = f(x)
        _one_a_point(y, x, what)
        if torch._C._functorch.is_functorch_wrapped_tensor(y):
            return _Checked.apply(y, x.detach(), what, seen)
        seen.values(what, x.detach(), y.detach())
        return y.clone()

    return sound


def of_points(f: Both, value: Function, what: str, dim: int) -> Both:
    """f, which returns `value` and its gradient, both to be detached.

    Raises Impure where f changes its argument, and ValueError where it is not (*b, dim) -> (*b) and
    (*b, dim)."""
    f = pure(f, what, value)

    def sound(x: Tensor) -> tuple[Tensor, Tensor]:
        _of_points(x, what, dim)
        both = f(x)
        if not (isinstance(both, tuple) and [isinstance(t, Tensor) for t in both] == [True] * 2):
            raise ValueError(
                f"{what} with its gradient must be two tensors, a value and a gradient"
            )
        y, g = both
        _one_a_point(y, x, what)
        if (g.dtype, g.device) != (x.dtype, x.device):
            raise ValueError(
                f"the gradient of {what} is of {g.dtype} on {g.device}; it must be like x, of "
                f"{x.dtype} on {x.device}"
            )
        if g.shape != x.shape:
            raise ValueError(
                f"the gradient of {what} has shape {tuple(g.shape)} at x of shape {tuple(x.shape)};"
                " it must be that of x"
            )
        return y.detach(), g.detach()

    return sound


def _of_points(x: Tensor, what: str, dim: int) -> None:
    if x.shape[-1] != dim:  # (1, n dim) would be charged as one point
        raise ValueError(f"{what} takes points of {dim} coordinates, not {x.shape[-1]}")


def _one_a_point(y: Tensor, x: Tensor, what: str) -> None:
    if y.shape != x.shape[:-1]:
        raise ValueError(
            f"{what} has shape {tuple(y.shape)} at x of shape {tuple(x.shape)}; "
            f"it must be {tuple(x.shape[:-1])}, one number a point"
        )


class _Checked(torch.autograd.Function):
    """A copy of y; a Function with a vmap rule, so that points under vmap are seen too."""

    @staticmethod
    def forward(y: Tensor, x: Tensor, what: str, checks: Checks) -> Tensor:
        checks.values(what, x, y)
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        return grad[0], None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, y: Tensor, x: Tensor, what: str, checks: Checks) -> Any:
        y, x = front(info, in_dims[0], y), front(info, in_dims[1], x)
        return _Checked.apply(y, x, what, checks), 0


def front(info: Any, dim: int | None, x: Tensor) -> Tensor:
    """The batch dimension of a vmap rule's argument moved (or expanded) to the front."""
    return x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
