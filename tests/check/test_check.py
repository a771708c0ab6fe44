"""`tiltbench check`: silent on what is right, one clear sentence for each thing that is wrong."""

from __future__ import annotations

import re

import pytest

from tests.tools.registered import by_default, one_of_each_file
from tiltbench.check import loss as check_loss
from tiltbench.check import metric as check_metric
from tiltbench.check import sampler as check_sampler
from tiltbench.check import truth as check_truth
from tiltbench.check import unknown as check_unknown
from tiltbench.check.contract import check
from tiltbench.cli import skeletons
from tiltbench.cli.skeletons import write_skeleton
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import METRICS, build_sampler
from tiltbench.samplers.classical.smc import Smc
from tiltbench.targets.cost import Cost
from tiltbench.targets.registry import UnknownName

TARGET = '''
import math
from dataclasses import dataclass
import torch
from tiltbench.targets.target import Density, Modes, Observable, Truth

@dataclass(frozen=True)
class Mine(Density):
    """N(1/2, 4 I), not normalised."""
    name = "mine"
    dim: int = 3
    scale = 2.0

    def log_rho(self, x):
        return -(x - 0.5).square().sum(-1) / 8

    def truth(self):
        return Truth(
            "closed form",
            log_Z=self.dim * math.log(2 * math.sqrt(2 * math.pi)),
            sample=self.draw,
            modes=Modes(torch.tensor([0.5, 0.5]), lambda x: (x[:, 1] > 0.5).long()),
            observables={"mean": Observable(lambda x: x.mean(-1), 0.5, 2 / math.sqrt(self.dim))},
            noised_score=lambda x, signal, noise: (signal[:, None] * 0.5 - x)
            / (4 * signal**2 + noise**2)[:, None],
        )

    def draw(self, n, generator):
        shape = (n, self.dim)
        xi = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)
        return 0.5 + 2 * xi
'''

WRONG_TARGETS = {  # what is changed, into what, and what the one sentence must say
    "shape": ("sum(-1) / 8", "sum(-1, keepdim=True) / 8", r"has shape \(5, 1\), not \(5,\)"),
    "nan": ("/ 8", "/ 8 + (9 - x[..., 0]).log()", "log_rho is NaN at .* first at x = "),
    "nan in truth": ("0.5 + 2 * xi", "(0.5 + 2 * xi) * math.nan", "50 of 50 draws are NaN"),
    "log Z": ("math.log(2 *", "math.log(3 *", "log Z is .* by estimation, the truth says"),
    "width": ("0.5 + 2 * xi", "0.5 + 2.2 * xi", "draws and density disagree: E.x . grad log p"),
    "place": ("- 0.5).sq", "- 0.8).sq", "grad log p has mean .* over exact draws, not 0"),
    "not frozen": ("(frozen=True)", "", "not a frozen dataclass"),
    "not a dataclass": ("@dataclass(frozen=True)", "", "must be a frozen dataclass"),
    "no truth": ("def truth", "def untruth", "abstract"),
    "not a truth": ("return Truth(", "return dict(kind=", r"returns dict"),
    "width of scale": (
        "scale = 2.0",
        "scale = 4.0",
        "scale is 4, the rms coordinate of",
    ),
    "syntax": ("def draw(", "def draw(:", "not valid Python"),
    "no name": ('name = "mine"', 'title = "mine"', "names no plug-in"),
    "import": ("import math", "import mathematics", "raises ModuleNotFoundError"),
    "no density": ("(Density)", "", "neither a target nor a loss nor a sampler nor a metric"),
    "raises": ("-(x - 0.5)", "-(x - missing)", "log_rho raises NameError"),
    "dim": ("dim: int = 3", "dim: int = 0", "dim is 0, not a positive whole number"),
    "scale": ("scale = 2.0", "scale = -2.0", "scale is -2.0, not a positive number"),
    "device": (
        "-(x - 0.5).sq",
        "-(x - torch.full((self.dim,), 0.5, dtype=x.dtype)).sq",
        "fails for x on another device: Tensor on device cpu",
    ),
    "dtype": ("sum(-1) / 8", "sum(-1).double() / 8", "at x of torch.float32 is torch.float64"),
    "batch": ("(x - 0.5).sq", "(x - 0.5 * x.std()).sq", "a batch differs|raises|NaN"),
    "noise": ("/ 8", "/ 8 + torch.rand(())", "batch differs|other values the second time"),
    "gradient": ("(x - 0.5).sq", "(x.detach() - 0.5 + 0 * x).sq", "off finite differences"),
    "test value": ("scale = 2.0", "scale = 2.0\n    test_value = 1.0", "test_value says 1"),
    "draws' shape": ("(n, self.dim)", "(n, 1, self.dim)", r"not \(50, 3\), float64"),
    "draws' dtype": (
        "return 0.5 + 2 * xi",
        "return (0.5 + 2 * xi).float()",
        "not .50, 3., float64",
    ),
    "seed": ("generator=generator, device=generator.device, ", "", "equal seeds give other draws"),
    "cells": ("[0.5, 0.5]", "[0.6, 0.4]", "cell . holds .* its mass says 0.[46]"),
    "cells' sum": ("[0.5, 0.5]", "[0.5, 0.4]", "masses that sum to 0.9"),
    "cells' index": ("(x[:, 1] > 0.5).long()", "(x[:, 1] > 0.5) * 2", "2 cells with masses"),
    "observable": ("mean(-1), 0.5", "mean(-1), 0.7", "observable mean is .* the truth says 0.7"),
    "observable sd": ("2 / math.sqrt(self.dim)", "2.0", "observable mean has sd .* says 2"),
    "noised score": ("(4 * signal**2", "(2 * signal**2", "noised_score at signal 1, noise 0"),
}


