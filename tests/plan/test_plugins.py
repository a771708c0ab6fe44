"""Things from outside the package: entry points, --plugin files, a session, plain functions."""

import re
import textwrap

import numpy as np
import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.cli.main import main
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.plugins import SESSION, in_session, offer, plugged, plugged_files, plugin_hash
from tiltbench.plan.spec import METRICS, build_sampler, build_target, label, spec
from tiltbench.plan.toml import Choice, Suite
from tiltbench.records.provenance import code_of
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.score.floor import metric_key, sample_metrics
from tiltbench.score.folder import scoring_code
from tiltbench.targets.functions import from_numpy, from_torch
from tiltbench.targets.registry import TARGETS, BrokenFile, Clash, Registry, UnknownName

GMM9 = {"name": "gmm9", "params": {}}
FILE = '''
"""One of each."""
import typing
from dataclasses import dataclass
import torch
from tiltbench.metric import Metric
from tiltbench.samplers.loss import path_space
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.target import Density, Truth

T = typing.TypeVar("T")  # no thing of this file's

@dataclass(frozen=True)
class Flat(Density):
    name = "flat"
    dim: int = 2

    def log_rho(self, x):
        return -x.square().sum(-1)

    def truth(self):
        return Truth("unknown")

my_variance = path_space("my_variance", lambda log_w, model: log_w.var())

def _far(target, truth, outcome, generator):
    x, y = outcome.draws.x, truth.sample(len(outcome.draws.x), generator)
    return Estimate(float((x.mean(0) - y.mean(0)).norm()), 0.1, len(x))

mean_error = Metric("mean_error", frozenset({"sample"}), "lower", "length", "floor", _far)
"""|mean of the draws - mean of exact ones|"""
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE)
    return "mine.py"


def test_a_plugged_file_goes_by_its_names_while_it_lasts(file):
    before = scoring_code(GMM9)
    with plugged([file]):
        assert plugged_files() == [TARGETS.entries["flat"].path]
        assert METRICS.entries["mean_error"].summary.startswith("|mean of")
        assert "mean_error" in sample_metrics() and scoring_code(GMM9) != before
        target, loss = (
            build_target({"name": "flat", "params": {"dim": 3}}),
            SAMPLERS.load("my_variance"),
        )
        # a record names the file, so that it can be read without the plug-in
        assert spec(target) == {"name": "mine.py:flat", "params": {"dim": 3}}
        sampler = build_sampler({"name": "my_variance", "params": {}})
        assert sampler.loss is loss and spec(sampler)["name"] == "mine.py:my_variance"
    assert not {"flat", "my_variance", "mean_error"} & {
        *TARGETS.entries,
        *SAMPLERS.entries,
        *METRICS.entries,
    }
    assert build_target(spec(target)) == target and build_sampler(spec(sampler)) == sampler
    assert scoring_code(GMM9) == before


def test_an_edited_metric_has_new_floors_and_scores(file, tmp_path):
    with plugged([file]):
        old = metric_key("mean_error"), scoring_code(GMM9)
        assert old[0] != "mean_error" and metric_key("w2") == "w2"
    (tmp_path / file).write_text(FILE.replace(".norm()", ".norm() * 2"))
    with plugged([file]):
        assert metric_key("mean_error") != old[0] and scoring_code(GMM9) != old[1]


def test_what_cannot_be_plugged_in_is_one_sentence(file, tmp_path, capsys):
    (tmp_path / "gmm9.py").write_text(FILE.replace('name = "flat"', 'name = "gmm9"'))
    (tmp_path / "part.py").write_text('class Part:\n    name = "part"\n')
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "other.py").write_text('mine = from_numpy("dose", f)\nz = np.load("other")\n')
    (tmp_path / "word.py").write_text('dose = from_numpy(name="dose", dim=3)\n')
    (tmp_path / "broken.py").write_text('import nothing_here\nclass A:\n    name = "a"\n')
    for name, said in {
        "gone.py": "there is no file gone.py",
        "gmm9.py": "two targets are called 'gmm9'",
        "part.py": "part.py:part is neither a target nor",
        "empty.py": "names no plug-in: give its class a line",
        "other.py": 'unlike `mine = from_numpy("dose", ...)`; write `dose = ',
        "word.py": 'unlike `dose = from_numpy(name="dose", ...)`; write ',
        "broken.py": "raises ModuleNotFoundError",
    }.items():
        assert main(["list", "metrics", "--plugin", "mine.py", "--plugin", name]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert "mean_error" not in METRICS.entries  # whatever had been plugged in is out again
    assert main(["list", "metrics", "--plugin", "mine.py"]) == 0
    assert "|mean of the draws" in capsys.readouterr().out


PACKAGE = """
from dataclasses import dataclass
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Offered(Density):
    name = "offered"
    dim: int = 2

    def log_rho(self, x):
        return -x.square().sum(-1)

    def truth(self):
        return Truth("unknown")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution that offers a target, and points that lead nowhere."""
    home, about = tmp_path / "somebodys", tmp_path / "somebodys-1.2.dist-info"
    home.mkdir(), about.mkdir()
    (home / "__init__.py").write_text("")
    (home / "laws.py").write_text(PACKAGE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys\nVersion: 1.2\n")
    points = "offered = somebodys.laws:Offered\nother = somebodys.laws:Offered\n"
    points += "gone = somebodys.nowhere:Gone\n"
    (about / "entry_points.txt").write_text(f"[tiltbench.targets]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(TARGETS.__dict__, "entries")
    yield home
    TARGETS.__dict__.pop("entries", None)


def test_an_installed_package_offers_by_entry_point(package):
    assert TARGETS.entries["offered"].summary == "from the package somebodys 1.2"
    target = build_target({"name": "offered", "params": {"dim": 3}})
    assert spec(target) == {"name": "offered", "params": {"dim": 3}}
    (cell,) = Suite("s", "", 9, 9, (0,), (Choice.of("offered"),), (Choice.of("smc"),)).cells("cpu")
    code = code_of(cell, {"hash": "x"})
    assert set(code["plugins"]) == {"offered"}
    (package / "helper.py").write_text("x = 1\n")  # any file of the package may decide
    assert code_of(cell, {"hash": "x"}) != code


def test_entry_points_that_lead_nowhere_say_whose_they_are(package):
    with pytest.raises(BrokenFile, match="'gone', raises ModuleNotFound.*uninstall somebodys"):
        TARGETS.load("gone")
    with pytest.raises(BrokenFile, match="'other', has the name 'offered'"):
        TARGETS.load("other")


def test_a_package_cannot_take_a_name(package):
    point = package.parent / "somebodys-1.2.dist-info" / "entry_points.txt"
    point.write_text("[tiltbench.targets]\ngmm9 = somebodys.laws:Offered\n")
    with pytest.raises(Clash, match="two targets are called 'gmm9'.*somebodys"):
        _ = Registry("target", TARGETS.places, TARGETS.group).entries


def test_a_session_offers_classes_and_losses(file):
    with plugged([file]):
        flat = TARGETS.load("flat")
    scope = {}
    exec(FILE.replace('"flat"', '"sessional"'), scope)
    offer(scope["Flat"])
    try:
        assert spec(scope["Flat"](4)) == {"name": "sessional", "params": {"dim": 4}}
        assert build_target({"name": "sessional", "params": {}}) == scope["Flat"]()
        assert in_session("sessional") and not in_session("gmm9")
        before = plugin_hash("sessional")
        offer(scope["Flat"])
        assert plugin_hash("sessional") == before  # the same thing
        exec(FILE.replace('"flat"', '"sessional"'), scope)
        offer(scope["Flat"])
        assert plugin_hash("sessional") != before  # another one under its name
        assert TARGETS.load("sessional") is scope["Flat"]
    finally:
        TARGETS.remove(TARGETS.entries["sessional"])
    with pytest.raises(BadSpec, match="neither a target nor a loss"):
        offer(object())
    with pytest.raises(UnknownName, match="two samplers are called 'log_variance'"):
        offer(SAMPLERS.load("log_variance"))
    assert flat.name == "flat" and SESSION not in flat.__module__


# plain functions


def quartic(x):
    return -(x**4).sum(-1) - x[..., 0] * x[..., 1]


def quartic_slope(x):
    return -4 * x**3 - x[..., ::-1]


NUMPY = {
    "differences": from_numpy("quartic", quartic, dim=2),
    "gradient": from_numpy("quartic", quartic, dim=2, gradient=quartic_slope),
    "point by point": from_numpy(
        "quartic",
        np.vectorize(quartic, signature="(d)->()"),
        dim=2,
        gradient=np.vectorize(quartic_slope, signature="(d)->(d)"),
    ),
}


@pytest.mark.parametrize("kind", NUMPY)
def test_a_numpy_function_is_the_torch_function(kind):
    ours, torchs = NUMPY[kind](), from_torch("quartic", quartic, dim=2)()
    x = torch.randn(3, 5, 2, dtype=torch.float64, generator=rng()).requires_grad_()
    for dtype in (torch.float64, torch.float32):
        y, want = ours.log_rho(x.to(dtype)), torchs.log_rho(x.to(dtype))
        assert y.dtype == dtype and torch.allclose(y, want, rtol=1e-5)
    (g,) = torch.autograd.grad(ours.log_rho(x).sum(), x)
    (want,) = torch.autograd.grad(torchs.log_rho(x).sum(), x)
    assert torch.allclose(g, want, rtol=1e-8, atol=1e-8)
    by_vmap = torch.func.vmap(torch.func.grad(lambda p: ours.log_rho(p)))(x.detach()[0])
    assert torch.allclose(by_vmap, want[0], rtol=1e-8, atol=1e-8)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        (slope,) = torch.autograd.grad(ours.log_rho(x).sum(), x, create_graph=True)
        torch.autograd.grad(slope.sum(), x)


def test_a_function_of_one_point_says_how_to_be_one_of_many():
    wrong = from_numpy("wrong", lambda x: float(x.sum()), dim=2)()
    with pytest.raises(ValueError, match=r'numpy.vectorize\(f, signature="\(d\)->\(\)"\)'):
        wrong.log_rho(torch.zeros(4, 2))
    wrong = from_numpy("wrong", quartic, dim=2, gradient=quartic)()
    with pytest.raises(ValueError, match="one number a coordinate"):
        torch.autograd.grad(wrong.log_rho(x := torch.zeros(4, 2, requires_grad=True)).sum(), x)


def test_a_file_may_name_a_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = """
        from tiltbench.targets.functions import from_numpy
        def f(x):
            return -(x**2).sum(-1)
        bowl = from_numpy("bowl", f, dim=3)
        \"\"\"exp(-|x|^2)\"\"\"
    """
    (tmp_path / "bowl.py").write_text(textwrap.dedent(text))
    assert re.match("exp", TARGETS.find("bowl.py").summary)
    target = build_target({"name": "bowl.py", "params": {}})
    assert build_target(spec(target)) == target and spec(target)["name"] == "bowl.py:bowl"


def test_what_a_plug_in_imports_is_named_by_its_own_file(file, tmp_path):
    """A class of the neighbour goes by the neighbour's name, whichever file was loaded first."""
    text = 'from mine import Flat, my_variance\nclass Own(Flat):\n    name = "own"\n'
    (tmp_path / "a.py").write_text(text)
    own = TARGETS.load("a.py:own")
    flat = own.__mro__[1]
    assert spec(own())["name"] == "a.py:own" and spec(flat())["name"] == "mine.py:flat"
    assert build_target(spec(flat(3))) == flat(3) and TARGETS.load("mine.py:flat") is flat
    sampler = build_sampler({"name": "mine.py:my_variance", "params": {}})
    assert spec(sampler)["name"] == "mine.py:my_variance"


PRESET = """
from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import build_loss, path_space
from tiltbench.samplers.losses.subtrajectory_balance import Geometric, detailed_balance
from tiltbench.samplers.networks.sharpened import Sharpened

plain = path_space("mine", lambda log_w, model: log_w.var())
mine = Preset("mine", Diffusion(plain, model=Sharpened(), paths=8))
"""


def test_a_preset_of_a_file_has_a_spec_that_builds_it_back(tmp_path, monkeypatch):
    """A loss that needs another network than the usual one is offered as a preset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PRESET)
    sampler = build_sampler({"name": "mine.py", "params": {"lr": 0.5}})
    full = spec(sampler)
    assert full["name"] == "mine.py:mine" and build_sampler(full) == sampler
    assert (sampler.paths, sampler.lr, type(sampler.model).__name__) == (8, 0.5, "Sharpened")
    assert label(sampler) == "mine.py:mine[lr=0.5]"


def test_a_file_that_imports_a_preset_does_not_name_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(PRESET)
    build_sampler({"name": "mine.py", "params": {}})
    for name, params in {"detailed_balance": {}, "subtrajectory_balance": {"lam": 3.0}}.items():
        sampler = build_sampler({"name": name, "params": params})
        assert spec(sampler)["name"] == name and build_sampler(spec(sampler)) == sampler
