"""The commonest mistakes of a target: each gets one sentence that names it, and its remedy."""

from __future__ import annotations

import re

import pytest

from tiltbench.check import unknown as check_unknown
from tiltbench.check.contract import check
from tiltbench.targets.cost import Cost

TARGET = '''
import math
from dataclasses import dataclass
import numpy as np
import torch
from tiltbench.targets.target import Density, Modes, Observable, Truth

@dataclass(frozen=True)
class Mine(Density):
    """N(0, 4 I), not normalised."""
    name = "mine"
    dim = 2
    scale = 2.0

    def log_rho(self, x):
        return LOG_RHO

    def truth(self):
        return Truth("closed form", log_Z=math.log(8 * math.pi), sample=SAMPLE, MORE)

def drawn(n, generator):
    device = generator.device
    return 2 * torch.randn(n, 2, generator=generator, device=device, dtype=torch.float64)
'''
UNKNOWN = re.sub(r"Truth\(.closed.*\)", 'Truth("unknown")', TARGET)
RIGHT = "-x.square().sum(-1) / 8"
BOX = "(x.abs() <= 3.0).all(-1)"

# What log_rho returns, and what the first and only sentence, and its remedy, must say.
MISTAKES = {
    "NaN": (f"{RIGHT} + (9 - x[..., 0]).log()", "log_rho is NaN at .* first at x", "logarithms"),
    "NaN everywhere": (f"{RIGHT} * torch.nan", "log_rho is NaN at 1001 of 1001", "logarithms"),
    "an energy": ("x.square().sum(-1) / 8", "grows without bound .* an energy", "its negative"),
    "a quartic energy": ("(x**4 - x**2).sum(-1)", "it looks like an energy", "log_rho = -E"),
    "an energy with walls": (
        f"torch.where({BOX}, x.square().sum(-1), torch.inf)",
        r"log_rho is \+inf at",
        "it looks like an energy: return its negative",
    ),
    "a density": (f"({RIGHT}).exp() / (8 * math.pi)", "it looks like the density", "logarithm"),
    "a density on a box": (
        f"torch.where({BOX}, 0.25, 0.0).to(x)",
        "never negative and goes to 0 far out",
        "return its logarithm; zero density is -inf",
    ),
    "NumPy": ("-np.sum(x**2, axis=-1) / 8", "computes in NumPy", "from_numpy of tiltbench"),
    "NumPy's exp": ("-np.exp(x).sum(-1)", "computes in NumPy", "from_numpy"),
    "x.numpy()": ("torch.as_tensor(-(x.numpy() ** 2).sum(-1) / 8)", "in NumPy", "from_numpy"),
    "an array": ("-(x.detach().numpy() ** 2).sum(-1) / 8", "in NumPy", "from_numpy"),
    "NumPy and back": (
        "torch.from_numpy(-(x.detach().numpy() ** 2).sum(-1) / 8)",
        "computes in NumPy",
        "from_numpy",
    ),
    "flat": ("-x[..., 0].square() / 8", "no finite integral: log_rho does not change along coordi",
             "a prior, a wall"),
    "linear": ("x[..., 1] - x[..., 0].square()", "does not fall along coordinate 1, towards .in",
               "a prior"),
    "flat aslant": ("-(x[..., 0] - x[..., 1]).square()", r"along \(-?0.71, -?0.71\)", "particles"),
    "a tail too heavy": ("-x.square().sum(-1).log1p()", "no finite integral", "a prior, a wall"),
    "constant": ("0 * x.sum(-1)", "exp.log_rho. has no finite integral", "a prior, a wall"),
    "shape (B, 1)": ("-x.square().sum(-1, keepdim=True)", r"has shape \(5, 1\)", "keepdim"),
    "no sum": ("-x.square() / 8", r"has shape \(5, 2\), not \(5,\)", "sum over the last dim"),
    "a sum over the batch": ("-x.square().sum() / 8", "sums over the batch", "last dimension"),
    "one point only": ("-(x[0] ** 2 + x[1] ** 2) / 8", r"has shape \(2,\), not \(5,\)", r"\*b"),
    "one point, unpacked": (
        "(lambda a, b: -(a**2 + b**2))(*x)",
        "takes one point and no batch of them",
        r"x\[..., 0\], unbind",
    ),
    "one batch dimension": ("-x[:, 0] ** 2 - x[:, 1] ** 2", r"at x of shape \(2, 3, 2\)", r"\*b"),
    "float64": (
        "-(x.double() / 2).square().sum(-1) / 2",
        "at x of torch.float32 is torch.float64",
        "dtype and device of x",
    ),
    "a float32 matrix": ("-(x @ torch.eye(2)).square().sum(-1)", "dtype of their own", "of x"),
    "in place": ("-x.mul_(0.5).square().sum(-1)", "changes x in place", r"no functions that end"),
    "in place, equal": ("-x.clamp_(-99, 99).square().sum(-1)", "changes x in place", "new tensors"),
    "detached": ("-x.detach().square().sum(-1)", "a call of detach inside", "no detach"),
    "half detached": ("-(x * x.data).sum(-1)", "off finite differences .* of data ", "no detach"),
    "no grad": ("torch.no_grad()(lambda y: -(y**2).sum(-1))(x)", "a call of no_grad", "autograd"),
    "a new tensor": ("-torch.tensor(x).square().sum(-1)", "a call of tensor inside", "autograd"),
    "random": (f"{RIGHT} + torch.rand(())", "other values the second time", "leave randomness"),
    "a float": ("float(-x.square().sum())", "returns float, not a tensor", "one number a point"),
    "math.exp": ("-math.exp(x[..., 0])", "turns tensors into Python numbers", "torch.exp"),
    "if": ("x[..., 0] if x[..., 0] > 0 else 0", "truth of a tensor of many", "torch.where"),
    "nothing": ("None", "returns NoneType .is a `return` missing", "one number a point"),
    "a tuple": (f"({RIGHT}, 1)", "returns tuple, not a tensor", "one number a point"),
    "more coordinates": ("(lambda a, b, c: -(a**2 + b**2 + c**2))(*x.unbind(-1))",
                         "takes points of 3 coordinates, and dim is 2", "let dim be"),
    "fewer coordinates": (
        "(lambda a: -(a**2))(*x.unbind(-1))", "of 1 coordinates, and dim is 2", "let dim be"),
    "a device": (
        f"{RIGHT} + torch.zeros((), device='cuda', dtype=x.dtype)",
        "names a device of its own|is on the cuda",
        "dtype and device of x",
    ),
    "the CPU": ("-(x - torch.ones(2, device='cpu').to(x.dtype)).square().sum(-1)",
                "x on another device", "dtype and device of x"),
    "over the batch": ("-(x / x.std(0)).square().sum(-1)", "NaN|batch differs", "logarithms|point"),
}  # fmt: skip

