"""Every registered sampler through a whole cell on the pretended GPU: trained, saved, killed and
resumed, drawn from, traced back, probed and scored."""

import re
from contextlib import suppress
from dataclasses import fields

import pytest

from tests.tools.registered import first_of_its_file
from tiltbench.api import cell
from tiltbench.plan.spec import build_sampler
from tiltbench.run.phases import run_cell
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.score.evaluate import evaluate

CODE = {"syntax": "the code of this test", "plugins": {}}
FEW = {"paths": 8, "repeats": 2, "memory": 2, "chains": 4, "ladders": 2, "islands": 2, "leaps": 2}


def small(name, steps=3, **changed):
    """The name with few of everything that the sampler has a number of, as it is written."""
    sampler = build_sampler({"name": name, "params": {}})
    here = {part.name for part in fields(sampler)}
    few = {key: min(n, getattr(sampler, key)) for key, n in FEW.items() if key in here}
    if any(part.name == "steps" for part in fields(sampler.reference)):
        few["reference"] = f"{type(sampler.reference).__name__}[steps={steps}]"
    if isinstance(sampler, Diffusion):
        few["batches"] = 2
        if hasattr(sampler.model, "width"):
            few["model"] = f"{type(sampler.model).__name__}[width=8]"
    return name + "[" + ",".join(f"{key}={value}" for key, value in (few | changed).items()) + "]"


def lived(target, sampler, folder):
    """The record of a run that was killed in its second step and resumed."""
    todo, asked = cell(target, sampler, budget=500, draws=12, device="cuda"), []

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


@pytest.mark.parametrize("name", sorted(SAMPLERS.entries))
def test_on_a_density(gpu, tmp_path, name):
    todo, _ = lived("gmm9", small(name), tmp_path)
    if first_of_its_file(name):
        made = evaluate(tmp_path, todo.id, {})
        assert not made.error
        assert {key: s.reason for key, s in made.scores.items() if s.raised} == {}
