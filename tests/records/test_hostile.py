"""Files from strangers are data: nothing in them runs, and none writes outside its folder."""

import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import tiltbench
from tiltbench.cli.main import main
from tiltbench.engine.child import opened
from tiltbench.plan.spec import build_target, spec
from tiltbench.records.files import read_arrays
from tiltbench.records.record import (
    Record,
    Status,
    brings_code,
    read_record,
    write_outcome,
    write_record,
)
from tiltbench.records.store import done_record, read_scores
from tiltbench.records.store import records as records_of
from tiltbench.report import report
from tiltbench.samplers.sampler import Draws
from tiltbench.score.floor import read_floors
from tiltbench.score.folder import score
from tiltbench.targets import target
from tiltbench.targets.truths import stored

ROOT = Path(tiltbench.__file__).resolve().parents[1]
OPEN = "ran"  # the file that hostile code would leave


class Payload:
    """Unpickling it runs code."""

    def __reduce__(self):
        return (Path.touch, (Path(OPEN).resolve(),))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / OPEN).exists(), "code of a file was run"


def armed():
    """A .npz whose x is an object array; loading it with pickle runs its code."""
    array = np.empty(3, dtype=object)
    array[:] = Payload()
    data = io.BytesIO()
    np.savez(data, x=array, spend=array, log_w=np.zeros(3))
    return data.getvalue()


def test_the_payload_works(tmp_path):
    with np.load(io.BytesIO(armed()), allow_pickle=True) as data:
        assert data["x"].shape == (3,)
    (tmp_path / OPEN).unlink()


def record(**changes):
    full = spec(build_target({"name": "gmm9", "params": {}}))
    numbers = {"target_version": 1, "seed": 0, "draws": 3, "device": "cpu"}
    budget = {"train": [9, 9], "draw": [9, 9], "measure": [9, 9], "seconds": None}
    sampler = {"name": "smc", "params": {}}
    made = {"target": full, "sampler": sampler, "budget": budget, **numbers}
    labels = {"target": "gmm9", "sampler": "smc", **changes.pop("labels", {})}
    return Record({**made, **changes}, labels, Status.DONE, cost={"train": [9, 9]})


def put(made, draws=None):
    runs = Path("results/theirs/runs")
    if draws is None:
        x = torch.randn(3, 2, dtype=torch.float64)
        write_outcome(runs, made.id, tiltbench.metric.Outcome(Draws(x), None, {}))
    else:
        runs.mkdir(parents=True, exist_ok=True)
        (runs / f"{made.id}.npz").write_bytes(draws)
    write_record(runs, made)
    return runs / f"{made.id}.json"


def test_pickled_draws_are_a_reason_in_the_scores():
    made = put(record(), armed())
    (made.parent / f"{made.stem}.curve.npz").write_bytes(armed())
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(made.with_suffix(".npz"))
    assert score(Path("results/theirs"), jobs=1) == 1
    scores = read_scores(made.parent, made.stem)["scores"]
    assert all("Object arrays cannot be loaded" in f["reason"] for f in scores.values())


