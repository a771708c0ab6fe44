"""A Brownian path of unknown scales, its middle unobserved."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors._laws import lognormal, normal
from tiltbench.targets.densities.posteriors._observed import Data, stored
from tiltbench.targets.densities.posteriors._two_scales import TwoScales


@dataclass(frozen=True)
class BrownianMotion(TwoScales):
    """path_1 ~ N(0, innovation), path_t ~ N(path_(t-1), innovation), y_t ~ N(path_t, noise) for t =
    1..10 and 21..30; log innovation and log noise ~ N(0, 2): Inference Gym's Brownian motion with
    missing middle observations, on 20 values drawn from it (data/make_posteriors.py)."""

    name = "brownian_motion"
    test_value = -42.20783763588866
    seen = (*range(1, 11), *range(21, 31))
    centre = (-3.0, -1.6, *(0.0,) * 30)
    width = (1.14, 0.52, *(0.15,) * 30)

    def data(self) -> Data:
        return {"y": stored("brownian_motion")}

    def table(self, data: Data) -> Table:
        scales = (Parameter("innovation", POSITIVE), Parameter("noise", POSITIVE))
        return (*scales, Parameter("path", size=30))

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        innovation, noise, path = theta["innovation"], theta["noise"], theta["path"]
        steps = path.diff(dim=-1, prepend=torch.zeros_like(path[..., :1]))
        seen = torch.cat([path[..., :10], path[..., 20:]], -1)
        prior = lognormal(innovation, 0, 2) + lognormal(noise, 0, 2)
        moved = normal(steps, 0, innovation[..., None]).sum(-1)
        return prior + moved + normal(data["y"], seen, noise[..., None]).sum(-1)
