"""A Gaussian reference with parameters: where it lies, how wide it is, when it spends its noise."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.constants import constant


class Kernels(NamedTuple):
    """Y_{k+1} | Y_k ~ N(gain_k Y_k, std_k^2 I), and Var Y_k of a coordinate at the K + 1 times."""

    gain: Float[Tensor, " k"]
    std: Float[Tensor, " k"]
    variance: Float[Tensor, " k1"]


class Place(nn.Module):
    """x = m + s y, a mean and a scale a coordinate, m = 0 and s = 1 at first.

    Parameters are m in units of the spread of the reference, and log s.  On a subspace (particles
    without their centre of mass) it is one scale for all, and no mean: any other map leaves it."""

    def __init__(self, dim: int, flow: Linear) -> None:
        super().__init__()
        whole = flow.removed == 0
        self.flow, self.free = flow, dim - flow.removed
        shape = (dim,) if whole else (1,)
        self.shift = nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=whole)
        self.log_scale = nn.Parameter(torch.zeros(shape, dtype=torch.float64))

    def there(self, y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """x of y."""
        return (self.flow.spread * self.shift).to(y) + self.log_scale.exp().to(y) * y

    def back(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """y of x."""
        return (x - (self.flow.spread * self.shift).to(x)) * (-self.log_scale).exp().to(x)

    def log_volume(self) -> Float[Tensor, ""]:
        """log |dx/dy|, on the subspace of the process."""
        return self.log_scale.mean() * self.free

    def log_move(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """log p_base(y) - log |dx/dy| - log p_base(x): that of the law of x over the reference."""
        ends = self.flow.log_end(y.double()) - self.flow.log_end(x.double())
        return ends - self.log_volume()

    def slope(
        self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"], g: Float[Tensor, "*b d"]
    ) -> Float[Tensor, "*b d"]:
        """The gradient by y of r(x(y)) - log_move, the tilt of the reference in y, of grad r(x)."""
        last = self.flow.steps
        pulled = self.log_scale.exp().to(g) * (g + self.flow.score(x, last))
        return pulled - self.flow.score(y, last)


class Clock(nn.Module):
    """How the noise of a reference is shared among the steps of its grid; all of it stays spent.

    The shares are softmax(log of the reference's own + bend), each bend within MOST nats, so that
    X_1 keeps its law whatever they are: of Brownian motion the shares of nu_1 = int sigma^2, of a
    stationary process those of int gamma.  Raises Unsupported on any other reference."""

    share: Tensor

    def __init__(self, flow: Linear) -> None:
        super().__init__()
        gains = [gain for gain, _ in flow.kernels]
        self.still = all(gain == 1 for gain in gains)
        self.start, self.end = flow.start_var, flow.spread**2
        level = [flow.variance(t) for t in flow.times]
        if self.still:
            each = [std**2 for _, std in flow.kernels]
        elif max(level) - min(level) < 1e-9 * self.end:
            each = [-2 * math.log(gain) for gain in gains]
        else:
            raise Unsupported(
                "the shares of the noise can be learned of a reference that moves by noise alone "
                "or is stationary: use Brownian, Scattered or Stationary, or leave lr_noise at 0"
            )
        self.total = sum(each)
        share = torch.tensor([part / self.total for part in each], dtype=torch.float64)
        self.register_buffer("share", share, persistent=False)
        self.bend = nn.Parameter(torch.zeros(len(each), dtype=torch.float64))

    def shares(self) -> Float[Tensor, " k"]:
        return torch.softmax(self.share.log() + MOST * torch.tanh(self.bend / MOST), 0)

    def kernels(self) -> Kernels:
        """float64, differentiable in the shares."""
        spent = self.total * self.shares()
        if self.still:
            so_far = torch.cat([torch.zeros_like(spent[:1]), spent.cumsum(0)])
            return Kernels(torch.ones_like(spent), spent.sqrt(), self.start + so_far)
        std = (-self.end * torch.expm1(-spent)).sqrt()
        level = torch.full_like(torch.cat([spent, spent[:1]]), self.end)
        return Kernels((-spent / 2).exp(), std, level)


MOST = 3.0  # nats by which a step's share of the noise can be bent


class Reference(nn.Module):
    """What is learned of a reference beside the control; what is not to train stays as it is."""

    def __init__(self, dim: int, flow: Linear, place: bool, noise: bool) -> None:
        super().__init__()
        self.flow = flow
        self.place = Place(dim, flow)
        self.clock = Clock(flow) if noise else None
        if not place:
            self.place.requires_grad_(False)

    def kernels(self, like: Tensor) -> Kernels:
        """In the dtype of `like`, and on its device."""
        if self.clock is not None:
            return Kernels(*(part.to(like) for part in self.clock.kernels()))
        gain, std = zip(*self.flow.kernels, strict=True)
        level = [self.flow.variance(t) for t in self.flow.times]
        return Kernels(*(constant(part, like) for part in (gain, std, level)))
