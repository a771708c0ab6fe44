"""A Gaussian reference that is learned with its control: mean, scale, and the times of its noise.

The chain is the reference's own in coordinates y, steered by the control u(y, t), and its points
are x = m + s y: a learned prior of one component.  With P_y the chain of y without control, whose
end is p_base(y) exactly, a path has the weight

    log w = r(x_K) - log_ratio,    log_ratio = log dP_y^u/dP_y + log p_base(y_K) - sum log s
                                               - log p_base(x_K),

so that E[exp log w] = int rho(x) dx = Z for any m and s, and for any shares of the noise among the
steps, since X_1 keeps its law under all of them.  Seen as a function of the parameters log w is
that of given points x, whose y and whose kernels move.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.loss import Loss
from tiltbench.samplers.networks.model import Model
from tiltbench.samplers.networks.reference import Reference
from tiltbench.samplers.recipes.borrowed import Borrowed
from tiltbench.samplers.recipes.recipe import Recipe, guide
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.process import Additive, Controlled, Guide, Kernel, Path, Process
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, Reward


@dataclass(frozen=True, eq=False, kw_only=True)
class LearnedPath(Path):
    """A path x with its y, to which `mean`, `std` and `u` belong; its hint is grad r(x)."""

    y: Float[Tensor, "k1 *b d"]
    log_move: Float[Tensor, " *b"]  # log p_base(y_K) - sum log s - log p_base(x_K)


@dataclass(frozen=True)
class LearnedChain(Borrowed, Additive):
    """The chain of y, whose points are shown as x; what it is made of lies in the model."""

    path: ClassVar[type[Path]] = LearnedPath
    flow: Linear

    def base(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        """Of the reference as it was before it learned."""
        return self.flow.base(x, k)

    def backward(self, x: Float[Tensor, "*b d"], k: int) -> Kernel:
        return self.flow.backward(x, k)

    def log_ratio(self, path: Path) -> Float[Tensor, " *b"]:
        here = learned(path)
        return super().log_ratio(replace(here, x=here.y)) + here.log_move

    def running_cost(self, path: Path) -> Float[Tensor, " *b"]:
        return super().running_cost(path) + learned(path).log_move

    def under(self, model: Controlled, path: Path) -> LearnedPath:
        return self.through(model, path.x, path.hint)

    def simulate(
        self, model: Model, shape: tuple[int, ...], generator: Generator, guide: Guide | None
    ) -> LearnedPath:
        """Paths of the model, differentiable in it; hints are detached."""
        learned = reference(model)
        y = self.start(shape, generator, torch.float32)
        noise = self.normal((self.steps, *shape), generator, y.dtype).unbind(0)
        control, kernels = model.on_grid(self.grid(y)[:-1]), learned.kernels(y)
        gains, stds = kernels.gain.unbind(0), kernels.std.unbind(0)
        ys, us, means, hints = [y], list[Tensor](), list[Tensor](), list[Tensor]()
        for k, root in enumerate(self.roots):
            slope = None
            if guide is not None:
                x = learned.place.there(y)
                hints.append(guide(x.detach()))
                slope = learned.place.slope(x, y, hints[-1])
            us.append(control(y, k, slope))
            means.append(gains[k] * y)
            y = means[-1] + stds[k] * torch.add(noise[k], us[-1], alpha=root)
            ys.append(y)
        y = torch.stack(ys)
        x = learned.place.there(y)
        return LearnedPath(
            self.grid(y).clone(),
            x,
            torch.stack(means),
            kernels.std.clone(),
            torch.stack(us),
            torch.stack(hints) if hints else None,
            y=y,
            log_move=learned.place.log_move(x[-1], y[-1]),
        )

    def retrace(
        self, model: Model, x_end: Float[Tensor, "n d"], generator: Generator, guide: Guide | None
    ) -> LearnedPath:
        """Paths that end at x_end, by the exact reversal of the learned chain."""
        learned = reference(model)
        y = learned.place.back(x_end)
        gain, std, variance = learned.kernels(y)
        before, after = variance[:-1], gain.square() * variance[:-1] + std.square()
        back, spread = gain * before / after, (before / after).sqrt() * std
        noise = self.normal((self.steps, *y.shape), generator, y.dtype)
        ys = [y]
        for k, xi in zip(reversed(range(self.steps)), noise.unbind(0), strict=True):
            ys.append(back[k] * ys[-1] + spread[k] * xi)
        x = learned.place.there(torch.stack(ys[::-1]))
        return self.through(model, x, guide(x[:-1]) if guide else None)

    def through(
        self, model: Controlled, x: Float[Tensor, "k1 *b d"], hint: Tensor | None
    ) -> LearnedPath:
        """The path of given points and hints grad r(x), differentiable in all of the model."""
        learned = reference(model)
        y = learned.place.back(x)
        gain, std, _ = learned.kernels(y)
        t = self.grid(y)
        lead = (-1, *[1] * (y.dim() - 1))
        slope = None if hint is None else learned.place.slope(x[:-1], y[:-1], hint)
        u = model.control(y[:-1], t[:-1].reshape(lead[:-1]), slope)
        return LearnedPath(
            t.clone(),
            x,
            gain.reshape(lead) * y[:-1],
            std.clone(),
            u,
            hint,
            y=y,
            log_move=learned.place.log_move(x[-1], y[-1]),
        )


def learned(path: Path) -> LearnedPath:
    """The path as a learned chain's; raises TypeError where another process has made it."""
    if not isinstance(path, LearnedPath):
        raise TypeError(f"a learned base weighs its own paths, not a {type(path).__name__}")
    return path


