"""The exported script draws as the package does, at equal noise, and needs torch alone."""

import ast
import runpy
from dataclasses import replace

import pytest
import torch

from tests.tools.small import small
from tests.trained.test_reload import run_of
from tiltbench.api import load
from tiltbench.cli.main import main
from tiltbench.run.streams import generator

WRITTEN = [
    small("log_variance"),
    small("log_variance", reference="Stationary[steps=4]", average=0.9),
    small("log_variance", reference="Scattered[steps=4]", model="Sharpened[network=Mlp[width=8]]"),
    small("pis", model="Guided[width=8,layers=2]"),
    small("subtrajectory_balance"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results" / "mine"


def shaken(loaded):
    """A short training leaves controls that are almost nothing: this one steers, and its gate is
    open."""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in loaded.state.model.network.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=g)
    return loaded


@pytest.mark.parametrize("sampler", WRITTEN)
def test_the_script_draws_what_the_package_draws(sampler, folder, tmp_path):
    from tiltbench.trained import standalone

    loaded = shaken(load(run_of(folder, sampler).id))
    standalone.write(loaded, tmp_path / "control.pt")
    script = runpy.run_path(str(tmp_path / "control.py"))
    seed = loaded.record.spec["seed"]
    x, log_w = script["draw"](20, loaded.target.log_rho, generator(seed, "draw"))
    own = loaded.as_recorded()
    assert float(own.log_w.std()) > 0.1  # the control steers
    torch.testing.assert_close(x, own.x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_w, own.log_w, rtol=1e-4, atol=1e-3)


def test_the_script_needs_torch_alone_and_is_short(folder, capsys, monkeypatch):
    run = run_of(folder, WRITTEN[0]).id
    assert main(["export", run, "control.pt"]) == 0
    output = capsys.readouterr().out
    assert "tensors in control.pt\ncontrol.py draws from them with torch alone" in output
    text = (folder.parent.parent / "control.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 50
    assert max(map(len, text.splitlines())) <= 100
    modules = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert modules == {"math", "pathlib", "sys", "torch"}
    monkeypatch.setattr("sys.argv", ["control.py", "7"])
    runpy.run_path("control.py", run_name="__main__")
    assert capsys.readouterr().out.startswith("7 draws, mean [")
    assert all(type(v) is torch.Tensor for v in torch.load("control.pt").values())


def test_a_label_cannot_bring_code(folder, tmp_path):
    from tiltbench.trained import standalone

    loaded = load(run_of(folder, WRITTEN[0]).id)
    labels = {"target": 'x"""\nraise SystemExit(3)\n"""', "sampler": "\\"}
    standalone.write(
        replace(loaded, record=replace(loaded.record, labels=labels)), tmp_path / "it's.pt"
    )
    assert len(runpy.run_path(str(tmp_path / "it's.py"))["draw"](3)) == 3


MISTAKES = {
    "nothing trained": (["export", "BASE", "x.pt"], "has trained no control to be exported"),
    "another network": (["export", "CURL", "x.pt"], "Potential is too much for a short script"),
    "another chain": (["export", "LEARNED", "x.pt"], "steps a chain that a short script cannot"),
    "a tilt": (["export", "TILT", "x.pt"], "steps a chain that a short script cannot"),
    "particles": (["export", "PARTICLES", "x.pt"], "steps a chain that a short script cannot"),
    "a file of theirs": (["export", "ID", "mine.pt"], "mine.py is a file of yours"),
    "no folder": (["export", "ID", "no/x.pt"], "there is no folder no for x.pt"),
    "no such run": (["export", "mine/ffff", "x.pt"], "no run in results/mine has an id"),
    "a whole folder": (["export", "mine", "x.pt"], "name one of them"),
    "another ending": (["export", "mine", "x.pth"], "weights as .pt, not as '.pth'"),
}
RUNS = {
    "ID": (WRITTEN[0], "gmm9"),
    "BASE": ("untrained", "gmm9"),
    "CURL": (small("log_variance", model="Potential[width=8]"), "gmm9"),
    "LEARNED": (small("log_variance", recipe="LearnedBase"), "gmm9"),
    "TILT": (small("log_variance"), "tilt_linear"),
    "PARTICLES": (small("log_variance"), "dw4"),
}


def test_mistakes_are_one_sentence_and_write_nothing(folder, capsys, tmp_path):
    ids = {name: run_of(folder, sampler, target=t).id for name, (sampler, t) in RUNS.items()}
    (tmp_path / "mine.py").write_text("kept = True\n")
    for words, said in MISTAKES.values():
        assert main([ids.get(word, word) for word in words]) == 2, words
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1, printed
        assert said in printed.err, printed.err
    assert (tmp_path / "mine.py").read_text() == "kept = True\n"
    assert not list(tmp_path.glob("*.pt"))