def test_log_Z_is_compared_without_draws(tmp_path):
    blind = TARGET.replace("sample=self.draw", "sample=None").replace("modes=Modes", "noise=Modes")
    blind = re.sub(r"            noise=Modes.*\n", "", blind)
    (tmp_path / "mine.py").write_text(blind)
    assert bad(check(str(tmp_path / "mine.py"))) == []
    (tmp_path / "mine.py").write_text(blind.replace("math.log(2 *", "math.log(3 *"))
    one_sentence(tmp_path / "mine.py", "from Gaussians around 0, the truth says")


TILT = '''
from dataclasses import dataclass
from tiltbench.targets.tilts.tilt_linear import TiltLinear

@dataclass(frozen=True)
class Mine(TiltLinear):
    """A tilt that says of itself what is not so."""
    name = "mine"

    def truth(self):
        return super().truth()._replace(CLAIM)
'''

WRONG_TILTS = {
    "log_Z=0.8": r"log Z is 0\.6.* by estimation, the truth says 0.8",
    "sample=self.base.law.sample": "a coordinate of grad log p has mean",
    "sample=lambda n, g: TiltLinear.truth(self).sample(n, g) * 1.1": r"disagree: E\[x . grad",
    "noised_score=lambda x, a, b: -x": "noised_score at signal 1, noise 0 is not",
    "log_Z_along=lambda a, b, s: 0.606237 * s": r"log_Z_along\(0.6, 0.5, 0.5\) is 0.1",
}


@pytest.mark.parametrize("claim", WRONG_TILTS)
def test_a_wrong_tilt_gets_one_sentence(tmp_path, claim):
    (tmp_path / "mine.py").write_text(TILT.replace("CLAIM", claim))
    one_sentence(tmp_path / "mine.py", WRONG_TILTS[claim])


PRETRAINED = '''
from dataclasses import dataclass
from functools import cached_property
import torch
from torch import nn
from tiltbench.targets.bases.pretrained import Pretrained, velocity
from tiltbench.targets.target import Tilt, Truth

class Net(nn.Module):
    """The velocity of N(0, 4 I) on the line from noise to data."""

    def forward(self, x, t):
        t = t[..., None]
        return x * (4 * t - (1 - t)) / (4 * t**2 + (1 - t) ** 2)

@dataclass(frozen=True)
class Mine(Tilt):
    """A network of one's own."""
    name = "mine"
    dim = 3
    scale = 2.0

    @cached_property
    def base(self):
        doubt = [(t, 2 * (1 - t) / (4 * t**2 + (1 - t) ** 2) ** 0.5) for t in (0.0, 0.5, 1.0)]
        return Pretrained(Net(), velocity, 2.0, doubt)

    def reward(self, x):
        return -0.1 * x.square().sum(-1)

    def truth(self):
        return Truth("unknown")
'''

