"""Eight schools: a hierarchical model of 16 printed numbers."""

from dataclasses import dataclass

from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.densities.posteriors._laws import cauchy, normal
from tiltbench.targets.densities.posteriors._observed import Data, Observed, printed


@dataclass(frozen=True)
class EightSchools(Observed):
    """y_j ~ N(theta_j, sigma_j), theta_j = mu + tau t_j, t_j ~ N(0, 1), mu ~ N(0, 5), tau ~
    Cauchy(0, 5) above 0 (not renormalised): effects of coaching in eight schools, as printed in
    Rubin (1981) and in Gelman et al., Bayesian Data Analysis, section 5.5."""

    name = "eight_schools_noncentered"
    test_value = -44.608942369569355
    centre = (0.32, 0.1, -0.09, 0.07, -0.16, -0.07, 0.35, 0.08, 4.4, 0.8)
    width = (0.99, 0.94, 0.97, 0.95, 0.93, 0.94, 0.96, 0.97, 3.3, 1.2)

    def data(self) -> Data:
        effects = printed(28, 8, -3, 7, -1, 1, 18, 12)
        return {"y": effects, "sigma": printed(15, 10, 16, 11, 9, 11, 10, 18)}

    def table(self, data: Data) -> Table:
        schools = len(data["y"])
        return (Parameter("t", size=schools), Parameter("mu"), Parameter("tau", POSITIVE))

    def log_density(self, theta: Theta, data: Data) -> Tensor:
        y = normal(data["y"], self.reported(theta)["theta"], data["sigma"]).sum(-1)
        prior = normal(theta["t"], 0, 1).sum(-1) + normal(theta["mu"], 0, 5)
        return y + prior + cauchy(theta["tau"], 0, 5)

    def reported(self, theta: Theta) -> Theta:
        mu, tau = theta["mu"], theta["tau"]
        return {"mu": mu, "tau": tau, "theta": mu[..., None] + tau[..., None] * theta["t"]}
