"""Learning: Adam at a falling rate, with clipped gradients, and the average of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from tiltbench.samplers.average import Average
from tiltbench.samplers.behaviour.replay import Store
from tiltbench.samplers.loss import Batch, Loss
from tiltbench.samplers.networks.model import Model
from tiltbench.targets.checks import Diverged
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem
from tiltbench.targets.purity import unchanged


@dataclass
class Trained:
    """Parameters, optimiser moments, the ring of labelled batches, what has been paid, and the
    buffers of a replay where there is one."""

    model: Model
    optimizer: torch.optim.Optimizer
    budget: Cost
    ring: list[Batch] = field(default_factory=list)
    paid: Cost = Cost()
    iteration: int = 0  # of the optimiser
    store: Store | None = None
    average: Average | None = None  # of the weights, where there is one
    loss: Tensor | None = None  # () of the last step of the optimiser

    def shown(self) -> Model:
        """The model that is drawn from, in the place of the one that trains."""
        return self.model if self.average is None else self.average.of(self.model)


@dataclass(frozen=True)
class Learning:
    """`rates` are those of Adam at the start of training: of the control, of the free energy, and
    of what a recipe learns beside them; they fall as a cosine.  Gradients are clipped to norm
    `clip`.  `decay` is that of the averaged weights; 0: there is no average."""

    rates: tuple[float, ...]
    clip: float
    decay: float

    def begin(self, model: Model, budget: Cost, store: Store | None) -> Trained:
        """Before the first step."""
        groups = (
            model.control_parameters(),
            model.free_energy_parameters(),
            *model.reference_parameters(),
        )
        device = model.log_Z.device
        # on a GPU the rate of every step must reach a captured graph
        optimizer = torch.optim.Adam(
            [
                {"params": list(parameters), "lr": torch.tensor(rate, device=device)}
                for parameters, rate in zip(groups, self.rates, strict=True)
            ],
            fused=True,
            capturable=device.type == "cuda",
        )
        average = Average(model) if self.decay else None
        return Trained(model, optimizer, budget, store=store, average=average)

    def slow_down(self, state: Trained, share: float) -> None:
        """The rates when `share` of the training is done."""
        for group, rate in zip(state.optimizer.param_groups, self.rates, strict=True):
            group["lr"].fill_(rate * math.cos(math.pi / 2 * share))

    def step(
        self, state: Trained, loss: Loss, posed: Problem, batch: Batch, generator: Generator
    ) -> None:
        """One step of the optimiser."""
        with unchanged(f"the loss {loss.name}", batch):  # it is asked again of kept batches
            value = loss.value(state.model, posed.base, batch, generator)
        state.optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), self.clip)
        value, iteration = value.detach(), state.iteration
        posed.checks.finite(
            norm,
            lambda: Diverged(
                f"the loss is {float(value):.4g} and its gradient norm {float(norm):.4g} "
                f"at iteration {iteration}; a smaller lr than {self.rates[0]:g} may help"
            ),
        )
        state.optimizer.step()
        state.iteration += 1
        state.loss = value
        if state.average is not None:
            state.average.add(state.model, self.decay, state.iteration)
