"""A certified reference beside the file of any density whose own truth is unknown."""

import json
import math
import sys
import types

import numpy as np
import pytest
import torch

from tiltbench.cli import reference as command
from tiltbench.plan.errors import BadSpec, Refused
from tiltbench.plan.plugins import truth_hash
from tiltbench.plan.suite import _check_reference
from tiltbench.reference import certify
from tiltbench.reference.certify import Broken, conduct, outdone
from tiltbench.reference.evidence import Effort, Evidence, statistics
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.functions import from_numpy, from_torch
from tiltbench.targets.reference import needs_reference, stated
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.target import Density, Observable, Truth
from tiltbench.targets.truths.certified import home_of

CODE = """
import numpy as np
from tiltbench.targets.functions import from_numpy

def f(x):
    return -(x**2).sum(-1) / 2{more}

bell = from_numpy("bell", f, dim=2, statistics={names})
"""
LOG_Z = math.log(2 * math.pi)


def written(folder, more="", names='["a", "b"]'):
    file = folder / "bell.py"
    file.write_text(CODE.format(more=more, names=names))
    return TARGETS.load(str(file))()


def evidence(target):
    """What perfect chains would say of N(0, I)."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(8, 500, 2, generator=g, dtype=torch.float64)
    flat = x.flatten(0, 1)
    named = {name: f(flat).unflatten(0, (8, 500)) for name, f in statistics(target).items()}
    log_Z = Estimate(LOG_Z, 0.004, 8)
    return Evidence(x, named, (), -x.square().sum(-1), log_Z, log_Z, {})


@pytest.fixture
def certified(tmp_path, monkeypatch):
    """The target of a file, certified: it, what was said, and the folder."""
    monkeypatch.setattr(certify, "gather", lambda target, *_: evidence(target))
    target, said = written(tmp_path), []
    assert target.truth().unknown
    certificate = conduct(
        target, Effort(7, 4), 0, tmp_path / "out", tmp_path, "the command", said.append
    )
    assert certificate.passed and not (tmp_path / "out").exists()
    return target, said, tmp_path


def test_what_passes_is_the_truth_from_then_on(certified):
    target, said, folder = certified
    assert said[-1].endswith(
        f"certified: the truth of this target from now on; {folder}/bell_reference.json"
    )
    truth = written(folder).truth()
    assert truth.log_Z == LOG_Z and 0 < truth.log_Z_se < 0.005 and not truth.unknown
    x = truth.sample(2000, torch.Generator().manual_seed(1))
    assert x.shape == (2000, 2) and x.dtype == torch.float64 and abs(x.mean()) < 0.1
    assert set(truth.observables) == {"a", "b"}
    f, mean, sd, se = truth.observables["b"]
    assert torch.equal(f(x), x[:, 1]) and abs(mean) < 4 * se and sd == pytest.approx(1, abs=0.05)
    assert home_of(type(target)) == folder


def test_it_is_not_held_against_itself(certified):
    """A second certificate is no comparison with the first."""
    target, _, folder = certified
    assert stated(target).unknown and needs_reference(target) and not target.truth().unknown
    said = []
    assert conduct(target, Effort(7, 4), 0, folder, folder, "again", said.append).passed
    assert not any("exact truth" in line for line in said)


def test_scores_and_floors_know_the_reference(certified):
    _, _, folder = certified
    name = str(folder / "bell.py")
    with_it = truth_hash(name)
    (folder / "bell_reference.json").rename(folder / "gone")
    assert truth_hash(name) in with_it and truth_hash(name) != with_it


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"more": " - x[:, 0] ** 4 / 9"},
            "the reference is of another log_rho; `tiltbench reference`",
        ),
        ({"more": " + 1"}, "the reference is of another log_rho"),
        (
            {"names": '["a", "c"]'},
            "the reference says nothing of c; `tiltbench reference` makes one",
        ),
    ],
    ids=["another law", "another constant", "another name"],
)
def test_a_density_that_has_changed_has_no_truth(certified, change, said):
    *_, folder = certified
    truth = written(folder, **change).truth()
    assert truth.unknown and truth.source.startswith(f"unknown: {said}")


def test_another_version_has_no_truth(certified):
    target, *_ = certified
    type(target).version = 2
    assert target.truth().source == "unknown: the reference is of bell() version 1"


def test_an_edited_reference_is_told(certified):
    target, _, folder = certified
    about = folder / "bell_reference.json"
    facts = json.loads(about.read_text())
    about.write_text(json.dumps({**facts, "log_Z": 0.0}))
    with pytest.raises(ValueError, match="are not as they were written: restore both files"):
        written(folder).truth()


def test_it_gives_way_to_no_shorter_chains(certified):
    target, *_ = certified
    assert "took 7 points and 4 ladders, more than 6 and 4" in outdone(target, Effort(6, 4))
    assert outdone(target, Effort(7, 4)) == ""


def test_more_draws_than_it_holds_are_refused(certified):
    target, *_ = certified
    _check_reference(target, 4000)
    with pytest.raises(BadSpec, match="the reference of bell holds 4000 draws, not 4001"):
        _check_reference(target, 4001)


def test_other_parameters_have_a_folder_of_their_own(tmp_path):
    file = tmp_path / "turned.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from tiltbench.targets.target import Density, Truth\n\n"
        "@dataclass(frozen=True)\nclass Turned(Density):\n"
        '    name = "turned"\n    dim = 2\n    by: float\n\n'
        "    def log_rho(self, x):\n        return -x.square().sum(-1) * self.by\n\n"
        '    def truth(self):\n        return Truth("unknown")\n'
    )
    target = TARGETS.load(str(file))(by=2.0)
    with pytest.raises(Refused, match="reference is of turned as it stands; name a folder"):
        command._store(target, Effort(7, 4))


def test_a_truth_that_is_known_needs_none(tmp_path):
    known = Truth("closed form", log_Z=LOG_Z)
    bell = from_torch("bell", lambda x: -x.square().sum(-1) / 2, 2, truth=known)()
    assert not needs_reference(bell) and command._store(bell, Effort(7, 4)) is None
    partly = Truth("measured", observables={"a": Observable(lambda x: x[:, 0], 0.0, 1.0)})
    assert not needs_reference(from_torch("bell", lambda x: x, 2, truth=partly)())


def test_what_a_log_rho_raises_is_one_sentence(monkeypatch, tmp_path):
    file = tmp_path / "boom.py"
    file.write_text(
        "from tiltbench.targets.functions import from_torch\n"
        'boom = from_torch("boom", lambda x: 1 / 0, dim=2)\n'
    )

    class Here:
        """A pool of this process."""

        def __init__(self, jobs):
            pass

        def __enter__(self):
            from concurrent.futures import ThreadPoolExecutor

            self.inner = ThreadPoolExecutor(1)
            return self.inner

        def __exit__(self, *_):
            self.inner.shutdown()

    monkeypatch.setattr(certify, "pool", Here)
    spec = {"name": f"{file}:boom", "params": {}}
    with pytest.raises(Broken, match="boom.py:boom: ZeroDivisionError: division by zero"):
        certify.conduct_all([spec], [Effort(10_000, 4)], [None], 0, tmp_path, "", 1)


# --- names of statistics ------------------------------------------------------------------------


def test_statistics_by_name_by_function_and_by_default():
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=torch.float64)
    f = lambda x: -(x**2).sum(-1)  # noqa: E731
    default = from_numpy("bell", f, 2)().statistics()
    assert list(default) == ["x1", "x2"] and default["x2"](x).tolist() == [2.0, 5.0]
    assert isinstance(from_numpy("bell", f, 2)(), Density)
    named = from_torch("bell", f, 2, statistics=["a", "b"])().statistics()
    assert named["a"](x).tolist() == [1.0, 3.0]
    made = from_numpy("bell", f, 2, statistics={"sum": lambda x: np.exp(x).sum(-1)})()
    assert made.statistics()["sum"](x).tolist() == pytest.approx(x.exp().sum(-1).tolist())


def test_names_that_do_not_fit_are_told():
    f = lambda x: -(x**2).sum(-1)  # noqa: E731
    for names in (["a"], ["a", "a"], "ab"):
        with pytest.raises(ValueError, match="bell has 2 coordinates, and its statistics are 1 "):
            from_numpy("bell", f, 2, statistics=names)
    wrong = from_numpy("bell", f, 2, statistics={"all": lambda x: x})()
    with pytest.raises(ValueError, match=r"the statistic all maps \(3, 2\) to \(3, 2\), not to"):
        wrong.statistics()["all"](torch.zeros(3, 2))


def test_a_reference_lies_beside_the_file_that_made_the_target(tmp_path):
    module = types.ModuleType("somebodys_laws")
    module.__file__ = str(tmp_path / "laws.py")
    sys.modules["somebodys_laws"] = module
    try:
        exec(
            "from tiltbench.targets.functions import from_torch\n"
            "bell = from_torch('bell', lambda x: -(x**2).sum(-1), 2)",
            vars(module),
        )
        assert module.bell.__module__ == "somebodys_laws" and home_of(module.bell) == tmp_path
    finally:
        del sys.modules["somebodys_laws"]
