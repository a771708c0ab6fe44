"""Every registered sampler through a whole cell on the pretended GPU: trained, saved, killed and
resumed, drawn from, traced back, probed and scored."""

import re
from contextlib import suppress

import pytest

from tests.tools.registered import first_of_its_file
from tests.tools.small import small
from tiltbench.api import cell
from tiltbench.plan.spec import METRICS, build_target, parse
from tiltbench.run.phases import run_cell
from tiltbench.run.streams import generator
from tiltbench.samplers.registry import NETWORKS, SAMPLERS
from tiltbench.samplers.sampler import Unsupported
from tiltbench.score.evaluate import evaluate
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.problem import pose

UNKNOWN = {"unknown_law", "unknown_log_Z"}  # what only a target without a truth has
NOBODY = {"torsions"}  # no target that has them has exact draws
CODE = {"syntax": "the code of this test", "plugins": {}}


def lived(target, sampler, folder, draws=12, ode=0):
    """The record of a run that was killed in its second step and resumed."""
    todo, asked = cell(target, sampler, budget=500, draws=draws, device="cuda", ode=ode), []

    def kill(phase, share):
        asked.append(phase)
        if asked.count("training") == 2:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        run_cell(todo, folder, kill, code=CODE, checkpoint=0.0)
    record = run_cell(todo, folder, code=CODE, checkpoint=1e9)
    assert record.status.finished, f"{record.status}: {record.reason}\n{record.traceback}"
    assert asked.count("training") < 2 or record.cost["resumed"] == 1
    assert not [note for note in record.cost["notes"] if re.search(r"\w(Error|Mixed)\b", note)]
    return todo, record


def scored(folder, todo):
    """Its scores by name, none of which was raised by a metric."""
    made = evaluate(folder, todo.id, {})
    assert not made.error
    assert {name: score.reason for name, score in made.scores.items() if score.raised} == {}
    return made.scores


@pytest.mark.parametrize("name", sorted(SAMPLERS.entries))
def test_every_sampler(gpu, tmp_path, name):
    todo, _ = lived("gmm9", small(name), tmp_path)
    if first_of_its_file(name):
        scored(tmp_path, todo)


REFINED = {"average": 0.9, "start_tilt": 0.5, "recipe": "LearnedBase[lr_noise=0.01]"}


@pytest.mark.parametrize("name", ["trajectory_balance", "relative_entropy"])
def test_an_average_a_growing_tilt_and_a_learned_base(gpu, tmp_path, name):
    again = {"repeats": 1, "memory": 1} if name == "relative_entropy" else {}
    lived("gmm9", small(name, model="Guided[width=8]", **REFINED, **again), tmp_path)


@pytest.mark.parametrize("name", ["adjoint_matching", "cmcd_lv", "guidance", "hmc", "best_of_n"])
def test_on_a_tilt(gpu, tmp_path, name):
    lived("tilt_shapes[steps=3]", small(name), tmp_path)


@pytest.mark.parametrize("name", sorted(NETWORKS.entries))
def test_every_network(gpu, tmp_path, name):
    """On the first target that has a place for it."""
    model = NETWORKS.load(name)
    wide = "[width=8]" if hasattr(model, "width") else ""
    loss = "subtrajectory_balance" if model.flows else "log_variance"
    sampler = small(loss, model=name + wide)
    for target in ("gmm9", "dw4", "ising_hs[side=4]", "digits_even[steps=3]"):
        with suppress(Unsupported):
            problem = pose(build_target(parse(target)), Brownian(steps=3))
            model().build(problem.dim, problem.base, generator(0, "train", "cuda"))
            break
    lived(target, sampler, tmp_path)


def test_every_metric(gpu, tmp_path):
    """Each has a value somewhere, or says in words why it has none."""
    scores = {}
    for target in ("gmm9", "dw4", "ising_hs[side=4]", "tilt_linear[steps=3]"):
        ode = 8 if target.startswith("tilt") else 0
        todo, _ = lived(target, small("trajectory_balance"), tmp_path, 40, ode)  # k_hat wants 25
        scores |= {k: s for k, s in scored(tmp_path, todo).items() if s.value is not None}
    known = {name for name in METRICS.entries if not (UNKNOWN | NOBODY) & METRICS.load(name).needs}
    assert len(known - set(scores)) < 3, known - set(scores)
