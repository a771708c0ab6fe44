"""Problems with known everything, shared by the tests."""

import math
from dataclasses import dataclass, replace

import torch

from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.optimal import Optimal
from tiltbench.targets.bases.process import Controlled
from tiltbench.targets.problem import Problem
from tiltbench.targets.target import Target, Truth


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def z_score(samples, value):
    return float((samples.mean() - value) / (samples.std() / math.sqrt(len(samples))))


class Shifted:
    """p* = N(m, s^2 I) on a base N(0, s^2 I): r = c.x, u* = sigma gain c, exact at any K."""

    def __init__(self, base, slope=(0.6, -0.3)):
        self.base, self.slope = base, torch.tensor(slope)

    log_Z = property(lambda self: float(self.slope.square().sum()) * self.base.spread**2 / 2)

    def problem(self):
        return Problem(2, self.base, lambda x: (x * self.slope.to(x)).sum(-1))

    def at(self, tilt):
        return Shifted(self.base, tuple(tilt * c for c in self.slope.tolist()))

    def control(self, x, t):
        k = (t * self.base.steps).round().long().expand(x.shape[:-1])
        return self.base.pull(k, self.slope.to(x).expand_as(x))

    def log_flow(self, x, t):
        """log E_base[exp r(X_1) | X_t = x]: that of a linear function of a Gaussian."""
        k = (t * self.base.steps).round().long().expand(x.shape[:-1])
        gain, var = (torch.tensor(row).to(x)[k] for row in zip(*self.base.ahead, strict=True))
        return gain * (x * self.slope.to(x)).sum(-1) + var * self.slope.square().sum() / 2


class Tilted(Controlled):
    """math.md 11: r = tilt c.x on a "pretrained" mixture of two; log Z = 0.606237 at tilt 1."""

    slope = torch.tensor([0.8, -0.5], dtype=torch.float64)

    def __init__(self, base=None, tilt=1.0, steps=40):
        self.base = base or MixtureFlow(
            (0.4, 0.6), ((-1.5, 0.0), (1.5, 0.5)), (0.3, 0.2), steps=steps
        )
        self.tilt = tilt
        self.log_Z, self.law = self.base.law.tilted_linear(tilt * self.slope)
        self.optimal = Optimal(
            self.base, lambda x, a, b: self.law.score(x, a[..., None], b[..., None])
        )

    def at(self, tilt):
        return Tilted(self.base, tilt * self.tilt)

    def problem(self):
        return Problem(2, self.base, lambda x: self.tilt * (x * self.slope.to(x)).sum(-1))

    def control(self, x, t, hint=None):
        return self.optimal.control(x, t)

    def log_flow(self, x, t):
        """As dt -> 0: log Z and the ratio of the noised laws."""
        levels = [
            torch.tensor([of(float(s)) for s in t.flatten()]).to(x).reshape(t.shape + (1,))
            for of in (self.base.signal, self.base.noise)
        ]
        return self.log_Z + self.law.log_density(x, *levels) - self.base.law.log_density(x, *levels)


class Mixture(Controlled):
    """math.md 11: three components in the plane, log Z = 0.7."""

    weight = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64)
    mean = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    var = torch.tensor([0.2, 0.3, 0.15], dtype=torch.float64)
    log_Z = 0.7

    def __init__(self, base):
        self.base = base

    def log_noised(self, x, signal, noise):
        """log density of signal X + noise xi; signal and noise broadcast against x.shape[:-1]."""
        var = signal[..., None] ** 2 * self.var.to(x) + noise[..., None] ** 2
        far = (x[..., None, :] - signal[..., None, None] * self.mean.to(x)).square().sum(-1)
        weight = self.weight.to(x).log() - far / (2 * var) - (2 * math.pi * var).log()
        return torch.logsumexp(weight, -1)

    def log_rho(self, x):
        one = torch.ones((), dtype=x.dtype)
        return self.log_noised(x, one, 0 * one) + self.log_Z

    def problem(self):
        return Problem(2, self.base, lambda x: self.log_rho(x) - self.base.log_end(x))

    def log_flow(self, x, t):
        """As dt -> 0: log Z and the ratio of the noised laws."""
        t = torch.where(t == 0, t + 1e-4, t) if self.base.start_var == 0 else t
        signal, noise, var = (
            torch.tensor([of(float(s)) for s in t.flatten()]).to(x).reshape(t.shape)
            for of in (self.base.signal, self.base.noise, self.base.variance)
        )
        base = -x.square().sum(-1) / (2 * var) - (2 * math.pi * var).log()
        return self.log_Z + self.log_noised(x, signal, noise) - base

    def sample(self, n, generator):
        k = torch.multinomial(self.weight, n, replacement=True, generator=generator)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return self.mean[k] + self.var[k, None].sqrt() * noise

    def control(self, x, t, hint=None):
        """u* = sigma (score of the noised target - score of the base)."""
        # a point start has no score: the limit is taken just after it
        t = torch.where(t == 0, t + 1e-4, t) if self.base.start_var == 0 else t
        few, where = t.unique(return_inverse=True)
        times = few.tolist()

        def of(f):
            return torch.tensor([f(s) for s in times], dtype=x.dtype)[where][..., None]

        signal, noise = of(self.base.signal), of(self.base.noise)
        away = signal[..., None] * self.mean.to(x) - x.detach()[..., None, :]
        var = signal.square() * self.var.to(x) + noise.square()
        weight = self.weight.to(x).log() - away.square().sum(-1) / (2 * var) - var.log()
        score = ((torch.softmax(weight, -1) / var)[..., None] * away).sum(-2)
        return of(self.base.sigma) * (score + x / of(self.base.variance))


def weights_of(problem, path):
    return problem.reward(path.x[-1]).double() - problem.base.log_ratio(path)


@dataclass(frozen=True)
class Cloud(Target):
    """n particles in d dimensions."""

    n: int
    d: int

    @property
    def particles(self):
        return self.n, self.d

    @property
    def dim(self):
        return self.n * self.d

    def truth(self):
        return Truth("unknown")


@dataclass(frozen=True)
class Labelled(Cloud):
    """The same, alike in the given groups alone; mirror images differ."""

    alike: tuple[tuple[int, ...], ...] = ()
    chiral: bool = True


@dataclass(frozen=True)
class Field(Target):
    """A field on a periodic lattice of these sides."""

    sides: tuple[int, ...]

    @property
    def lattice(self):
        return self.sides

    @property
    def dim(self):
        return math.prod(self.sides)

    def truth(self):
        return Truth("unknown")


def narrow(network):
    """Sixteen wide, where the network has a width of its own."""
    return replace(network, width=16) if hasattr(network, "width") else network
