"""A regression with flat priors on correlated columns."""

from dataclasses import dataclass

from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors._laws import fitted, least_squares, regression
from tiltbench.targets.densities.posteriors._observed import Data, Observed, Place, stored


@dataclass(frozen=True)
class Nes1980(Observed):
    """y_n ~ N(x_n . beta, sigma) with flat priors on the 9 numbers beta and on sigma > 0; x is 1,
    ideology, race, three age groups, education, gender and income: the model of posteriordb's
    nes1980, on 600 persons drawn from it (data/make_posteriors.py)."""

    name = "nes1980"
    test_value = -1255.699093476958

    def data(self) -> Data:
        return least_squares(stored("nes1980"))

    def table(self, data: Data) -> Table:
        return (Parameter("beta", size=len(data["fit"])), Parameter("sigma", POSITIVE))

    def place(self, data: Data) -> Place:
        return fitted(data)

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        return regression(data, theta["beta"], theta["sigma"])
