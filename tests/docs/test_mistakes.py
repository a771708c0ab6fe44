"""The tables of mistakes in the tutorials: each is made here, and says what the page says."""

import contextlib
import dataclasses
import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.reference.test_beside import evidence, written
from tests.tools.foreign import outcome
from tests.tools.small import small
from tiltbench.api import cell
from tiltbench.cli import reference as command
from tiltbench.cli.main import main
from tiltbench.metric import Outcome, Unknown
from tiltbench.metrics.chains import r_hat
from tiltbench.plan.errors import Refused
from tiltbench.plan.suite import _check_reference
from tiltbench.reference import certify
from tiltbench.reference.certify import conduct, outdone
from tiltbench.reference.evidence import Effort, gather
from tiltbench.run.failures import explain
from tiltbench.run.phases import run_cell
from tiltbench.samplers.adapters.functions import from_numpy
from tiltbench.samplers.sampler import Draws, Unsupported
from tiltbench.targets.functions import from_numpy as density
from tiltbench.targets.target import Density, Truth

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"


def rows(page):
    """(mistake, sentence) of the page's table of mistakes."""
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    section = text[text.index("## Mistakes and their messages") :]
    table = re.search(r"\n\n(\| .*?)(\n\n|\Z)", section, re.S)[1]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [tuple(part.strip() for part in line.strip("|").split(" | ")) for line in lines]


def alike(shown, message):
    """The same but for marks of code, names of runs and what the page leaves out (...)."""
    plain = re.sub(r"\b[0-9a-f]{16}\b", "ID", message.replace("`", ""))
    parts = map(re.escape, shown.replace("`", "").split("..."))
    return re.fullmatch(".*".join(parts), plain) is not None


@pytest.mark.parametrize("page", ["unknown.md", "sampler.md", "trained.md"])
def test_each_page_has_ten_or_more_in_one_sentence_each(page):
    table = rows(page)
    assert len(table) >= 10 and len({mistake for mistake, _ in table}) == len(table)
    assert all(sentence[0] == sentence[-1] == "`" for _, sentence in table)


# --- one's own sampler ---------------------------------------------------------------------------


@pytest.mark.parametrize("mistake, sentence", rows("sampler.md"))
def test_in_a_function(mistake, sentence):
    body = "def sample(log_prob, grad, dim, budget, rng):\n    x = rng.normal(size=(5, dim))\n    "
    scope = {"np": np, "torch": torch}
    exec(body + mistake.strip("`"), scope)
    _, message = outcome(from_numpy("mine", scope["sample"]), 200)
    assert alike(sentence, message), message


# --- a trained sampler ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """results/mine of one run, results/two of two, results/chain of a chain, results/gone of one
    whose state is gone."""
    home = tmp_path_factory.mktemp("home")
    trained = small("log_variance")
    for name, sampler, seed in (
        ("mine", trained, 0),
        ("two", trained, 0),
        ("two", trained, 1),
        ("chain", "mala", 0),
        ("gone", trained, 0),
    ):
        one = cell("gmm9", sampler, budget=400, seed=seed, draws=20)
        record = run_cell(one, home / "results" / name / "runs")
        assert record.status.finished
    (file,) = (home / "results" / "gone" / "runs").glob("*.state.safetensors")
    file.unlink()
    return home


@pytest.mark.parametrize("mistake, sentence", rows("trained.md"))
def test_on_a_command_line(mistake, sentence, results, monkeypatch, capsys):
    monkeypatch.chdir(results)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = shlex.split(mistake.strip("`"))
    assert words[0] == "tiltbench" and main(words[1:]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert alike(sentence, captured.err.removeprefix("tiltbench: ").strip()), captured.err


# --- a truth that is unknown ---------------------------------------------------------------------


@pytest.fixture
def certified(tmp_path, monkeypatch):
    """The target of bell.py, certified by what perfect chains would say."""
    monkeypatch.setattr(certify, "gather", lambda target, *_: evidence(target))
    target = written(tmp_path)
    assert conduct(target, Effort(7, 4), 0, tmp_path, tmp_path, "", str).passed
    return target, tmp_path


def changed(reference, **change):
    return written(reference[1], **change).truth().source


def another_version(reference):
    type(reference[0]).version = 2
    return reference[0].truth().source


def edited(reference):
    about = reference[1] / "bell_reference.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "log_Z": 0.0}))
    return message_of(lambda: written(reference[1]).truth())


def message_of(work):
    with pytest.raises((ValueError, Refused, Unknown, Unsupported)) as error:
        work()
    return explain(error.value)[1] if isinstance(error.value, Unsupported) else str(error.value)


def few_points(reference):
    """As the command says it of what the chains raise."""
    return f"no reference of bell: {message_of(lambda: gather(reference[0], Effort(2_000, 4), 0))}"


def raises(reference):
    try:
        density("bell", lambda x: 1 / 0, 2)().log_rho(torch.zeros(1, 2))
    except Exception as error:
        return f"no reference of bell: {explain(error)[1]}"


@dataclasses.dataclass(frozen=True)
class Turned(Density):
    name = "turned"
    dim = 2
    by: float

    def log_rho(self, x):
        return -x.square().sum(-1) * self.by

    def truth(self):
        return Truth("unknown")


def flat(x):
    return -(x**2).sum(-1)


def one_chain(reference):
    draws = Draws(torch.zeros(40, 2), group=torch.zeros(40, dtype=torch.long))
    truth = written(reference[1]).truth()
    return message_of(
        lambda: r_hat.fn(reference[0], truth, Outcome(draws, None, {}), torch.Generator())
    )


MAKERS = {
    "The density has changed": lambda reference: changed(reference, more=" + 1"),
    "A statistic has another name": lambda reference: changed(reference, names='["a", "c"]'),
    "`version` has been raised": another_version,
    "Somebody edited": edited,
    "Shorter chains": lambda reference: outdone(reference[0], Effort(6, 4)),
    "More draws than it holds": lambda reference: message_of(
        lambda: _check_reference(reference[0], 4001)
    ),
    "Points that pay": few_points,
    "A log density that raises": raises,
    "A reference of other": lambda reference: message_of(
        lambda: command._store(Turned(2.0), Effort(7, 4))
    ),
    "Too few names": lambda reference: message_of(
        lambda: density("bell", flat, 2, statistics=["a"])
    ),
    "A statistic of all": lambda reference: message_of(
        lambda: density("bell", flat, 2, statistics={"all": lambda x: x})().statistics()["all"](
            torch.zeros(3, 2)
        )
    ),
    "One independent chain": one_chain,
}


@pytest.mark.parametrize("mistake, sentence", rows("unknown.md"))
def test_of_an_unknown_truth(mistake, sentence, certified, monkeypatch):
    (make,) = (make for start, make in MAKERS.items() if mistake.startswith(start))
    if make is few_points:
        monkeypatch.undo()
    with contextlib.redirect_stdout(io.StringIO()):
        message = make(certified)
    assert alike(sentence, message), message
