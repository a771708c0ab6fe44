"""Controls u(x, t): multilayer perceptrons with time features, unguided and guided."""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.process import Controlled, Process, Stepper

BENDS = 8  # sines that bend the free energy away from a straight line


class Earlier(NamedTuple):
    """A frozen copy of a model as it was at the end of a stage of its training (tilt matching)."""

    model: Model
    tilt: float  # a: its law is p_base exp(a r)
    goal: float  # the tilt the model itself is now trained towards


class Model(nn.Module, Controlled):
    """What is trained: a control and the free energy F(t), F(0) = 0 and F(1) = -log_Z."""

    guided = False  # whether `control` wants grad r(x) as its hint
    forward_points = 0  # points (x, t) at which the control was evaluated, and of those
    backward_points = 0  # the ones whose graph was kept: recorded, never limited
    earlier: Earlier | None = None  # a tuple: copied with the model, but no part of its parameters

    def __init__(self) -> None:
        super().__init__()
        self.log_Z = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.bend = nn.Parameter(torch.zeros(BENDS, dtype=torch.float64))
        self.correction: nn.Module | None = None  # h, given by `Corrected`

    def get_extra_state(self) -> dict[str, Any]:
        """The counts and the earlier stage, beside the parameters in a `state_dict`."""
        points, past = [self.forward_points, self.backward_points], self.earlier
        stage = None if past is None else [past.tilt, past.goal, past.model.state_dict()]
        return {"points": points, "earlier": stage}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.earlier = None
        if state["earlier"] is not None:
            tilt, goal, parameters = state["earlier"]
            past = copy.deepcopy(self).requires_grad_(False)
            past.load_state_dict(parameters)
            self.earlier = Earlier(past, float(tilt), float(goal))
        self.forward_points, self.backward_points = map(int, state["points"])

    def free_energy(self, t: Tensor) -> Tensor:
        """-t log_Z + sum_j bend_j sin(j pi t) / (j pi), BENDS terms, differentiable in t: the
        parameters are amplitudes of dF/dt, so that one learning rate suits them all."""
        waves = torch.arange(1, BENDS + 1, device=t.device) * math.pi
        bends = (self.bend / waves * torch.sin(t.double()[..., None] * waves)).sum(-1)
        return -t * self.log_Z + bends.to(t)

    def free_energy_rate(self, t: Tensor) -> Tensor:
        """dF/dt, in closed form."""
        waves = torch.arange(1, BENDS + 1, device=t.device) * math.pi
        bends = (self.bend * torch.cos(t.double()[..., None] * waves)).sum(-1)
        return bends.to(t) - self.log_Z.to(t)

    def free_energy_parameters(self) -> Iterator[nn.Parameter]:
        """What only F depends on: trained at a rate of its own."""
        yield self.log_Z
        yield self.bend

    def corrector(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """h(x) of the adjoint Schroedinger bridge, in units of a score (1/length).

        Raises Unsupported where the network has none."""
        if self.correction is None:
            raise Unsupported("the network has no corrector: use model=Corrected")
        out: Tensor = self.correction(x)
        return out

    def potential(self, x: Float[Tensor, "*b d"], t: Tensor) -> Float[Tensor, " *b"]:
        """phi(x, t), length^2, of which spread u is the gradient.

        Raises Unsupported where the network has none."""
        raise Unsupported("this loss trains a potential: use model=Potential")

    def stretched(
        self, x: Float[Tensor, "*b d"], t: Tensor, directions: Float[Tensor, "*c m d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
        """u and xi_i . (du/dx) xi_i for each of m directions xi, shared or a set a point.

        Summed over the axes it is the divergence of u; at one random xi of unit covariance an
        estimate of it (Hutchinson).  Differentiable in the parameters.  This one takes a
        vector-Jacobian product a direction, of any network; raises Unsupported for guided ones."""
        if self.guided:
            raise Unsupported(
                "the divergence of a guided control takes second derivatives of the reward: use an "
                "unguided network, or recipe=Escorted, which needs no divergence"
            )
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            y = x if keep and x.requires_grad else x.detach().requires_grad_()
            u = self.control(y, t) + 0 * y  # a control that ignores x has divergence 0
            found = []
            for xi in directions.unbind(-2):
                (pulled,) = torch.autograd.grad(
                    (u * xi).sum(), y, create_graph=keep, retain_graph=True
                )
                found.append((pulled * xi).sum(-1))
        each = torch.stack(found, -1)
        return (u, each) if keep else (u.detach(), each.detach())


class Network(ABC):
    """The description of a model: a frozen dataclass, `name` registers it."""

    name: ClassVar[str]

    @abstractmethod
    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        """A fresh model on the generator's device, u = 0 at first."""


@dataclass(frozen=True)
class Mlp(Network):
    """u = squash(MLP(x / spread, embedding(t))): state layer, layers - 1 hidden ones, output; SiLU.

    The embedding (128 Fourier features -> 128 -> width) is evaluated once per time, not per
    point, so the cost of a point is that of the state layers alone.
    """

    name: ClassVar[str] = "Mlp"
    width: int = 64
    layers: int = 4

    def __post_init__(self) -> None:
        at_least_one(self, "width", "layers")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        return _Perceptron(self, dim, process, generator)


@dataclass(frozen=True)
class Guided(Network):
    """u = Mlp(x, t) + gate(t) h,  h = grad r(x) spread clipped to length `clip`, gate(t) learned.

    The hint grad r(x) is paid at every point (one gradient a step).  In the manner of PIS
    (arXiv 2111.15141) and DDS (2302.13834): near t = 1 the optimum is sigma grad r.
    """

    name: ClassVar[str] = "Guided"
    width: int = 64
    layers: int = 4
    clip: float = 20.0

    def __post_init__(self) -> None:
        at_least_one(self, "width", "layers")
        if not self.clip > 0:
            raise ValueError(f"clip is {self.clip}; it must be positive")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        return _GuidedPerceptron(self, dim, process, generator)


@dataclass(frozen=True)
class Potential(Network):
    """u = grad phi / spread, phi = spread^2 squash(MLP(x / spread, embedding(t))): no curl.

    For action matching (NETS, arXiv 2410.02711); a control costs about three times an `Mlp`'s."""

    name: ClassVar[str] = "Potential"
    width: int = 64
    layers: int = 4

    def __post_init__(self) -> None:
        at_least_one(self, "width", "layers")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        return _Potential(self, dim, process, generator)


def at_least_one(network: Network, *fields: str) -> None:
    for field in fields:
        if getattr(network, field) < 1:
            raise ValueError(f"{field} is {getattr(network, field)}; it must be 1 or more")


@dataclass(frozen=True)
class Corrected(Network):
    """The network `control` and beside it h(x) = MLP(x / spread) / spread, which starts at 0.

    h is what the adjoint Schroedinger bridge subtracts from grad log rho at the end (math.md 3,
    arXiv 2506.22565): `width` and `layers` are of h alone, SiLU between layers.
    """

    name: ClassVar[str] = "Corrected"
    width: int = 64
    layers: int = 3
    control: Network = Mlp()

    def __post_init__(self) -> None:
        at_least_one(self, "width", "layers")

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        model = self.control.build(dim, process, generator)
        model.correction = _Correction(self, dim, process, generator)
        return model


class _Correction(nn.Module):
    def __init__(self, spec: Corrected, dim: int, process: Process, generator: Generator) -> None:
        super().__init__()
        sizes = [dim] + [spec.width] * (spec.layers - 1)
        inner = [nn.Sequential(nn.Linear(a, b), nn.SiLU()) for a, b in itertools.pairwise(sizes)]
        out = nn.Linear(sizes[-1], dim)
        self.spread, self.project = process.spread, process.project
        self.layers = nn.Sequential(*inner, out)
        self.to(generator.device)
        initialise(self, generator)
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.layers(x / self.spread) / self.spread)


FEATURES = 64  # frequencies, each with a sine and a cosine
MOST = 50.0  # |u_i| < MOST: an unbounded control can throw its own paths ever further out


class Timed(Model):
    """A model whose control is `field`(x, an embedding of t), projected as the process is.

    The embedding, 128 Fourier features sin and cos(w t) -> 128 -> the width that the field asks
    for, is evaluated once per time, not per point; w / pi runs from 0.3 to `fastest`.  Features
    faster than the grid let a long training fit each of its times apart from its neighbours."""

    rate: Tensor
    phase: Tensor
    time: nn.Sequential

    def __init__(self, process: Process, fastest: float = 100.0) -> None:
        super().__init__()
        self.spread = process.spread
        self.project: Callable[[Tensor], Tensor] = process.project if process.removed else _as_is
        rate = torch.logspace(-0.5, math.log10(fastest), FEATURES) * math.pi
        self.register_buffer("rate", torch.cat([rate, rate]), persistent=False)
        phase = torch.tensor([0.0, math.pi / 2]).repeat_interleave(FEATURES)
        self.register_buffer("phase", phase, persistent=False)  # a cosine is a sine a quarter on

    def embed(self, t: Tensor, like: Tensor) -> Tensor:
        angle = torch.addcmul(self.phase, t.to(like.dtype)[..., None], self.rate)
        return self.time(angle.sin())

    @abstractmethod
    def field(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(*b, D) -> (*b, outputs); counts its points."""

    def count(self, x: Tensor) -> None:
        points = math.prod(x.shape[:-1])
        self.forward_points += points
        self.backward_points += points * torch.is_grad_enabled()

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        return self.project(self.steered(x, self.embed(t, x), hint))

    def steered(self, x: Tensor, embedding: Tensor, hint: Tensor | None) -> Tensor:
        """u from an embedded time, not yet projected."""
        return self.field(x, embedding)

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        whole = self.embed(t, t)
        each = whole.unbind(0)

        def step(x: Tensor, k: int | Tensor, hint: Tensor | None) -> Tensor:
            embedding = each[k] if isinstance(k, int) else whole[k]
            return self.project(self.steered(x, embedding, hint))

        return step


class Guidance(Timed):
    """Put before a `Timed` model built with one gate more: u + gate(t) h, h = grad r(x) spread
    clipped to length `clip`; the gate is the last entry of the embedding, and 0 at first."""

    guided = True
    clip: float

    def led(self, clip: float) -> None:
        self.clip = clip
        last = self.time[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight[-1:].zero_()
            last.bias[-1:].zero_()

    def steered(self, x: Tensor, embedding: Tensor, hint: Tensor | None) -> Tensor:
        if hint is None:
            raise ValueError("a guided control needs the reward's gradient at x as its hint")
        pull = hint * self.spread
        length = pull.norm(dim=-1, keepdim=True)
        pull = pull * (self.clip / length.clamp(min=self.clip))
        return super().steered(x, embedding[..., :-1], None) + embedding[..., -1:] * pull

    def stretched(
        self, x: Float[Tensor, "*b d"], t: Tensor, directions: Float[Tensor, "*c m d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
        return Model.stretched(self, x, t, directions)


def clock(outputs: int) -> nn.Sequential:
    """The embedding's layers after its Fourier features."""
    return nn.Sequential(nn.Linear(2 * FEATURES, 128), nn.SiLU(), nn.Linear(128, outputs))


def _as_is(x: Tensor) -> Tensor:
    return x


class _Perceptron(Timed):
    def __init__(
        self,
        spec: Mlp | Guided | Potential,
        dim: int,
        process: Process,
        generator: Generator,
        gates: int = 0,
        outputs: int = 0,
    ) -> None:
        super().__init__(process)
        width = spec.width
        self.inverse_spread = 1 / process.spread
        self.state = nn.Linear(dim, width)
        self.time = clock(width + gates)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(spec.layers - 1)])
        self.out = nn.Linear(width, outputs or dim)
        self.width = width
        self.to(generator.device)
        initialise(self, generator)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def field(self, x: Tensor, embedding: Tensor) -> Tensor:
        self.count(x)
        h = nn.functional.silu(self.state(x * self.inverse_spread) + embedding)
        for layer in self.hidden:
            h = nn.functional.silu(layer(h))
        return MOST * torch.tanh(self.out(h) / MOST)

    def stretched(
        self, x: Float[Tensor, "*b d"], t: Tensor, directions: Float[Tensor, "*c m d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
        """Tangents pushed forward layer by layer: exact, a fraction of a control a direction."""
        self.count(x)
        tangent = directions @ (self.state.weight.T * self.inverse_spread)
        h, bent = _silu(self.state(x * self.inverse_spread) + self.embed(t, x))
        tangent = bent[..., None, :] * tangent
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            h, bent = _silu(layer(h))
            tangent = bent[..., None, :] * nn.functional.linear(tangent, layer.weight)
        squashed = torch.tanh(self.out(h) / MOST)
        slope = self.project(directions) * (1 - squashed.square())[..., None, :]
        each = (slope * nn.functional.linear(tangent, self.out.weight)).sum(-1)
        return self.project(MOST * squashed), each


class _GuidedPerceptron(Guidance, _Perceptron):
    def __init__(self, spec: Guided, dim: int, process: Process, generator: Generator) -> None:
        super().__init__(spec, dim, process, generator, gates=1)
        self.led(spec.clip)


class _Potential(_Perceptron):
    def __init__(self, spec: Potential, dim: int, process: Process, generator: Generator) -> None:
        super().__init__(spec, dim, process, generator, outputs=1)

    def potential(self, x: Float[Tensor, "*b d"], t: Tensor) -> Float[Tensor, " *b"]:
        return self.spread**2 * self.field(x, self.embed(t, x))[..., 0]

    def steered(self, x: Tensor, embedding: Tensor, hint: Tensor | None) -> Tensor:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            y = x if keep and x.requires_grad else x.detach().requires_grad_()
            height = self.spread * self.field(y, embedding).sum()
            (u,) = torch.autograd.grad(height, y, create_graph=keep)
        return u

    def stretched(
        self, x: Float[Tensor, "*b d"], t: Tensor, directions: Float[Tensor, "*c m d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
        return Model.stretched(self, x, t, directions)


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """x sigmoid(x) and its derivative."""
    share = torch.sigmoid(x)
    value = x * share
    return value, share + value * (1 - share)


def initialise(module: nn.Module, generator: Generator) -> None:
    """U(-1/sqrt(fan in), 1/sqrt(fan in)), as torch's own layers, but from the given generator."""
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-bound, bound, generator=generator)