WRONG_BASES = {
    "nan": ("return x *", "return 0 * (x - 2).log() + x *", "of 400 paths of the base end in NaN"),
    "shape": (
        "return x *",
        "return x[..., :1] *",
        r"maps \(400, 3\) to \(400, 1\): it must answer",
    ),
    "tuple": ("return x * (", "return x, x * (", r"maps \(400, 3\) to tuple: it must answer"),
    "in place": ("return x *", "return x.mul_(0.9) *", "the base changes its points in place"),
    "random": ("return x *", "return (1 + 1e-3 * torch.rand(1)) * x *", "mean the second time"),
    "batch": (
        "return x *",
        "return (x + 0.1 * x.mean(0)) *",
        "of a batch differs from that of its",
    ),
    "rms": ("velocity, 2.0", "velocity, 0.5", "spread of the base is 0.5, the rms .* its draws 1"),
    "no doubt": ("velocity, 2.0, doubt", "velocity, 2.0, []", "doubt must be pairs"),
}


@pytest.mark.parametrize("wrong", WRONG_BASES)
def test_a_wrong_base_gets_one_sentence(tmp_path, wrong):
    old, new, expected = WRONG_BASES[wrong]
    (tmp_path / "mine.py").write_text(PRETRAINED.replace(old, new))
    one_sentence(tmp_path / "mine.py", expected)


@pytest.mark.parametrize("text", [TILT.replace("CLAIM", ""), PRETRAINED], ids=["tilt", "network"])
def test_a_tilt_without_fault_gets_none(tmp_path, text):
    (tmp_path / "right.py").write_text(text)
    assert bad(check(str(tmp_path / "right.py"))) == []


