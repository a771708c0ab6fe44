"""What `tiltbench new` writes: a working target, loss, sampler or metric, with its test."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import METRICS
from tiltbench.records.files import write_bytes
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.registry import TARGETS

TARGET = '''\
"""A target in one file: try it with `tiltbench check NAME.py`."""

import math
from dataclasses import dataclass

import torch

from tiltbench.targets.target import Density, Observable, Truth


@dataclass(frozen=True)
class CLASS(Density):
    """rho(x) = exp(-|x - 1|^2 / (2 width^2)) on R^dim: put your own law here."""

    name = "NAME"
    dim: int = 2
    width: float = 0.5

    @property
    def scale(self):
        """The rms coordinate, sqrt(E |X|^2 / dim): references and step sizes start from it."""
        return math.sqrt(1 + self.width**2)

    def log_rho(self, x):
        """(*b, dim) -> (*b), nats; any constant may be left out, -inf is zero density."""
        return -(x - 1).square().sum(-1) / (2 * self.width**2)

    def truth(self):
        """What is known; leave out what is not, down to `return Truth("unknown")`."""

        def sample(n, generator):
            shape = (n, self.dim)
            device, dtype = generator.device, torch.float64
            xi = torch.randn(shape, generator=generator, device=device, dtype=dtype)
            return 1 + self.width * xi

        return Truth(
            "closed form",
            log_Z=self.dim * math.log(self.width * math.sqrt(2 * math.pi)),
            sample=sample,
            observables={"first": Observable(lambda x: x[:, 0], mean=1.0, sd=self.width)},
        )
'''

LOSS = '''\
"""A loss in one file: try it with `tiltbench check NAME.py`."""

from tiltbench.samplers.loss import Loss, hints, log_weight, path_batch
from tiltbench.targets.cost import Cost


def label(problem, model, path, share, generator):
    """Pays for energies, once for each fresh path: returns whatever `value` needs, detached."""
    return path_batch(path, problem.reward(path.x[-1]).detach())


def value(model, process, batch, generator):
    """The number to be made small, differentiable in the model; it never sees the reward.

    Here the variance of the log-weights, 0 at the optimal control: put your own functional here."""
    return log_weight(model, process, batch).var()


def price(paths, steps, guided):
    """What `label` (and a guided model on its way) evaluates: one value a path."""
    return Cost(values=paths).plus(hints(paths, steps, guided))


NAME = Loss("NAME", label, value, price)
'''

SAMPLER = '''\
"""A sampler in one file: try it with `tiltbench check NAME.py`."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from tiltbench.samplers.sampler import Draws, Sampler, Unsupported
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.noising import Known
from tiltbench.targets.bases.references import Brownian


class State(NamedTuple):
    """Plain data: a run that is killed goes on from it."""

    mean: torch.Tensor  # (dim,), of the proposal q = N(mean, diag(var))
    var: torch.Tensor  # (dim,)


@dataclass(frozen=True)
class CLASS(Sampler[State]):
    """Importance sampling from a normal law that is fitted as it goes: put your own method here."""

    name = "NAME"
    reference: Linear = Brownian()  # on a density, p* is proportional to N(0, scale^2) exp r
    points: int = 200  # of a step

    def init(self, problem, budget, generator):
        """The start; `budget` is what all steps may cost together, to plan by."""
        if not isinstance(problem.base, Known) or problem.base.removed:
            raise Unsupported("NAME needs a base with a density on all of R^dim")
        here = {"device": generator.device, "dtype": torch.float64}
        spread = torch.full((problem.dim,), problem.base.spread, **here)
        return State(torch.zeros_like(spread), spread.square())

    def step(self, problem, state, generator):
        """One unit of work.  The reward counts its calls, and raises once they are spent."""
        x, log_w = self.weighed(problem, state, self.points, generator)
        w = torch.softmax(log_w, 0)[:, None]
        mean = (w * x).sum(0)
        var = (w * (x - mean).square()).sum(0)
        # half of each: one point may have all the weight
        return State((state.mean + mean) / 2, (state.var + var) / 2)

    def draw(self, problem, state, n, generator):
        """n draws, fewer where there are fewer, on a budget of their own."""
        return Draws(*self.weighed(problem, state, n, generator))

    @torch.no_grad()
    def weighed(self, problem, state, n, generator):
        """x ~ q with log_w = log p_base + r - log q, for a value each: E[exp(log_w)] = Z."""
        here = {"device": generator.device, "dtype": torch.float64}
        noise = torch.randn(n, problem.dim, generator=generator, **here)
        x = state.mean + state.var.sqrt() * noise
        log_q = -(noise.square() + state.var.log() + math.log(2 * math.pi)).sum(-1) / 2
        return x, problem.reward(x) + problem.base.log_end(x) - log_q
