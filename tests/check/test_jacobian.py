"""`tiltbench check` of posteriors: the wrong Jacobian is found, and named."""

import re

import pytest

from tiltbench.check.contract import check
from tiltbench.check.stated.jacobian import jacobian
from tiltbench.targets.constrained.transforms import POSITIVE
from tiltbench.targets.functions import Parameter, from_constrained
from tiltbench.targets.registry import TARGETS

FILE = '''
"""Seven numbers of one normal law."""
from dataclasses import dataclass
import torch
from tiltbench.targets.constrained.parameters import Parameter, constrain
from tiltbench.targets.constrained.posterior import Posterior
from tiltbench.targets.constrained.transforms import POSITIVE, Log

@dataclass(frozen=True)
class Mine(Posterior):
    """y_n ~ N(mu, sd^2), mu ~ N(0, 1), sd ~ Exponential(1)."""
    name = "mine"
    parameters = (Parameter("mu"), Parameter("sd", POSITIVE, centre=0.5, width=0.3))

    def log_joint(self, theta):
        y = torch.tensor([1.0, 2.0, 0.5, -1.0, 3.0, 2.5, 0.1], dtype=torch.float64).to(theta["mu"])
        mu, sd = theta["mu"][..., None], theta["sd"][..., None]
        likelihood = (-((y - mu) / sd) ** 2 / 2 - sd.log()).sum(-1)
        return likelihood - theta["mu"] ** 2 / 2 - theta["sd"]
'''
OWN = """
    def log_rho(self, x):
        theta, slope, inside = constrain(self.parameters, x.double())
        value = self.log_joint(theta) + LOG_JACOBIAN
        return value.masked_fill(~inside, -torch.inf).to(x.dtype)
"""
TRANSFORM = """
class Wrong(Log):
    def forward(self, u):
        return u.exp(), -u.sum(-1)

"""


def bad(folder, text):
    (folder / "mine.py").write_text(text)
    return [finding for finding in check(str(folder / "mine.py")) if not finding.ok]


def test_nothing_is_wrong_with_what_is_right(tmp_path):
    assert bad(tmp_path, FILE) == []
    assert bad(tmp_path, FILE + OWN.replace("LOG_JACOBIAN", "slope")) == []


WRONG = {
    "none": ("0 * slope", "log_rho is log_joint without a Jacobian"),
    "minus": ("-slope", "log_rho has minus the log-Jacobian"),
    "one": ("slope - theta['sd'].log()", "log_rho is off log_joint|differ by the constant"),
    "a constant": ("slope + 1.5", "differ by the constant 1.5, so that they have two log Z"),
    "anything": ("slope + theta['mu'] ** 2", "log_rho is off log_joint .* by .* nats"),
}


@pytest.mark.parametrize("slope, said", WRONG.values(), ids=WRONG)
def test_a_wrong_jacobian_gets_one_sentence(tmp_path, slope, said):
    (finding,) = bad(tmp_path, FILE + OWN.replace("LOG_JACOBIAN", slope))
    assert re.search(said, finding.what) and "leave `log_rho` out" in finding.remedy


def test_a_wrong_transform_gets_one_sentence(tmp_path):
    text = FILE.replace("@dataclass", TRANSFORM + "@dataclass").replace("POSITIVE, c", "Wrong(), c")
    (finding,) = bad(tmp_path, text)
    assert "the transform log of sd states is off autograd's by" in finding.what


def test_the_parameter_whose_jacobian_is_missing_is_named():
    two = (Parameter("mu", POSITIVE), Parameter("sd", POSITIVE, width=0.3))
    made = from_constrained("made", lambda mu, sd: -mu - sd, two)

    class Lacking(made):
        def log_rho(self, x):
            return super().log_rho(x) - x[..., 0]

    (finding,) = jacobian(Lacking())
    assert not finding.ok and finding.what == "log_rho lacks the log-Jacobian of mu"


@pytest.mark.parametrize("name", ["eight_schools_noncentered", "garch11", "hmm_example"])
def test_what_ships_has_the_jacobian_of_its_table(name):
    (finding,) = jacobian(TARGETS.load(name)())
    assert finding.ok and "log-Jacobian" in finding.what


def test_a_function_and_its_table_have_the_same_names():
    with pytest.raises(ValueError, match="a table of mu, tau, and its function takes mu, sd: give"):
        from_constrained("made", lambda mu, sd: mu, [Parameter("mu"), Parameter("tau", POSITIVE)])
    with pytest.raises(ValueError, match="a table of mu, mu"):
        from_constrained("made", lambda mu: mu, [Parameter("mu"), Parameter("mu")])
    with pytest.raises(ValueError, match="a table of mu, and its function takes sd"):
        from_constrained("made", lambda mu: mu, [Parameter("mu")], report=lambda sd: {"sd": sd})


def test_what_is_reported_may_be_more_than_the_parameters():
    def log_density(mu, sd):
        return -(mu**2) / 2 - sd

    table = [Parameter("mu"), Parameter("sd", POSITIVE)]
    made = from_constrained("made", log_density, table, report=lambda mu, sd: {"ratio": mu / sd})()
    assert list(made.statistics()) == ["ratio"] and made.dim == 2
