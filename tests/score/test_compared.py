"""`score FOLDER --compare`: a folder of records that somebody sends is scored again, and kept."""

import json

import pytest

from tests.tools.fabricated_runs import write
from tiltbench.cli.main import main
from tiltbench.records.record import Status
from tiltbench.score.folder import score


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sent") / "mine"
    record = write(folder / "runs", "one_mode", 0)
    write(folder / "runs", "broken", 0, Status.DIVERGED)
    score(folder, jobs=1)
    return folder, folder / "runs" / f"{record.id}.scores.json"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_honest_scores_are_the_same_and_a_changed_one_is_named(sent, capsys):
    folder, scores = sent
    before = files(folder)
    assert main(["score", str(folder), "--compare"]) == 0
    assert "of 1 runs" in (output := capsys.readouterr().out) and "different" not in output
    assert files(folder) == before and [p.name for p in folder.parent.iterdir()] == ["mine"]
    told = json.loads(scores.read_text())
    told["scores"]["mode_tv"]["value"] /= 2
    scores.write_text(json.dumps(told))
    assert main(["score", str(folder), "--compare"]) == 1
    output = capsys.readouterr().out
    assert "1 different" in output and ", mode_tv: 0.4" in output
    assert json.loads(scores.read_text()) == told  # theirs, as it came
    scores.write_bytes(before[scores.name])


def test_what_cannot_be_compared_is_one_sentence(sent, capsys, tmp_path, monkeypatch):
    folder, scores = sent
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty/runs").mkdir(parents=True)
    write(tmp_path / "bare/runs", "one_mode", 0)
    mistakes = [
        ([str(folder), "--compare", "--force"], "leave --draws and --force out"),
        ([str(folder), "--compare", "--draws", "x.tar"], "leave --draws and --force out"),
        (["bare", "--compare"], "bare came without scores to compare with"),
        (["empty", "--compare"], "empty holds no records of runs"),
        (["nowhere", "--compare"], "there are no results in nowhere"),
    ]
    for words, said in mistakes:
        assert main(["score", *words]) == 2
        printed = capsys.readouterr().err
        assert said in printed and printed.count("\n") == 1, printed