@pytest.mark.parametrize("kind", ["npz", "npy", "pickle", "zip", "empty"])
def test_pickled_draws_are_not_imported(kind, capsys):
    import pickle

    array = np.empty(3, dtype=object)
    array[:] = Payload()
    content, buffer = io.BytesIO(), io.BytesIO()
    np.save(buffer, array)
    with zipfile.ZipFile(content, "w") as inside:
        inside.writestr("../../x.npy", b"not an array")
    files = {
        "npz": ("a.npz", armed()),
        "npy": ("a.npy", buffer.getvalue()),
        "pickle": ("a.npz", pickle.dumps(Payload())),
        "zip": ("a.npz", content.getvalue()),
        "empty": ("a.npz", b""),
    }
    name, data = files[kind]
    Path(name).write_bytes(data)
    assert main(["import", name, "--target", "gmm9", "--calls", "9"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and (f"{name} cannot be read" in error or "holds" in error)


def test_the_package_s_own_data_is_read_without_pickle(tmp_path, monkeypatch):
    """With the right checksum beside it: whoever can write both still runs nothing."""
    import hashlib

    monkeypatch.setattr(target, "DATA", tmp_path)
    array = np.empty(3, dtype=object)
    array[:] = Payload()
    np.save("bad.npy", array)
    Path("bad_reference.npz").write_bytes(armed())
    digest = hashlib.sha256(Path("bad.npy").read_bytes()).hexdigest()
    Path("bad.json").write_text(json.dumps({"sha256": digest}))
    with pytest.raises(ValueError):
        target.table("bad", torch.zeros(1))
    data, about = Path("bad_reference.npz"), Path("bad_reference.json")
    facts = {"certified": True}
    stamp = stored.checksum(data.read_bytes(), facts)
    about.write_text(json.dumps({**facts, "sha256": stamp}))
    with pytest.raises(ValueError, match="pickle"):
        stored._loaded(data, about)


PLUGIN = """
from pathlib import Path
Path("ran").touch()
class Mine:
    name = "mine"
"""


@pytest.mark.parametrize("kind", ["target", "sampler"])
@pytest.mark.parametrize("inside", ["evil/code.py", "a.pyenv/code.py", "x.py/c,o [d]e.py"])
def test_a_record_does_not_bring_its_own_code(kind, inside, capsys):
    code = Path("results/theirs") / inside
    code.parent.mkdir(parents=True)
    code.write_text(PLUGIN)
    path = put(record(**{kind: {"name": f"{code}:mine", "params": {}}}))
    assert done_record(path) is None
    error = capsys.readouterr().err
    assert "names code in its own results folder" in error and error.count("\n") == 1
    assert main(["score", "theirs"]) == 2 and main(["report", "theirs"]) == 2
    assert main(["status", "theirs"]) == 0


@pytest.mark.parametrize("folder", ["theirs", "results.pytorch", "a.py", "x.py:y"])
def test_a_folder_may_be_called_anything(folder, tmp_path):
    for name in (f"{folder}/evil.py", f"{folder}/evil.py:evil", f"./{folder}/runs/../evil.py:evil"):
        assert brings_code(name, tmp_path / folder / "runs")
        assert not brings_code(name, tmp_path / "mine" / "runs")
    assert not brings_code("gmm9", tmp_path / folder / "runs")


DEEP = "[" * 100_000
WRONG = {
    "no record": ({}, "required field schema"),
    "a list": ([], "the whole: Expected object"),
    "a status": ({"status": "brilliant"}, "brilliant"),
    "another key": ({"extra": 1}, "extra"),
    "no name": ({"spec": {"target": {}}}, "spec.target: Object missing required field name"),
    "a name": ({"labels": {"target": ["x"], "sampler": "y"}}, "labels.target: Expected str"),
    "a seed": ({"seed": "../../x"}, "Expected int"),
    "draws": ({"draws": -1}, "Expected int"),
    "flops": ({"budget": {"train": [1, 1], "flops": "x"}}, "spec.budget.flops: Expected float"),
    "seconds": ({"budget": {"train": [1, 1], "seconds": 0}}, "Expected float > 0.0"),
    "a cost": ({"cost": []}, "cost: Expected object"),
    "another run": ({"seed": 5}, "under another name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_record_is_one_sentence(case, capsys):
    change, said = WRONG[case]
    path = put(record())
    data = json.loads(path.read_text())
    if isinstance(change, list) or not change:
        data = change
    elif set(change) <= set(data["spec"]):
        data["spec"] |= change
    else:
        data |= change
    path.write_text(json.dumps(data))
    assert records_of(path.parent) == []
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and str(path) in error


def test_brackets_without_end_are_one_sentence(capsys):
    path = put(record())
    for file, read in (
        (path, read_record),
        (path.parent / "x.scores.json", lambda p: read_scores(p.parent, "x")),
        (path.parent / "floors.json", read_floors),
    ):
        file.write_text(DEEP)
        with pytest.raises(ValueError, match=file.name):
            read(file)
    Path("results/theirs/suite.json").write_text(DEEP)
    assert main(["status", "theirs"]) == 2
    assert "suite.json is not readable" in capsys.readouterr().err


def test_a_link_in_the_results_is_not_written_through(tmp_path):
    mine, link = tmp_path / "precious", tmp_path / "run.log"
    mine.write_text("kept")
    link.symlink_to(mine)
    with opened(link) as log:
        log.write("noise")
    assert mine.read_text() == "kept" and link.read_text() == "noise" and not link.is_symlink()


def test_names_that_are_paths_stay_inside_the_folder(tmp_path):
    up = "../../../../outside"
    path = put(record(labels={"target": up, "sampler": f"{up}/s"}))
    path.with_suffix(".scores.json").write_text('{"scores": {}, "code": "x"}')
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    report(Path("results/theirs"))
    assert main(["publish", "theirs"]) == 0
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    archive = tmp_path / "results/theirs-draws.tar"
    homes = (tmp_path / "results/theirs", tmp_path / "results/published/theirs", archive)
    assert made and all(any(path.is_relative_to(h) for h in homes) for path in made)
    assert not list(tmp_path.parent.glob("outside*"))


LIBRARIES = "pickle|marshal|shelve|dill|cloudpickle|joblib|yaml|runpy"
RUNS = re.compile(
    r"(?<![\w.])(eval|exec|compile|__import__)\(|torch\.load\((?!.*weights_only=True)|read_pickle"
    rf"|(import|from) ({LIBRARIES})\b"
)


def test_no_file_is_unpickled_or_evaluated():
    """Every place of the source that reads a file."""
    loads = []
    for folder in ("bench", "samplers", "targets"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not RUNS.search(text), f"{path}: {RUNS.search(text)[0]}"
            loads += re.findall(r"(?:np|numpy)\.load\((.*)", text)
    assert len(loads) >= 4 and all("allow_pickle=False" in call for call in loads)
