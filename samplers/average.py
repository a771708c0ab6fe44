"""The average of the weights along training, which draws in the place of the last ones."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from tiltbench.samplers.networks.model import Model


class Average(nn.Module):
    """Exponential moving average of what trains in a model, debiased as in Adam (arXiv 1412.6980):

    after n steps of the optimiser sum_i (1 - d) d^(n-i) theta_i / (1 - d^n), i = 1 ... n, d the
    decay.  Averaging the iterates of a noisy descent takes out most of their noise (Polyak and
    Juditsky, SIAM J. Control Optim. 30, 838, 1992).  Before the first step: the model as it is.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        for i, parameter in enumerate(_trained(model)):
            self.register_buffer(f"mean{i}", parameter.detach().clone())

    @torch.no_grad()
    def add(self, model: Model, decay: float, n: int) -> None:
        """theta_n, the parameters after step n >= 1."""
        weight = (1 - decay) / -math.expm1(n * math.log(decay))
        torch._foreach_lerp_(list(self.buffers()), _trained(model), weight)

    @torch.no_grad()
    def of(self, model: Model) -> Model:
        """A copy of the model with the averaged parameters; its earlier stage is the same one."""
        memo = {id(model.earlier): model.earlier}
        twin = copy.deepcopy(model, memo)
        for parameter, mean in zip(_trained(twin), self.buffers(), strict=True):
            parameter.copy_(mean)
        return twin


def _trained(model: Model) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
