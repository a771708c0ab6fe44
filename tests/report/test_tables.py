"""Tables in Markdown and CSV."""

import json
import math

import pytest

from tests.tools.fabricated_runs import (
    OUTCOMES,
    cost_rows,
    rank_rows,
    write,
)
from tiltbench.records.record import UNPAID, Status
from tiltbench.report.board import boards
from tiltbench.report.frame import collect
from tiltbench.report.tables.legend import number, precise
from tiltbench.report.tables.markdown import markdown
from tiltbench.report.tables.reasons import merged
from tiltbench.score.folder import score


def text_of(folder):
    """table.md of a folder, without its pictures."""
    frames = collect(folder)
    return markdown(frames, boards(frames), folder)


@pytest.fixture(scope="module")
def table(fabricated):
    return text_of(fabricated)


def test_the_table_names_every_run_and_its_end(table):
    for name in OUTCOMES:
        assert f"| `{name}` |" in table
    assert "0 of 5, 5 DIVERGED" in table
    line = "- DIVERGED: log rho of gmm9 is nan at 3 of 512 points: `broken` (seed 0, 1, 2, 3, 4)"
    assert line in table
    assert "UNSUPPORTED" in table and "5 of 5" in table
    assert "- the method gives no weights: `chains` (no ess_model, k_hat" in table


def test_the_table_shows_where_one_side_misleads(table):
    section = table.split("## Good by its own paths, bad by exact draws")[1].split("\n## ")[0]
    assert "`one_mode`" in section and "ess_model 1.00" in section
    assert "log Z is off by -2." in section and "mode_tv 0.89" in section
    assert "`exact`" not in section and "`biased`" not in section


def rows_of(table, sampler):
    return [line for line in table.splitlines() if line.startswith(f"| `{sampler}` |")]


def test_scores_stand_beside_their_floors_and_one_sided_ones_are_never_bold(table):
    of_exact = [line for line in rows_of(table, "exact") if "≈ **" in line]
    assert len(of_exact) >= 2  # as drawn, and after weighting
    section = table[table.index("## gmm9 · ") :].split("\n**Importance-weighted")[0]
    assert section.count("| *noise floor* |") == 2  # of ranks, of scores
    assert "±" not in of_exact[-1]
    weights = [line for line in rows_of(table, "one_mode") if "e-1" in line]
    assert weights and not any("**" in line for line in weights)


def test_provenance_is_at_the_foot(table):
    foot = table.split("## Provenance")[1]
    assert "commit: abc" in foot and "torch 2" in foot and "2 cores" in foot


def test_table_rows_have_as_many_cells_as_their_head(table):
    width = 0
    for line in table.splitlines():
        cells = line.replace("\\|", "").count("|")
        if line.startswith("|"):
            width = width or cells
            assert cells == width, line
        else:
            width = 0


def test_a_folder_where_nothing_finished_still_has_a_table(tmp_path):
    write(tmp_path / "runs", "broken", 0, Status.OUT_OF_TIME)
    assert score(tmp_path, jobs=1) == 0
    assert "OUT_OF_TIME" in text_of(tmp_path)


def test_runs_that_are_not_scored_yet_are_shown_as_such(tmp_path):
    write(tmp_path / "runs", "exact", 0)
    assert "| `exact` |" in text_of(tmp_path)


def test_work_done_in_drawing_is_shown_and_marked(tmp_path):

    write(tmp_path / "runs", "exact", 0)
    more = {"train_flops": 2e6, "draw_flops": 3e3, "train_seconds": 1.5, "ended_by": "flops"}
    write(tmp_path / "runs", "biased", 0, draw=[700, 5000], **more)
    score(tmp_path, jobs=1)
    table = text_of(tmp_path)
    rows = cost_rows(table)
    drawing = {n: [rows[n][f"drawing: {of}"] for of in ("values", "gradients")] for n in rows}
    assert drawing == {"exact": ["200", "0"], "biased": ["700", "5,000"]}
    assert "- drawing took more evaluations than training: `biased`" in table
    frame = collect(tmp_path).scores.groupby("sampler").first()
    spent = ["train_values", "train_grads", "draw_values", "draw_grads"]
    assert frame.loc["biased", spent].tolist() == [1000, 0, 700, 5000]
    ended = ["train_flops", "draw_flops", "train_seconds", "ended_by"]
    assert frame.loc["biased", ended].tolist() == [2e6, 3e3, 1.5, "flops"]


def test_notes_of_runs_are_printed_and_no_training_is_no_rank(tmp_path):
    write(tmp_path / "runs", "exact", 0, notes=[UNPAID])
    write(tmp_path / "runs", "exact", 1)
    write(tmp_path / "runs", "biased", 0, notes=["no probes: oh"])
    write(tmp_path / "runs", "chains", 0, notes=["no probes: oh"])
    score(tmp_path, jobs=1)
    table = text_of(tmp_path)
    assert f"- {UNPAID}: `exact` (seed 0)\n" in table
    assert table.count("no probes: oh") == 1 and "- no probes: oh: `biased`, `chains`" in table
    rows = rank_rows(table)
    assert rows["exact"]["rank"] == "–" and rows["biased"]["rank"].startswith(("1", "2"))


def test_a_score_below_its_floor_is_named_and_as_far_off_as_one_above(tmp_path):
    for name in ("exact", "biased"):
        record = write(tmp_path / "runs", name, 0)
    score(tmp_path, jobs=1)
    path = tmp_path / "runs" / f"{record.id}.scores.json"
    stored = json.loads(path.read_text())
    stored["scores"]["energy_distance"]["value"] = -9.0
    path.write_text(json.dumps(stored))
    table = text_of(tmp_path)
    overview = table.split("## Overview")[1].split("\n## ")[0]
    assert "| `biased` | -9 |" in overview
    assert "it counts against them: `biased` (energy_distance)" in table
    ranks = {name: row["rank"] for name, row in rank_rows(table).items()}
    assert (ranks["biased"], ranks["exact"]) == ("2", "1")


def test_sentences_that_differ_in_numbers_are_said_once():
    assert merged(["3 of 1,000 draws", "12 of 1,000 draws"]) == "3 to 12 of 1,000 draws"
    assert merged(["-1.5 +- 2e+03 of x1a", "-2 +- 4 of x1a"]) == "-2 to -1.5 +- 4 to 2e+03 of x1a"


def test_a_large_number_has_the_decimals_that_its_error_asks_for():
    shown = [precise(-147.0888, se) for se in (0.2, 0.0035, 30.0, math.nan)]
    assert shown == ["-147.09", "-147.0888", "-147", "-147"]
    assert precise(1.23456, 0.001) == number(1.23456) == "1.23"
