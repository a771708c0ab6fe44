"""What is to be sampled: a law on R^dim stated up to a constant, and what is known about it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.gradient import Ungraded, value_and_grad
from tiltbench.targets.truths.certified import certified, home_of
from tiltbench.targets.truths.facts import Modes as Modes  # met where targets are
from tiltbench.targets.truths.facts import Observable as Observable
from tiltbench.targets.truths.facts import Truth as Truth
from tiltbench.targets.truths.stored import DATA as DATA

if TYPE_CHECKING:
    from tiltbench.targets.bases.process import Process

Groups = tuple[tuple[int, ...], ...]  # of particles, counted from 0

COORDINATES = 32  # that are statistics of a target which names none


class Target(ABC):
    """A law p* on R^dim, stated up to a constant.

    Concrete targets are final frozen dataclasses whose fields are numbers, strings and tuples; the
    class line `name = "..."` registers them.
    """

    name: ClassVar[str]
    dim: int
    version: ClassVar[int] = 1  # changes with any constant
    scale: float = 1.0
    # sqrt(E |X|^2 / rank), the rms coordinate, rounded: public, the same for every method; `pose`
    # widens the reference by it
    test_value: ClassVar[float | None] = None  # log rho (or r) at `test_point(self)`, to 1e-10

    @property
    def particles(self) -> tuple[int, int] | None:
        """(n, d): x holds n particles in d dimensions, one after the other, and the law, which
        rotations leave as it is, lives on sum_i x_i = 0.  log rho is blind to translations there,
        and Z its integral over that subspace.  The base of a tilt must live there too.  Which
        permutations and whether reflections leave the law as it is say `alike` and `chiral`."""
        return None

    @property
    def alike(self) -> Groups:
        """Groups of particles, counted from 0, within which every permutation leaves the law as it
        is: all in one where the target does not say otherwise, none at all where each differs."""
        return (tuple(range(self.particles[0])),) if self.particles else ()

    @property
    def chiral(self) -> bool:
        """Whether reflections of particles change the law."""
        return False

    @property
    def point(self) -> Float[Tensor, " D"]:
        """float64: where `test_value` is stated; scale * cos(1), cos(2), ..., unless a target has
        no density there and names another."""
        return self.scale * torch.cos(torch.arange(1, self.dim + 1, dtype=torch.float64))

    @property
    def lattice(self) -> tuple[int, ...] | None:
        """The sides of a periodic lattice, row-major, where translations and x -> -x leave the law
        as it is."""
        return None

    @property
    def pixels(self) -> tuple[int, int] | None:
        """(rows, columns): x is a grey image, row by row, dark at -1 and bright at 1."""
        return None

    def statistics(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Named functions (B, D) -> (B,) that a table reports where the truth is unknown, and of
        which a certified reference states mean, sd and error.

        By default the coordinates `x1`, `x2`, ..., at most 32 of them; none of particles, lattices
        and images, whose coordinates have no meaning one by one."""
        if self.particles or self.lattice or self.pixels:
            return {}
        return {f"x{i + 1}": partial(_coordinate, i) for i in range(min(self.dim, COORDINATES))}

    def torsions(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Named angles (B, D) -> (B,) in [-pi, pi], on whose torus draws of a molecule are compared
        and pictured, the first two in a plane; none of anything else."""
        return {}

    @property
    def rank(self) -> int:
        """The dimension of the subspace on which the law lives, that of the image of `project`."""
        return self.dim - self.particles[1] if self.particles else self.dim

    def project(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        """The orthogonal projection onto the subspace: of particles, off their centre of mass."""
        return centred(x, self.particles[1]) if self.particles else x

    def posed(self, x: Float[Tensor, "n D"], generator: Generator) -> Float[Tensor, "n D"]:
        """Of particles: each configuration under a Haar rotation about its centre of mass, which
        stays, or reflection unless the law is `chiral`, and a uniform permutation of those that are
        `alike`.  x itself where there are no particles."""
        if not self.particles:
            return x
        n, d = self.particles
        y = x.reshape(len(x), n, d)
        centre = y.mean(1, keepdim=True)
        here: Any = {"generator": generator, "device": generator.device, "dtype": torch.float64}
        q, r = torch.linalg.qr(torch.randn(len(x), d, d, **here))
        q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]  # QR alone is not Haar
        if self.chiral:
            q[..., 0] *= torch.linalg.det(q)[:, None]
        order = torch.arange(n, device=generator.device).repeat(len(x), 1)
        for group in self.alike:
            places = torch.tensor(group, device=generator.device)
            order[:, places] = places[torch.rand(len(x), len(group), **here).argsort(-1)]
        order = order.to(x.device)
        y = (y - centre).gather(1, order[..., None].expand(y.shape)) @ q.to(y)
        return (y + centre).flatten(1)

    @abstractmethod
    def truth(self) -> Truth:
        """Truth("unknown") is an answer; silence is not."""


class Density(Target):
    """p*(x) = rho(x) / Z.  -inf is zero density and legal; NaN and +inf are errors."""

    @abstractmethod
    def log_rho(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """log rho in nats, in the dtype and on the device of x."""

    def log_rho_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        """log rho and its gradient, neither with a graph.

        A target may write its own, where that is faster than autograd: equal to it up to rounding
        wherever log rho is finite.  A subclass with another `log_rho` does not inherit it.  The
        gradient is 0 where log rho records none: on a box it is constant."""
        try:
            return value_and_grad(self.log_rho, x)
        except Ungraded:
            return self.log_rho(x.detach()), torch.zeros_like(x)

    @property
    def certified_as(self) -> Density:
        """The same law in the coordinates in which `tiltbench reference` runs its chains: those of
        the target, unless others mix faster and both read one reference."""
        return self

    def virial(
        self, x: Float[Tensor, "b d"], slope: Float[Tensor, "b d"]
    ) -> tuple[Float[Tensor, " b"], int]:
        """x . grad log rho of points with their gradient, and its mean with the sign changed, by
        partial integration: the rank.

        Where the support is cut so that x -> s x, s > 0, does not map it onto itself, another
        function of that kind: div v + v . grad log rho with a v that does not cross the cuts has
        the mean 0."""
        return (x * slope).sum(-1), self.rank

    @property
    def home(self) -> Path:
        """The folder of a certified reference: the package's data, or for a target outside the
        package the folder of its file (the current one, where it was typed into an interpreter)."""
        return home_of(type(self))

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if _nearer(cls, "log_rho", "log_rho_and_grad"):
            cls.log_rho_and_grad = Density.log_rho_and_grad  # type: ignore[method-assign]
        if "truth" in vars(cls):
            cls.truth = _or_certified(cls.truth)  # type: ignore[method-assign, assignment]


class Tilt(Target):
    """p*(x) = p_base(x) exp r(x) / Z, with p_base known only through its process."""

    base: Process

    @abstractmethod
    def reward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, " *b"]:
        """r in nats; positive is good."""

    def reward_and_grad(
        self, x: Float[Tensor, "*b d"]
    ) -> tuple[Float[Tensor, " *b"], Float[Tensor, "*b d"]]:
        """r and its gradient, neither with a graph; see `Density.log_rho_and_grad`.

        Raises Ungraded where r records no graph: a loss of gradients would learn nothing."""
        try:
            return value_and_grad(self.reward, x)
        except Ungraded as error:
            raise Ungraded(
                f"the reward of {self.name} is of no use to this loss: {error}"
            ) from None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if _nearer(cls, "reward", "reward_and_grad"):
            cls.reward_and_grad = Tilt.reward_and_grad  # type: ignore[method-assign]

    def features(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b f"]:
        """What the diversity of draws is measured in: x itself, or say a classifier's last layer.
        Euclidean distances between features are to mean something."""
        return x


def _or_certified(stated: Callable[[Any], Truth]) -> Callable[[Any], Truth]:
    """`truth` of a density: what its class states or, where that is nothing, what the certified
    reference beside its file says."""

    @wraps(stated)
    def truth(self: Density) -> Truth:
        given = stated(self)
        unknown = isinstance(given, Truth) and given.unknown
        return certified(self, given) if unknown else given

    return truth


def _coordinate(i: int, x: Tensor) -> Tensor:
    return x[..., i]


def _nearer(cls: type, name: str, other: str) -> bool:
    """Whether the class writes `name` itself, or inherits it from nearer by than `other`."""
    places = [[part in vars(one) for one in cls.__mro__].index(True) for part in (name, other)]
    return places[0] < places[1]


def centred(x: Float[Tensor, "*b D"], space: int) -> Float[Tensor, "*b D"]:
    """Particles in `space` dimensions less their mean position."""
    each = x.unflatten(-1, (-1, space))
    return (each - each.mean(-2, keepdim=True)).flatten(-2)


def test_point(target: Target) -> Float[Tensor, " D"]:
    """(D,) float64: the fixed point at which `test_value` is stated."""
    return target.point


test_point.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks


def table(name: str, like: Tensor) -> Tensor:
    """The frozen array `data/<name>.npy` on the device and in the dtype of `like`, cached.

    `data/<name>.json` holds its provenance and SHA-256.  Raises ValueError where they disagree.
    """
    return _table(name, like.device, like.dtype)


@lru_cache(maxsize=64)
def _table(name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    raw = (DATA / f"{name}.npy").read_bytes()
    stated = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["sha256"]
    if hashlib.sha256(raw).hexdigest() != stated:
        raise ValueError(f"data/{name}.npy is not the file its provenance describes: restore it")
    array = np.load(DATA / f"{name}.npy", allow_pickle=False)
    with torch.inference_mode(False):  # or whoever records a graph later could not use it
        return torch.as_tensor(array).to(device=device, dtype=dtype)
