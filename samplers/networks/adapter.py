"""Fine-tuning proper: the control is what a trainable copy of the pretrained network differs by."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.samplers.flows.probability_flow import ProbabilityFlow
from tiltbench.samplers.networks.control import Control
from tiltbench.samplers.networks.model import Model, Network
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.noising import Step, pick
from tiltbench.targets.bases.pretrained import Pretrained
from tiltbench.targets.bases.process import Process, Stepper


@dataclass(frozen=True)
class Adapter(Network):
    """u = lift_k (E_theta[X_1|x] - E_base[X_1|x]), theta a trainable copy: 0 at first.

    The controlled chain is then the fine-tuned model's own.  As dt -> 0, with memoryless noise
    sigma^2 = 2 eta, u = sqrt(2 / eta) (v_theta - v_base) (arXiv 2409.08861), for an epsilon model
    u = -(sigma / beta) (eps_theta - eps_base).  A point costs two evaluations of the network.  What
    trains is what the base's `trainable` makes: a copy of the network, or low-rank updates of it.
    """

    name: ClassVar[str] = "Adapter"

    def build(self, dim: int, process: Process, generator: Generator) -> Model:
        """Raises Unsupported where the base is no pretrained network."""
        if not isinstance(process, Pretrained):
            raise Unsupported("the base has no network to adapt: use model=Mlp")
        return Model(_Adapted(process, generator)).to(generator.device)


class _Adapted(Control):
    def __init__(self, base: Pretrained, generator: Generator) -> None:
        super().__init__()
        self.base = base
        self.tuned = base.trainable(base.placed(generator.device), generator)
        self.to(generator.device)

    def control(
        self, x: Float[Tensor, "*b d"], t: Tensor, hint: Tensor | None = None
    ) -> Float[Tensor, "*b d"]:
        k = (t * self.base.steps).round().long().clamp(max=self.base.steps - 1)
        return self.difference(x, k.expand(x.shape[:-1]))

    def on_grid(self, t: Float[Tensor, " k"]) -> Stepper:
        return lambda x, k, hint: self.difference(x, k)

    def probability_flow(self, base: Process, dim: int) -> ProbabilityFlow:
        """The flow of the fine-tuned network itself, at all times and not on the grid alone: there
        is no control to be told in between."""
        return ProbabilityFlow(self.base.of(copy.deepcopy(self.tuned)), dim)

    def difference(self, x: Float[Tensor, "*b d"], k: Step) -> Float[Tensor, "*b d"]:
        self.count(x)
        # both are read in the same way: rounding alone would be a control, too
        weights = self.base.placed(x.device)
        far = self.base.read(self.tuned, x, k)[0] - self.base.read(weights, x, k)[0]
        return pick(self.base.lifts, k, x) * far
