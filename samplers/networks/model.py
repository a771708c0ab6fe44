"""What is trained: a control, the free energy along time, and what single losses add to them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple, cast, final

from jaxtyping import Float
from torch import Generator, Tensor, nn

from tiltbench.samplers.networks.control import Control, Sloped
from tiltbench.samplers.networks.free_energy import FreeEnergy
from tiltbench.samplers.networks.reference import Reference
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.process import Controlled, Process, Stepper

Part = Literal["potential", "corrector", "flow"]
HAVING: dict[Part, str] = {"potential": "Potential", "corrector": "Corrected", "flow": "Valued"}


class Earlier(NamedTuple):
    """A frozen copy of a model as it was at the end of a stage of its training (tilt matching)."""

    model: Model
    tilt: float  # a: its law is p_base exp(a r)
    goal: float  # the tilt the model itself is now trained towards


@final
class Model(nn.Module, Controlled):
    """The parts that a loss trains, and one face to them all.

    `network` is the control u(x, t).  `energy` is the free energy F(t), F(0) = 0 and F(1) = -log_Z.
    `reference`, where there is one, is what is learned of the reference itself (`LearnedBase`).
    `correction`, where there is one, is h(x) of the adjoint Schroedinger bridge, and `flow` is what
    sub-trajectory balance learns beside the control.  `earlier`, where there is one, is the stage
    before (tilt matching): no part of the parameters."""

    earlier: Earlier | None = None  # a tuple: copied with the model, but not registered

    def __init__(
        self,
        network: Control,
        correction: nn.Module | None = None,
        energy: FreeEnergy | None = None,
        flow: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.energy = energy or FreeEnergy()
        self.network = network
        self.correction = correction
        self.flow = flow
        self.reference: Reference | None = None

    @property
    def guided(self) -> bool:
        """Whether `control` wants grad r(x) as its hint."""
        return self.network.guided

    @property
    def forward_points(self) -> int:
        """Points (x, t) at which the control was evaluated: recorded, never limited."""
        return self.network.forward_points

    @property
    def backward_points(self) -> int:
        """Those of them whose graph was kept."""
        return self.network.backward_points

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        return self.network.control(x, t, hint)

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        return self.network.on_grid(t)

    def stretched(
        self, x: Float[Tensor, "*b d"], t: Tensor, directions: Float[Tensor, "*c m d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b m"]]:
        """u and xi_i . (du/dx) xi_i for each of m directions xi, shared or a set a point.

        Summed over the axes it is the divergence of u; at one random xi of unit covariance an
        estimate of it (Hutchinson).  Differentiable in the parameters.  Raises Unsupported for
        guided controls."""
        return self.network.stretched(x, t, directions)

    def potential(self, x: Float[Tensor, "*b d"], t: Tensor) -> Float[Tensor, " *b"]:
        """phi(x, t), length^2, of which spread u is the gradient."""
        return cast(Sloped, self.part("potential")).potential(x, t)

    def corrector(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """h(x) of the adjoint Schroedinger bridge, in units of a score (1/length)."""
        out: Tensor = self.part("corrector")(x)
        return out

    def log_flow(self, x: Float[Tensor, "*b d"], t: Tensor) -> Float[Tensor, " *b"]:
        """log E_base[exp r(X_1) | X_t = x] - log_Z as it is learned, nats; t broadcastable to
        x.shape[:-1]."""
        out: Tensor = self.part("flow")(x, t)
        return out

    def part(self, name: Part) -> nn.Module:
        """What a loss trains beside the control (`Loss.needs`).

        Raises Unsupported, which names the network to use, where the model has none."""
        sloped = self.network if isinstance(self.network, Sloped) else None
        parts = {"potential": sloped, "corrector": self.correction, "flow": self.flow}
        module = parts[name]
        if module is None:
            raise Unsupported(f"the network has no {name}: use model={HAVING[name]}")
        return module

    @property
    def log_Z(self) -> nn.Parameter:
        """-F(1), nats."""
        return self.energy.log_Z

    def free_energy(self, t: Tensor) -> Tensor:
        """F(t), differentiable in t."""
        return self.energy.at(t)

    def free_energy_rate(self, t: Tensor) -> Tensor:
        """dF/dt, in closed form."""
        return self.energy.rate(t)

    def free_energy_parameters(self) -> Iterator[nn.Parameter]:
        """What only F depends on: trained at a rate of its own."""
        return self.energy.parameters()

    def reference_parameters(self) -> tuple[list[nn.Parameter], ...]:
        """Those of the place and of the noise of a learned reference, at rates of their own."""
        if self.reference is None:
            return ()
        clock = self.reference.clock
        noise = [] if clock is None else list(clock.parameters())
        return list(self.reference.place.parameters()), noise

    def control_parameters(self) -> Iterator[nn.Parameter]:
        """All others that train, in the order of `parameters`."""
        groups = (self.free_energy_parameters(), *self.reference_parameters())
        others = {id(p) for group in groups for p in group}
        return (p for p in self.parameters() if p.requires_grad and id(p) not in others)

    def frozen(self) -> Model:
        """A copy that is not trained, knows no stage before it and has evaluated nothing."""
        twin = copy.deepcopy(self).requires_grad_(False)
        twin.earlier = None
        twin.network.forward_points = twin.network.backward_points = 0
        return twin

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
        self.network.forward_points, self.network.backward_points = map(int, state["points"])

    def state_dict(  # type: ignore[override]
        self, *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Under the names that the parts give: what is stored does not say how they are joined."""
        return {_bare(key): value for key, value in super().state_dict(*args, **kwargs).items()}

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """What `state_dict` has made; raises RuntimeError where names or shapes are others."""
        names = {_bare(key): key for key in super().state_dict()}
        whole = {names.get(key, key): value for key, value in state_dict.items()}
        return super().load_state_dict(whole, *args, **kwargs)


PARTS = ("energy.", "network.field.", "network.")


def _bare(key: str) -> str:
    """A parameter's name without that of the part which holds it."""
    for part in PARTS:
        if key.startswith(part):
            return key.removeprefix(part)
    return key


class Network(ABC):
    """The description of a model: a frozen dataclass, `name` registers it."""

    name: ClassVar[str]
    flows: ClassVar[bool] = False  # whether its models have a flow, which but few losses train

    @abstractmethod
    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        """A fresh model on the generator's device, u = 0 at first."""


def at_least_one(network: Network, *fields: str) -> None:
    for field in fields:
        if getattr(network, field) < 1:
            raise ValueError(f"{field} is {getattr(network, field)}; it must be 1 or more")