SYMMETRIC = '''
from dataclasses import dataclass
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Mine(Density):
    """A law that states a symmetry."""
    name = "mine"
    dim = 6
    GEOMETRY

    def log_rho(self, x):
        y = x.unflatten(-1, SHAPE)
        return ENERGY

    def truth(self):
        return Truth("unknown")
'''
PAIRS = "-((y[..., :, None, :] - y[..., None, :, :]).square().sum((-3, -2, -1)))"
BENT = PAIRS + " - (y[..., 1, :] - y[..., 2, :]).square().sum(-1)"
HAND = (
    PAIRS + " - ((y[..., 1, 0] - y[..., 0, 0]) * (y[..., 2, 1] - y[..., 0, 1])"
    " - (y[..., 1, 1] - y[..., 0, 1]) * (y[..., 2, 0] - y[..., 0, 0])).tanh()"
)
THREE = ("particles = (3, 2)", "(3, 2)")
TORUS = ("lattice = (2, 3)", "(2, 3)")
CLAIMS = {
    "particles": (THREE[0] + "\n    scale = 0.3", "(3, 2)", PAIRS, ""),
    "lattice": (*TORUS, "-y.square().square().sum((-2, -1))", ""),
    "a chain": (*THREE, "-y.diff(dim=-2).square().sum((-2, -1))", "permutations of the particles"),
    "an axis": (*THREE, PAIRS.replace("sum((-3, -2, -1))", "sum((-3, -2))[..., 0]"), "rotations"),
    "a trap": (*THREE, "-y.square().sum((-2, -1))", "under translations"),
    "a mirror": (
        "particles = (6, 1)",
        "(6, 1)",
        "-(lambda z: z**4 + z**3)(y - y.mean(-2, keepdim=True)).sum((-2, -1))",
        "reflections",
    ),
    "a molecule": ("particles = (3, 2); alike = ((1, 2),); scale = 0.28", "(3, 2)", BENT, ""),
    "unlike ones": ("particles = (3, 2); alike = ((0, 1),)", "(3, 2)", BENT, "permutations of the"),
    "a hand": ("particles = (3, 2); alike = (); chiral = True; scale = 0.3", "(3, 2)", HAND, ""),
    "no hand": ("particles = (3, 2); alike = ()", "(3, 2)", HAND, "reflections"),
    "a group": (
        "particles = (3, 2); alike = ((1, 3),)",
        "(3, 2)",
        BENT,
        "are not of particles of mine, each named once",
    ),
    "a column": (
        *TORUS,
        "-(y.square() * y.new_tensor([1.0, 2.0, 3.0])).sum((-2, -1))",
        "translations along axis 1",
    ),
    "a field": (*TORUS, "(y - y.square()).sum((-2, -1))", "changes under x -> -x"),
    "a count": ("particles = (3, 3)", "(3, 2)", PAIRS, "particles in 3 dimensions are not the 6"),
    "sites": ("lattice = (2, 4)", "(2, 3)", "-y.square().sum((-2, -1))", "has not the 6 sites"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_stated_symmetries_are_tried(tmp_path, claim, monkeypatch):
    monkeypatch.setattr(check_unknown, "POINTS", Cost(2000, 2000))
    geometry, shape, energy, expected = CLAIMS[claim]
    text = SYMMETRIC.replace("GEOMETRY", geometry).replace("SHAPE", shape)
    (tmp_path / "mine.py").write_text(text.replace("ENERGY", energy))
    if expected:
        one_sentence(tmp_path / "mine.py", expected)
    else:
        assert bad(check(str(tmp_path / "mine.py"))) == []


@pytest.mark.parametrize("old, new, expected", [
    ("", "", ""),
    ("scale = 2.0", "scale = 9.0", "scale is 9, the rms coordinate of trial draws is [12]"),
    ("scale = 2.0", "scale = 0.2", "scale is 0.2, the rms coordinate of trial draws is [12]"),
    ('"unknown"', '"unknown", observables={"square": Observable(torch.square, 4.0, 5.0)}',
     "observable square of .* has shape"),
])  # fmt: skip
def test_a_target_without_a_truth_is_tried_all_the_same(tmp_path, old, new, expected):
    assert old in UNKNOWN
    (tmp_path / "mine.py").write_text(UNKNOWN.replace(old, new) if old else UNKNOWN)
    if expected:
        one_sentence(tmp_path / "mine.py", expected)
    else:
        results = check(str(tmp_path / "mine.py"))
        assert bad(results) == [] and "rms coordinate of trial draws is 2" in results[-1].what


UNKNOWN = '''
from dataclasses import dataclass
import torch
from tiltbench.targets.target import Density, Observable, Truth

@dataclass(frozen=True)
class Mine(Density):
    """N(0, 4 I) in six dimensions, of which nothing is known."""
    name = "mine"
    dim = 6
    scale = 2.0

    def log_rho(self, x):
        return -x.square().sum(-1) / 8

    def truth(self):
        return Truth("unknown")
'''

TWINS = '''
from dataclasses import dataclass
import torch
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Twins(Density):
    """Two equal modes, whose truth knows one."""
    name = "twins"
    dim: int = 2
    scale = 6.0

    def log_rho(self, x):
        here, there = ((x - m).square().sum(-1) / 2 for m in (6, -6))
        return torch.logaddexp(-here, -there)

    def truth(self):
        return Truth("closed form", log_Z=1.8378770664093453, sample=self.draw)

    def draw(self, n, generator):
        return 6 + torch.randn(n, 2, generator=generator, dtype=torch.float64)
'''


def test_a_truth_that_knows_one_of_two_modes_is_found(tmp_path):
    (tmp_path / "twins.py").write_text(TWINS)
    one_sentence(tmp_path / "twins.py", r"log Z is 2\.5.* from Gaussians around 0, .* says 1.837")


def test_a_target_too_narrow_for_the_proposal_is_not_accused(tmp_path):
    """The second mode is 1e-3 wide and holds half of the mass: no Gaussian around 0 meets it."""
    spike = TWINS.replace("/ 2 for m in (6, -6)", "/ (2 * s**2) for m, s in ((6, 1), (-6, 1e-4))")
    spike = spike.replace("-there)", "-there + 18.420680743952367)")
    spike = spike.replace("1.8378770664093453", "2.5310242469692907")
    spike = spike.replace(
        "return 6 + torch.randn(n, 2, generator=generator, dtype=torch.float64)",
        "xi = torch.randn(n, 3, generator=generator, dtype=torch.float64)\n"
        "        return torch.where(xi[:, 2:] > 0, 6 + xi[:, :2], -6 + 1e-4 * xi[:, :2])",
    )
    (tmp_path / "twins.py").write_text(spike)
    assert bad(check(str(tmp_path / "twins.py"))) == []


SAMPLER = '''
from dataclasses import dataclass
import torch
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.targets.bases.references import Brownian

@dataclass(frozen=True)
class Mine(Sampler):
    """Importance sampling from the base."""
    name = "mine"
    reference: Brownian = Brownian()
    batch: int = 50

    def init(self, problem, budget, generator):
        return torch.zeros(problem.dim)

    def step(self, problem, state, generator):
        x = problem.base.end((self.batch, problem.dim), generator)
        problem.reward(x)
        return state

    def draw(self, problem, state, n, generator):
        x = problem.base.end((n, problem.dim), generator)
        return Draws(x, problem.reward(x).double())
'''

WRONG_SAMPLERS = {
    "not frozen": ("(frozen=True)", "", "not a frozen dataclass|different default|unhashable"),
    "weights": ("reward(x).double()", "reward(x).double() + 1", r"E\[exp log_w\] / Z is"),
    "scaled draws": ("return Draws(x,", "return Draws(0.8 * x,", "weighted mean of x_0 is off"),
    "wide draws": (
        "return Draws(x,",
        "return Draws(0.5 + 1.4 * (x - 0.5),",
        "weighted mean of .* is off",
    ),
    "weights' shape": ("(x).double()", "(x).double()[:, None]", "log_w is of shape"),
    "weights' dtype": ("(x).double()", "(x)", "torch.float32, with 0 NaN"),
    "not finite": ("return Draws(x,", "return Draws(x / 0,", "draws are not finite"),
    "too many": ("((n, problem", "((n + 1, problem", "with 0 < n"),
    "seed": (
        "x = problem.base.end((n, problem.dim), generator)",
        "x = problem.base.end((n, problem.dim), torch.Generator().manual_seed(hash(id(state))))",
        "equal seeds make other draws",
    ),
    "idle": ("        problem.reward(x)\n", "", "spent nothing and `done` says False"),
    "hidden work": (
        "        return Draws(x,",
        "        [problem.reward(x) for _ in range(500)]\n        return Draws(x,",
        "draw raises BudgetExceeded",
    ),
    "no weights": ("(x, problem.reward(x).double())", "(x)", r"E x_0\^1 is .* on a Gaussian"),
    "reverse": (
        "    def draw(",
        "    def reverse(self, problem, state, x, generator):\n"
        "        from tiltbench.samplers.sampler import Traced\n"
        "        return Traced(problem.reward(x) + 2)\n\n    def draw(",
        "between draws and reverse paths",
    ),
}


def bad(findings):
    return [finding for finding in findings if not finding.ok]


# By `make slow`: others like them are tried here; of these losses the optimum and the price are.
COSTLY = (
    *("digits_even", "digits_superresolution", "lj55"),
    *("hudson_lynx_hare", "hmm_example", "item_response"),
)
COSTLY_LOSSES = (
    *("adjoint_matching_full", "importance_fine_tuning", "dds", "relative_entropy"),
    *("local_score_matching", "target_score_matching", "trust_region_log_variance"),
    *("adjoint_schroedinger_bridge", "trajectory_balance", "conditional_score_matching"),
    *("cmcd_kl", "nets_pinn", "tilt_matching", "adjoint_sampling"),
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in COSTLY else name
        for name in by_default()
    ],
)
def test_registered_targets_pass(name, monkeypatch):
    if name == "digits_class":  # whose exact draws go through a network
        monkeypatch.setattr(check_truth, "N", 1000)
    findings = check(name)
    assert bad(findings) == [] and len(findings) > 10


@pytest.mark.parametrize("name", sorted(METRICS.entries))
def test_registered_metrics_pass(name, monkeypatch):
    monkeypatch.setattr(check_metric, "N", 200)
    findings = check(name)
    assert bad(findings) == [] and len(findings) > 4


@pytest.mark.parametrize("name", one_of_each_file((*COSTLY_LOSSES, "ais")))
def test_registered_samplers_pass(name):
    findings = check(name)
    assert bad(findings) == [] and len(findings) > 8


@pytest.mark.parametrize("name", COSTLY_LOSSES)
def test_the_optimum_and_the_price_of_a_costly_loss_are_right(name):
    sampler = build_sampler({"name": name, "params": {}})
    found = [*check_loss.check(sampler), *check_sampler._prices(sampler)]
    assert bad(found) == [] and any("as declared" in finding.what for finding in found)


def one_sentence(path, said):
    findings = bad(check(str(path)))
    assert len(findings) == 1, findings
    (finding,) = findings
    assert finding.remedy and "\n" not in finding.what
    assert re.search(said, finding.what), finding.what


def test_a_right_target_passes(tmp_path):
    (tmp_path / "mine.py").write_text(TARGET)
    assert bad(check(str(tmp_path / "mine.py"))) == []
    assert bad(check(f"{tmp_path / 'mine.py'}:mine[dim=2]")) == []


@pytest.mark.parametrize("case", WRONG_TARGETS)
def test_a_wrong_target_gets_one_sentence(tmp_path, case):
    old, new, said = WRONG_TARGETS[case]
    assert old in TARGET
    (tmp_path / "mine.py").write_text(TARGET.replace(old, new, 1))
    one_sentence(tmp_path / "mine.py", said)


def test_a_right_sampler_passes(tmp_path):
    (tmp_path / "mine.py").write_text(SAMPLER)
    assert bad(check(str(tmp_path / "mine.py"))) == []


@pytest.mark.parametrize("case", WRONG_SAMPLERS)
def test_a_wrong_sampler_gets_one_sentence(tmp_path, case):
    old, new, said = WRONG_SAMPLERS[case]
    assert old in SAMPLER
    (tmp_path / "mine.py").write_text(SAMPLER.replace(old, new, 1))
    one_sentence(tmp_path / "mine.py", said)


def test_few_islands_do_not_hide_wrong_weights(monkeypatch):
    right = Smc.draw

    def shifted(*arguments):
        draws = right(*arguments)
        return draws._replace(log_w=draws.log_w + 0.3)

    monkeypatch.setattr(Smc, "draw", shifted)
    findings = bad(check("smc"))
    assert len(findings) == 1 and "E[exp log_w] / Z is" in findings[0].what


LOSS = """
from tiltbench.samplers.loss import Loss, path_space
from tiltbench.targets.cost import Cost

_variance = path_space("variance", lambda log_w, model: log_w.var())
mine = Loss("mine", _variance.label, _variance.value, lambda paths, steps, guided: Cost(2 * paths))
"""


def test_a_wrong_price_gets_one_sentence(tmp_path):
    (tmp_path / "mine.py").write_text(LOSS)
    one_sentence(tmp_path / "mine.py", r"unguided: 5 paths of 3 steps cost \(5, 0\) .* \(10, 0\)")


WRITTEN = skeletons.LOSS.replace("NAME", "mine")
WRONG_LOSSES = {
    "graph": (
        "problem.reward(path.x[-1]).detach())",
        "(model.log_Z + 0 * problem.reward(path.x[-1])).detach() + 0 * model.log_Z)",
        "label hands over r with a graph",
    ),
    "shape": ("batch).var()", "batch).square()", "grad can be implicitly created|value has shape"),
    "detached": ("batch).var()", "batch).var().detach()", "not require grad|value has no gradient"),
    "label in place": (
        "problem.reward(path.x[-1]).detach())",
        "problem.reward(path.x[-1].mul_(1.0)).detach())",
        "label changes the path in place",
    ),
    "value in place": (
        "    return log_weight(",
        "    batch['r'] += 1\n    return log_weight(",
        "value changes the batch in place",
    ),
    "noise": (
        "batch).var()",
        "batch).var() * (1 + __import__('torch').rand(()))",
        "value differs between two calls with one seed",
    ),
    "sign": ("batch).var()", "batch).var() * -1", "does not draw the control to the optimum"),
    "beside": (
        "log_weight(model, process, batch).var()",
        "(log_weight(model, process, batch) - 0.5 * batch['x'][-1].sum(-1)).var()",
        "does not draw the control to the optimum|at the optimum its slope is",
    ),
}


@pytest.mark.parametrize("case", WRONG_LOSSES)
def test_a_wrong_loss_gets_one_sentence(tmp_path, case):
    old, new, said = WRONG_LOSSES[case]
    assert old in WRITTEN
    (tmp_path / "mine.py").write_text(WRITTEN.replace(old, new, 1))
    one_sentence(tmp_path / "mine.py", said)


def test_a_loss_on_a_base_that_it_does_not_serve_is_let_pass(tmp_path):
    line = "    return path_batch(path, problem.reward(path.x[-1]).detach())"
    assert line in WRITTEN
    unfit = WRITTEN.replace(line, "    from tiltbench.samplers.sampler import Unsupported\n" + line)
    (tmp_path / "mine.py").write_text(unfit.replace(line, "    raise Unsupported('no')"))
    sampler = build_sampler({"name": str(tmp_path / "mine.py"), "params": {}})
    (finding,) = check_loss.check(sampler)
    assert finding.ok and "its optimum was not tried: no" in finding.what


METRIC = """
import torch
from tiltbench.metric import Metric
from tiltbench.samplers.weights import Estimate

def fn(target, truth, outcome, generator):
    x = outcome.draws.x
    y = truth.sample(len(x), generator)
    return Estimate(float((x.mean(0) - y.mean(0)).norm()), 0.1, len(x))

mine = Metric("mine", frozenset({"sample"}), "lower", "length", "floor", fn)
"""
WRONG_METRICS = {
    "needs": ('{"sample"}', '{"samples"}', "needs samples, which nothing provides"),
    "better": ('"lower"', '"smaller"', "better is 'smaller'"),
    "perfect": ('"floor"', '"none"', "perfect is 'none'"),
    "unit": ('"length"', '""', "unit is ''"),
    "returns": ("return Estimate(", "return max(", "fn returns "),
    "tensor": ("float((x", "((x", "fn returns .*tensor"),
    "error": ("0.1, len", "-0.1, len", "it says error -0.1 from"),
    "count": ("0.1, len(x)", "0.1, 0", "from 0 points"),
    "raises": ("x.mean(0) -", "x.mean(0) / missing -", "fn raises NameError"),
    "in place": ("y = truth", "x += 1; y = truth", "changes the draws in place"),
    "in place, equal": ("y = truth", "x.mul_(1); y = truth", "changes the draws in place"),
    "noise": ("float((x", "float(torch.rand(()) + (x", "equal seeds give other values"),
    "zero": ('"floor"', '"0"', "exact draws score .*, and it says 0"),
    "one-sided": ("y.mean(0)).norm()", "x.mean(0)).norm() + y.std()", "no wrong draws"),
    "direction": ('"lower"', '"higher"', "no wrong draws .* with higher the better"),
}


def test_a_right_metric_passes(tmp_path):
    (tmp_path / "mine.py").write_text(METRIC)
    assert bad(check(str(tmp_path / "mine.py"))) == []


@pytest.mark.parametrize("case", WRONG_METRICS)
def test_a_wrong_metric_gets_one_sentence(tmp_path, case):
    old, new, said = WRONG_METRICS[case]
    assert old in METRIC
    (tmp_path / "mine.py").write_text(METRIC.replace(old, new, 1))
    one_sentence(tmp_path / "mine.py", said)


@pytest.mark.parametrize("kind", skeletons.KINDS)
def test_a_skeleton_works_and_its_test_passes(tmp_path, kind, monkeypatch):
    code, test = write_skeleton(kind, f"my_{kind}", tmp_path)
    monkeypatch.chdir(tmp_path)
    scope = {"__file__": str(test)}
    exec(test.read_text(), scope)  # as pytest does, in its folder
    scope["test_it_keeps_the_contract"]()
    (tmp_path / "out").mkdir()
    (tried,) = (name for name in scope if name in ("test_it_runs", "test_it_scores_a_run"))
    scope[tried](tmp_path / "out")
    with pytest.raises(BadSpec, match="is there already"):
        write_skeleton(kind, f"my_{kind}", tmp_path)
    with pytest.raises(BadSpec, match="is taken by"):
        write_skeleton(kind, {"metric": "w2"}.get(kind, "smc"), tmp_path)
    with pytest.raises(BadSpec, match="is no name for a"):
        write_skeleton(kind, "Über-law", tmp_path)


def test_a_name_that_is_nowhere_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'funnel'"):
        check("funell")
    with pytest.raises(UnknownName):
        check("nowhere/at_all.py")
    with pytest.raises(BadSpec, match="no parameter"):
        check("many_well[dimension=4]")
