"""Ten equal products of Student's t at frozen random places."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from tiltbench.targets.bases.components import square_distances
from tiltbench.targets.densities._mixture import differences
from tiltbench.targets.target import Density, Modes, Observable, Truth, table

FREEDOM = 3
EDGE = 20.0  # "far": a coordinate beyond it


@dataclass(frozen=True)
class StudentMixture(Density):
    """(1/10) sum_j prod_i t_3(x_i - m_ji) in the plane, m_j in [-10, 10]^2; normalised.

    t_3(x) = 2 / (pi sqrt 3 (1 + x^2 / 3)^2) is Student's t with 3 degrees of freedom: of variance
    3 and no fourth moment, so that no square is an observable.  With 2 degrees, which some papers
    use, there is no variance and W2 has no meaning.  m_j from data/student_mixture.npy; the masses
    of the cells nearest to each from data/student_mixture_cells.npy.
    """

    name = "student_mixture"
    dim = 2
    scale = 6.6
    test_value = -7.6034913367958605

    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        _, _, log_top, share = _components(x)
        return log_top + share.sum(0).log() - self._norm(len(share))

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        off, fall, log_top, share = _components(x.detach())
        total = share.sum(0)
        slope = (off * fall * share).sum(1) / total * (-4 / FREEDOM)
        value = log_top + total.log() - self._norm(len(share))
        return value, torch.stack(slope.unbind(), -1)

    def _norm(self, components: int) -> float:
        return math.log(components) - self.dim * math.log(2 / (math.pi * math.sqrt(FREEDOM)))

    def truth(self) -> Truth:
        cells = table("student_mixture_cells", torch.zeros((), dtype=torch.float64))
        means = _means()
        far = (_below(-EDGE - means) + _below(means - EDGE)).T  # (coordinate, component)
        outside = float((1 - (1 - far).prod(0)).mean())
        observables = {
            "first_mode": _event(lambda x: _nearest(x) == 0, float(cells[0])),
            "outside": _event(lambda x: (x.abs() > EDGE).any(-1), outside),
        }
        for i in range(self.dim):
            right = float(_below(means[:, i]).mean())
            observables[f"right_{i}"] = _event(_right(i), right)
            mean, sd = float(means[:, i].mean()), _sd(means[:, i])
            observables[f"mean_{i}"] = Observable(_coordinate(i), mean, sd)
        return Truth(
            "closed form; masses of cells by quadrature, 1e-11",
            log_Z=0.0,
            sample=_sample,
            modes=Modes(cells, _nearest),
            observables=observables,
        )


def _components(x: Float[Tensor, "*b d"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x_i - m_ji, 1 / (1 + that^2 / 3), both (d, m, *b); the logarithm of the largest conceivable
    component, (*b); the components in units of it, (m, *b)).

    The law is rational: no logarithm of every component, and no exponential, is needed."""
    off = differences(x, table("student_mixture", x))
    fall = 1 / (1 + off.square() / FREEDOM)
    top = fall.detach().amax(1).clamp(min=torch.finfo(x.dtype).tiny)
    share = reduce(torch.mul, (fall / top[:, None]).unbind()).square()
    return off, fall, 2 * top.log().sum(0), share


def _means() -> Float[Tensor, "m d"]:
    return table("student_mixture", torch.zeros((), dtype=torch.float64))


def _sample(n: int, generator: Generator) -> Float[Tensor, "n d"]:
    """Means plus normals over the rms of 3 normals."""
    device, means = generator.device, _means().to(generator.device)
    chosen = torch.randint(len(means), (n,), generator=generator, device=device)
    shape = (1 + FREEDOM, n, means.shape[-1])
    xi = torch.randn(shape, generator=generator, device=device, dtype=torch.float64)
    return means[chosen] + xi[0] / xi[1:].square().mean(0).sqrt()


def _below(x: Tensor) -> Tensor:
    """P(T < x) for T ~ t_3."""
    y = x / math.sqrt(3)
    return 0.5 + (y / (1 + y.square()) + torch.atan(y)) / math.pi


def _nearest(x: Float[Tensor, "*b d"]) -> Int[Tensor, " *b"]:
    """The nearest mean."""
    return square_distances(x, _means().to(x)).argmin(-1)


def _event(inside: Callable[[Tensor], Tensor], mass: float) -> Observable:
    sd = math.sqrt(mass * (1 - mass))
    return Observable(lambda x: inside(x).to(x.dtype), mass, sd)


def _right(i: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, i] > 0


def _coordinate(i: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, i]


def _sd(mean: Float[Tensor, " m"]) -> float:
    """Of one coordinate: the means' variance and that of t_3, which is 3."""
    return math.sqrt(float(mean.var(correction=0)) + FREEDOM / (FREEDOM - 2))