'''

METRIC = '''\
"""A metric in one file: try it with `tiltbench check NAME.py`, use it with --plugin."""

from tiltbench.estimators import average
from tiltbench.metric import Metric
from tiltbench.samplers.weights import Estimate


def fn(target, truth, outcome, generator):
    """|E |X|^2 / E |Y|^2 - 1|, Y exact draws: put your own distance here.

    Returns value, standard error and number of points; raise `Unknown` (tiltbench.metric) with one
    sentence where these draws have no such number."""
    x = outcome.draws.x.double().square().sum(-1)
    y = truth.sample(len(x), generator).square().sum(-1).mean()
    of_runs = average(x, outcome.draws.group)  # its error resamples independent chains
    return Estimate(float((x.mean() / y - 1).abs()), of_runs.se / float(y), len(x))


# what it needs of the truth, which direction is better, its unit, and what exact draws score
NAME = Metric("NAME", frozenset({"sample"}), "lower", "1", "floor", fn)
"""relative error of the mean square"""
'''

CONTRACT = '''\
"""The contract of NAME, as `tiltbench check` tries it, and a short run."""

from pathlib import Path

import pytest

from tiltbench.api import IMPORTED
from tiltbench.check.contract import check


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)


def test_it_keeps_the_contract():
    assert [finding for finding in check("NAME.py") if not finding.ok] == []
'''

RUNS = """\


def test_it_runs(tmp_path):
    runs = run(cell(TARGET, SAMPLER, budget=2_000, draws=40), tmp_path)
    assert runs["status"].isin(["spent", "done"]).all()
"""

SCORES = """\


def test_it_scores_a_run(tmp_path):
    with plugged(["NAME.py"]):
        run(cell("gaussian", "smc", budget=2_000, draws=40), tmp_path)
        scores = score(tmp_path)
    found = scores[scores["metric"] == "NAME"]
    assert len(found) == 1 and found["value"].notna().all(), found["reason"]
"""

TEST = CONTRACT.replace("IMPORTED", "cell, run") + RUNS
KINDS = {
    "target": (TARGET, TEST.replace("TARGET", '"NAME.py"').replace("SAMPLER", '"smc"')),
    "loss": (LOSS, TEST.replace("TARGET", '"gaussian"').replace("SAMPLER", '"NAME.py"')),
    "sampler": (SAMPLER, TEST.replace("TARGET", '"gaussian"').replace("SAMPLER", '"NAME.py"')),
    "metric": (METRIC, CONTRACT.replace("IMPORTED", "cell, plugged, run, score") + SCORES),
}


def write_skeleton(kind: str, name: str, folder: Path) -> list[Path]:
    """Writes NAME.py and test_NAME.py into `folder`, and returns their paths.

    Raises BadSpec for a name that cannot be used, and where one of the files is there already."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise BadSpec(f"{name!r} is no name for a {kind}; use small letters, digits and _")
    taken = {**TARGETS.entries, **SAMPLERS.entries, **METRICS.entries}
    if name in taken:
        raise BadSpec(f"{name!r} is taken by {taken[name].path.name}; choose another name")
    text, test = KINDS[kind]
    title = "".join(word.capitalize() for word in name.split("_"))
    files = {folder / f"{name}.py": text, folder / f"test_{name}.py": test}
    for path in files:
        if path.exists():
            raise BadSpec(f"{path} is there already; choose another name, or move it away")
    for path, content in files.items():
        write_bytes(path, content.replace("NAME", name).replace("CLASS", title).encode())
    return list(files)
