"""What a session or a plug-in has set neither reaches a run nor is changed by one."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tiltbench.api import cell, cells, run, score
from tiltbench.check.contract import check
from tiltbench.plan.plugins import plugged
from tiltbench.records.record import read_outcome
from tiltbench.reference.certify import conduct
from tiltbench.reference.evidence import Effort
from tiltbench.run.phases import run_cell
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.settings import SETTINGS, preserved, standard

STRANGE = """
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_grad_enabled(False)
torch.set_autocast_enabled("cpu", True)
torch.autograd.set_detect_anomaly(True)
torch.set_deterministic_debug_mode(1)
torch.set_float32_matmul_precision("medium")
torch.backends.cudnn.conv.fp32_precision = "tf32"
torch.backends.cudnn.benchmark = True
torch.set_flush_denormal(True)
torch.set_num_threads(3)
torch.manual_seed(7)
numpy.seterr(all="raise")
numpy.random.seed(7)
random.seed(7)
"""


def state():
    """All that user code may have set, as one value."""
    threads, device = torch.get_num_threads(), torch.get_default_device()
    dice = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    return [setting.read() for setting in SETTINGS], threads, str(device), dice


@pytest.fixture
def strange():
    """A session with everything set; yields its state."""
    with preserved():
        exec(STRANGE, {"torch": torch, "numpy": np, "random": random})
        yield state()


def test_all_is_usual_inside_and_as_before_after(strange):
    with standard():
        assert [setting.read() for setting in SETTINGS] == [s.usual for s in SETTINGS]
        assert torch.zeros(1).device.type == "cpu" and torch.zeros(1).dtype is torch.float32
        torch.rand(1), np.random.rand(), random.random()
        exec(STRANGE, {"torch": torch, "numpy": np, "random": random})
    assert state() == strange
    with torch.inference_mode(), standard():
        x = torch.ones(2, requires_grad=True)
        (x**2).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    assert state() == strange


METHODS = ["hmc", "log_variance", "cmcd_lv"]


@pytest.mark.parametrize("method", METHODS)
def test_the_session_does_not_reach_a_run(method, tmp_path, strange):
    chosen = cell("gmm9", method, budget=300, draws=20)
    one = run_cell(chosen, tmp_path / "strange", code={})
    assert state() == strange
    with standard():
        two = run_cell(chosen, tmp_path / "usual", code={})
    assert one.status is two.status and one.status.finished, one.reason
    first, second = (read_outcome(tmp_path / f, one.id).draws for f in ("strange", "usual"))
    assert torch.equal(first.x, second.x)


def test_nothing_here_touches_the_session(tmp_path, monkeypatch, strange):
    monkeypatch.chdir(tmp_path)
    run(cells(["gaussian"], ["smc", "log_variance"], budget=300, seeds=[0], draws=20))
    score()
    assert state() == strange
    assert all(finding.ok for finding in check("gaussian"))
    assert state() == strange
    with pytest.raises(Unsupported):  # so few points; what was set for them is undone
        conduct(Gaussian(), Effort(2_000, 32), 0, tmp_path, None, "", lambda line: None)
    assert state() == strange


PLUGIN = f'''
import random, numpy, torch
from dataclasses import dataclass
from tiltbench.targets.target import Density, Truth
{STRANGE}

@dataclass(frozen=True)
class Bell(Density):
    """N(0, I)."""
    name = "bell"
    dim = 2
    scale = 1.0
    def log_rho(self, x):
        return -x.square().sum(-1) / 2
    def truth(self):
        return Truth("unknown")
'''


def test_importing_a_plug_in_changes_nothing(tmp_path):
    (tmp_path / "bell.py").write_text(PLUGIN)
    before = state()
    with plugged([tmp_path / "bell.py"]):
        assert state() == before
        record = run_cell(cell("bell", "log_variance", budget=300, draws=20), tmp_path, code={})
    assert record.status.finished and state() == before


def test_a_plug_in_that_draws_from_the_global_generators_repeats_itself(tmp_path):
    text = PLUGIN.replace(STRANGE, "").replace(
        "log_rho(self, x):", "log_rho(self, x):\n        x = x + torch.rand(())"
    )
    (tmp_path / "bell.py").write_text(text)
    chosen = cell(f"{tmp_path}/bell.py", "smc", budget=300, draws=20)
    x = []
    for folder in ("one", "two"):
        torch.rand(5)
        run_cell(chosen, tmp_path / folder, code={})
        x.append(read_outcome(Path(tmp_path / folder), chosen.id).draws.x)
    assert torch.equal(*x)