# The same of a truth: what stands in `sample=...`.
LOG_Z = "log_Z=math.log(8 * math.pi)"
TRUTHS = {
    "log Z of 1/Z": (LOG_Z, "log_Z=-math.log(8 * math.pi)", "the log of 1/Z", "turn the sign"),
    "normalised": (LOG_Z, "log_Z=0.0", "as if exp.log_rho. were normalised", "integral"),
    "Z itself": (LOG_Z, "log_Z=8 * math.pi", "which is Z itself", "take its logarithm"),
    "draws' shape": ("n, 2, generator", "2, n, generator", r"of shape \(2, 50\)", r"\(n, dim\)"),
    "draws' dtype": (", dtype=torch.float64", "", "torch.float32, not", "in float64"),
    "draws are an array": ("torch.float64)", "torch.float64).numpy()", "are a ndarray", "float64"),
    "no generator": ("generator=generator, ", "", "equal seeds give other draws", "pass the gen"),
    "one seed": (
        "generator=generator", "generator=generator.manual_seed(0)", "other seeds give the same",
        "pass the generator",
    ),
    "stored draws": (
        "    device = generator.device\n    return",
        "    k = int(torch.randint(9, (), generator=generator))\n    return STORED[k : k + n]\n"
        "STORED = torch.randn(9999, 2, dtype=torch.float64) * 2\ndef other(n, generator, device):\n"
        "    return", "share memory", "clone",
    ),
    "an observable": (
        "MORE", "observables={'x': Observable(lambda x: x[:, 0], 1.0, 2.0)}",
        "observable x is .* the truth says 1", "exact mean",
    ),
    "an observable in place": (
        "MORE", "observables={'x': Observable(lambda x: x.abs_()[:, 0], 1.6, 1.2)}",
        "observable x changes the draws in place", "make new tensors",
    ),
    "cells in place": (
        "MORE", "modes=Modes(torch.tensor([0.5, 0.5]), lambda x: (x.neg_()[:, 0] > 0).long())",
        "modes.assign changes the draws in place", "make new tensors",
    ),
    "scale too small": ("scale = 2.0", "scale = 0.2", "scale is 0.2, the rms", "state scale = 2"),
    "scale too large": ("scale = 2.0", "scale = 20.0", "scale is 20, the rms", "state scale = 2"),
    "scale forgotten": ("    scale = 2.0\n", "", r"scale is 1 .its default.*is 2", "scale = 2"),
}  # fmt: skip