def reference(model: Controlled) -> Reference:
    assert isinstance(model, Model) and model.reference is not None
    return model.reference


@dataclass(frozen=True)
class LearnedBase(Recipe):
    """The Gaussian reference itself, moved to x = m + s y, with m, s and its noise learned.

    `lr_base` is the learning rate of m (in units of the spread) and log s, a number a coordinate;
    on particles there is no m, and one s for all.  `lr_noise` is that of the shares of the noise
    that the steps of the grid spend, all of it in sum as before.  A rate of 0 leaves them as they
    are.  For losses of path weights, and relative entropy; weights are exact at any parameters.
    Raises Unsupported for other losses, and on a base that is no Gaussian reference.
    """

    name: ClassVar[str] = "LearnedBase"
    lr_base: float = 1e-2
    lr_noise: float = 0.0

    def __post_init__(self) -> None:
        for field in ("lr_base", "lr_noise"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(
                    f"{field} is {getattr(self, field)}; it must be at least 0 and below 1"
                )

    def process(self, problem: Problem, tamed: Reward) -> LearnedChain:
        if not isinstance(problem.base, Linear):
            raise Unsupported(
                "a base is learned where it is a Gaussian reference, and this problem brings a "
                "base of its own: leave recipe=Base"
            )
        return LearnedChain(problem.base)

    def learned(self, loss: Loss, chain: Process, dim: int) -> Reference:
        if not loss.by_weights:
            raise Unsupported(
                f"{loss.name} trains a control beside a base that stays as it is: use "
                "log_variance, trajectory_balance or relative_entropy, or leave recipe=Base"
            )
        assert isinstance(chain, LearnedChain)
        return Reference(dim, chain.flow, place=self.lr_base > 0, noise=self.lr_noise > 0)

    @property
    def rates(self) -> tuple[float, float]:
        return self.lr_base, self.lr_noise

    def simulate(self, problem: Problem, model: Model, n: int, generator: Generator) -> LearnedPath:
        shape = (n, problem.dim)
        return chain(problem).simulate(model, shape, generator, guide(problem, model))

    def retrace(
        self, problem: Problem, model: Model, x: Float[Tensor, "n d"], generator: Generator
    ) -> LearnedPath:
        return chain(problem).retrace(model, x, generator, guide(problem, model))

    def price(self, loss: Loss, paths: int, steps: int, guided: bool) -> Cost:
        return loss.price(paths, steps, guided)


def chain(problem: Problem) -> LearnedChain:
    assert isinstance(problem.base, LearnedChain)
    return problem.base
