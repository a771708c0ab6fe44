"""GARCH(1, 1): a variance that remembers, with two parameters of sum below 1."""

from dataclasses import dataclass

from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.transforms import CORNER, POSITIVE
from tiltbench.targets.densities.posteriors._laws import normal, recursion
from tiltbench.targets.densities.posteriors._observed import Data, Observed, printed, stored


@dataclass(frozen=True)
class Garch11(Observed):
    """y_t ~ N(mu, s_t), s_1^2 given, s_t^2 = alpha0 + alpha1 (y_(t-1) - mu)^2 + beta1 s_(t-1)^2,
    flat priors on mu, alpha0 > 0, and alpha1, beta1 > 0 with alpha1 + beta1 < 1: the model of
    posteriordb's garch11, on 200 values drawn from it (data/make_posteriors.py)."""

    name = "garch11"
    test_value = -361.3452464871253
    centre = (5.139, -0.58, 0.22, 0.5)
    width = (0.084, 0.41, 0.53, 1.2)

    def data(self) -> Data:
        return {"y": stored("garch11"), "first": printed(0.5)}

    def table(self, data: Data) -> Table:
        both = Parameter("persistence", CORNER, 2)
        return (Parameter("mu"), Parameter("alpha0", POSITIVE), both)

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        alpha1, beta1 = theta["persistence"].unbind(-1)
        square = (data["y"] - theta["mu"][..., None]).square()
        pushes = theta["alpha0"][..., None] + alpha1[..., None] * square
        variances = recursion(data["first"][0].square(), pushes[..., :-1], beta1)
        return normal(data["y"], theta["mu"][..., None], variances.sqrt()).sum(-1)

    def reported(self, theta: Theta) -> Theta:
        alpha1, beta1 = theta["persistence"].unbind(-1)
        return {"mu": theta["mu"], "alpha0": theta["alpha0"], "alpha1": alpha1, "beta1": beta1}