# Laws without a fault: nothing is said of them.
FAULTLESS = {
    "bounded": f"torch.where((x > 0).all(-1), {RIGHT}, -torch.inf)",
    "a box": f"torch.where({BOX}, 0.0, -torch.inf).to(x)",
    "a box with a graph": f"torch.where({BOX}, 0 * x.sum(-1), -torch.inf)",
    "a lattice": "-(x.round() ** 2).sum(-1) / 8",
    "a positive peak": f"50 + {RIGHT}",
    "Student": "-2 * (x.square().sum(-1) / 2).log1p()",
    "Cauchy": "-(x.square()).log1p().sum(-1)",
    "a funnel": "-(x[..., 0] ** 2 / 18 + (x[..., 1] ** 2 * (-x[..., 0]).exp() + x[..., 0]) / 2)",
    "a tube": "-(x[..., 1] ** 2) * (x[..., 0] ** 2 / 4).exp()",
    "exponential": "torch.where((x >= 0).all(-1), -x.sum(-1), -torch.inf)",
    "Laplace": "-x.abs().sum(-1)",
}


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Trial draws of a law without a truth, fewer than they would be: they are not at issue."""
    monkeypatch.setattr(check_unknown, "POINTS", Cost(2000, 2000))


def findings(path, text):
    path.write_text(text)
    return [finding for finding in check(str(path)) if not finding.ok]


def one_sentence(found, said, remedy):
    assert len(found) == 1, found
    assert re.search(said, found[0].what), found[0].what
    assert re.search(remedy, found[0].remedy), found[0].remedy


def target(text, log_rho=RIGHT, sample="drawn", more=""):
    return text.replace("LOG_RHO", log_rho).replace("SAMPLE", sample).replace("MORE", more)


@pytest.mark.filterwarnings("ignore:To copy construct:UserWarning")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_log_rho_is_named(tmp_path, case):
    log_rho, said, remedy = MISTAKES[case]
    one_sentence(findings(tmp_path / "mine.py", target(UNKNOWN, log_rho)), said, remedy)


@pytest.mark.parametrize("case", TRUTHS)
def test_a_mistake_in_the_truth_is_named(tmp_path, case):
    old, new, said, remedy = TRUTHS[case]
    assert old in TARGET
    text = target(TARGET.replace(old, new))
    one_sentence(findings(tmp_path / "mine.py", text), said, remedy)


# The same of a gradient that the target states: what `log_rho_and_grad` does.
AND_GRAD = """
    def log_rho_and_grad(self, x):
        return WRITTEN

    def truth(self):"""
SLOPE = "x.detach() / -4"
GRADIENTS = {
    "right": (f"self.log_rho(x.detach()), {SLOPE}", None, None),
    "the sign": ("self.log_rho(x.detach()), x.detach() / 4", "is minus the gradient", "mend it"),
    "a factor": ("self.log_rho(x.detach()), -x.detach() / 8", "not the gradient .* 0.5 of", "mend"),
    "far out": (f"self.log_rho(x.detach()), ({SLOPE}).clamp(-3, 3)", "not the gradient", "mend it"),
    "the value": (f"self.log_rho(x.detach()) + 1, {SLOPE}", "value .* is off log_rho", "share"),
    "one tensor": (SLOPE, "returns Tensor, not a value and a gradient", "return .value"),
    "summed": (f"self.log_rho(x.detach()), ({SLOPE}).sum(-1)", r"\(5,\) and \(5,\)", "dim"),
    "a graph": ("self.log_rho(x), x / -4", "tensors with a graph", "x.detach"),
    "in place": (f"self.log_rho(x.detach()), {SLOPE} + 0 * x.data.mul_(2)",
                 "changes x in place", "new tensors"),
    "float64": (f"self.log_rho(x.detach()), ({SLOPE}).double()", "torch.float64", "dtype"),
    "the CPU": (f"self.log_rho(x.detach()), {SLOPE} * torch.ones(2, device='cpu').to(x.dtype)",
                "log_rho_and_grad fails for x on another device", "dtype and device of x"),
    "float32": (f"self.log_rho(x.detach()), {SLOPE} * (8 * x.data.abs()).exp() / "
                "(8 * x.data.abs()).exp()",
                "log_rho_and_grad is not finite at .* in float32", "avoid exponentials"),
    "raises": ("self.missing", "log_rho_and_grad raises AttributeError", "mend"),
}  # fmt: skip


@pytest.mark.parametrize("case", GRADIENTS)
def test_a_mistake_in_a_stated_gradient_is_named(tmp_path, case):
    written, said, remedy = GRADIENTS[case]
    known = TARGET if said is None else UNKNOWN
    text = known.replace("\n    def truth(self):", AND_GRAD.replace("WRITTEN", written))
    results = findings(tmp_path / "mine.py", target(text))
    if said is None:
        assert results == []
    else:
        one_sentence(results, said, remedy)


HEAVY = """
def student(n, generator):
    u = torch.rand(n, 2, generator=generator, device=generator.device, dtype=torch.float64)
    return torch.tan(math.pi * (u - 0.5))
"""


def test_heavy_tails_are_not_taken_for_a_wrong_scale(tmp_path):
    """The product of two Cauchy laws, exact draws and log Z stated, without an rms coordinate."""
    text = target(TARGET, FAULTLESS["Cauchy"], "student").replace(
        LOG_Z, "log_Z=math.log(math.pi**2)"
    )
    assert findings(tmp_path / "mine.py", text + HEAVY) == []


@pytest.mark.parametrize("case", FAULTLESS)
def test_a_law_without_fault_is_left_alone(tmp_path, case):
    assert findings(tmp_path / "mine.py", target(UNKNOWN, FAULTLESS[case])) == []
