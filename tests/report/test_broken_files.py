"""Files that are cut or spoilt: a reason, and the others go on."""

from tests.tools.fabricated_runs import cut, spoil, write
from tiltbench.records.store import read_scores
from tiltbench.report import report
from tiltbench.score.folder import score


def test_broken_files_are_a_reason_and_the_others_go_on(tmp_path, capsys):
    runs = tmp_path / "runs"
    bad, uneven, unscored = (write(runs, "exact", seed).id for seed in (0, 1, 2))
    write(runs, "biased", 0)
    spoil(runs / f"{bad}.npz")
    cut(runs / f"{uneven}.curve.npz")
    assert score(tmp_path, jobs=1) == 4
    scores = read_scores(runs, bad)
    assert all(f"{bad}.npz cannot be read" in f["reason"] for f in scores["scores"].values())
    scores = read_scores(runs, uneven)
    assert scores["scores"]["w2"]["value"] > 0 and scores["curve"] is None
    cut(runs / f"{unscored}.scores.json")
    capsys.readouterr()
    table = report(tmp_path).read_text(encoding="utf-8")
    printed = capsys.readouterr().err
    assert (
        f"{unscored}.scores.json holds no scores" in printed
        and f"{bad}.npz cannot be read" in printed
    )
    assert f"{uneven}.curve.npz cannot be scored" in table and f"{bad}.npz cannot be read" in table
    assert (tmp_path / "plots" / "summary.png").exists()
    assert score(tmp_path, jobs=1) == 1  # the truncated one
