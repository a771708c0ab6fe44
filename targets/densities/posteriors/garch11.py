"""GARCH(1, 1): a variance that remembers, with two parameters of sum below 1."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.posteriordb import Raw
from tiltbench.targets.constrained.transforms import CORNER, POSITIVE
from tiltbench.targets.densities.posteriors._laws import normal
from tiltbench.targets.densities.posteriors._observed import Data, InDatabase, stored


@dataclass(frozen=True)
class Garch11(InDatabase):
    """y_t ~ N(mu, s_t), s_1^2 given, s_t^2 = alpha0 + alpha1 (y_(t-1) - mu)^2 + beta1 s_(t-1)^2,
    flat priors on mu, alpha0 > 0, and alpha1, beta1 > 0 with alpha1 + beta1 < 1: the model of
    posteriordb's garch11, on 200 values drawn from it (data/make_posteriors.py)."""

    name = "garch11"
    test_value = -361.3452464871253
    centre = (5.139, -0.58, 0.22, 0.5)
    width = (0.084, 0.41, 0.53, 1.2)

    def data(self) -> Data:
        y = stored("garch11")
        return {"y": y, "first": torch.tensor([0.5])}

    def read(self, raw: Raw) -> Data:
        return {"y": raw.array("y", raw.whole("T")), "first": raw.positive("sigma1", 1)}

    def table(self, data: Data) -> Table:
        return (
            Parameter("mu"), Parameter("alpha0", POSITIVE), Parameter("persistence", CORNER, 2)
        )  # fmt: skip

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        alpha1, beta1 = theta["persistence"].unbind(-1)
        square = (data["y"] - theta["mu"][..., None]).square()
        pushes = (theta["alpha0"][..., None] + alpha1[..., None] * square).unbind(-1)
        variances = [data["first"][0].square().expand(beta1.shape)]
        for push in pushes[:-1]:
            variances.append(push + beta1 * variances[-1])
        sd = torch.stack(variances, -1).sqrt()
        return normal(data["y"], theta["mu"][..., None], sd).sum(-1)

    def reported(self, theta: Theta) -> Theta:
        alpha1, beta1 = theta["persistence"].unbind(-1)
        return {"mu": theta["mu"], "alpha0": theta["alpha0"], "alpha1": alpha1, "beta1": beta1}

    def from_draws(self, draws: Theta) -> Theta:
        return {**draws, "persistence": torch.stack([draws["alpha1"], draws["beta1"]], -1)}
