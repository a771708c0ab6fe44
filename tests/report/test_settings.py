"""The best setting of each method: chosen on some seeds, shown on others, labelled in short."""

import math

import pytest
from pandas import DataFrame

from tiltbench.plan.spec import build_sampler, spec
from tiltbench.records.record import Record, Status
from tiltbench.report.frame import COLUMNS, Frames
from tiltbench.report.pictures.sensitivity import sensitivity
from tiltbench.report.settings import choice, methods, number, varied
from tiltbench.report.tables.settings import latex, markdown

DISTANCE = "energy_distance"


def frames(settings, targets=("gmm9",)):
    """`settings`: (method, parameters, a score by seed), of every target alike; floor 0 +- 1."""
    records, rows = [], []
    for method, params, scores in settings:
        label = f"{method}{params or ''}"
        for target in targets:
            for seed, value in enumerate(scores):
                spec = {"target": {"name": target, "params": {}}, "seed": seed}
                spec["sampler"] = {"name": method, "params": params}
                labels = {"target": target, "sampler": label}
                records.append(Record(spec, labels, Status.DONE))
                row = dict.fromkeys(COLUMNS["scores"], math.nan)
                row |= {"target": target, "budget": 10, "limits": "", "sampler": label}
                row |= {"seed": seed, "metric": DISTANCE, "value": value, "se": 0.1, "n": 100}
                row |= {"floor_mean": 0.0, "floor_sd": 1.0, "floor_n": 100}
                rows.append(row | {"unfit": False, "reason": "", "id": f"{label}{seed}"})
    return Frames(DataFrame([], columns=COLUMNS["runs"]), DataFrame(rows), {}, records)


# lucky on the seeds that are shown, or on those that choose
GRID = [
    ("lv", {"lr": 0.001, "paths": 64}, [64.0, 64.0, 0.5, 0.5]),
    ("lv", {"lr": 0.01, "paths": 64}, [8.0, 8.0, 8.0, 8.0]),
    ("lv", {"lr": 0.1, "paths": 64}, [128.0, 128.0, 128.0, 128.0]),
    ("smc", {}, [0.1, 0.1, 32.0, 32.0]),
]


def test_one_half_of_the_seeds_chooses_and_the_other_is_shown():
    chosen = choice(frames(GRID))
    assert (chosen.chosen_on, chosen.shown_on) == ((0, 1), (2, 3))
    best = {each.method.name: each for each in chosen.best}
    assert best["lv"].setting.short == "lv, lr .01"
    # 8 is two doublings beyond the edge, 2 sd, of a squared score: one
    assert best["lv"].shown["gmm9"].doublings == 1
    assert best["smc"].setting.short == "smc"
    assert best["smc"].shown["gmm9"].doublings == 2
    text = markdown(chosen)
    assert "on seeds 0, 1; the numbers are of seeds 2, 3" in text
    assert f"| `lv, lr .01` | 3 | 2.0× {DISTANCE} |" in text


def test_one_setting_serves_all_targets_by_its_mean_rank():
    """Nats of one target are not nats of another: far off on one, it may still lead on three."""
    grid = frames(GRID, ("a", "b", "c", "d"))
    scores = grid.scores
    far = scores["sampler"].str.contains("0.01") & (scores["target"] == "a")
    scores.loc[far, "value"] = 1e9
    assert choice(grid).best[0].setting.short == "lv, lr .01"
    scores.loc[scores["sampler"].str.contains("0.01") & (scores["target"] == "b"), "value"] = 1e9
    assert choice(grid).best[0].setting.short == "lv, lr .001"


def test_labels_are_short_and_say_what_differs():
    part = {"name": "Brownian", "params": {"steps": 16, "ratio": 5.0}}
    more = {"name": "Brownian", "params": {"steps": 64, "ratio": 5.0}}
    other = {"name": "Stationary", "params": {"steps": 64}}
    grid = frames([("lv", {"reference": p, "lr": 1e-3}, [1.0]) for p in (part, more, other)])
    shorts = [setting.short for setting in methods(grid)[0].settings]
    assert shorts == [
        "lv, reference Brownian, steps 16, ratio 5",
        "lv, reference Brownian, steps 64, ratio 5",
        "lv, reference Stationary, steps 64",
    ]
    shortened = [number(v) for v in (0.01, 3e-5, 1e6, 12, True, -0.5, "a")]
    assert shortened == [".01", "3e-5", "1e6", "12", "True", "-.5", "a"]


def test_one_seed_cannot_choose_and_show():
    chosen = choice(frames([(*row[:2], row[2][:1]) for row in GRID]))
    assert chosen.best == () and "run two or more (--seeds 4)" in markdown(chosen)
    assert latex("x", chosen) == ""


def test_nothing_is_chosen_where_no_truth_is_known(tmp_path):
    grid = frames(GRID)
    grid.scores["metric"] = "ksd"
    grid.scores["floor_mean"] = grid.scores["floor_sd"] = math.nan
    chosen = choice(grid)
    assert chosen.best == () and latex("a_grid", chosen) == ""
    assert markdown(chosen).startswith("No setting can be called the best")
    assert not sensitivity(tmp_path / "s.png", grid) and not (tmp_path / "s.png").exists()


def test_the_table_in_latex_fits_a_page():
    many = [("lv", {"lr": 1 / n}, [1.0, 2.0]) for n in range(1, 4)]
    many += [(f"m{n}", {}, [1.0, 2.0]) for n in range(60)]
    text = latex("a_grid", choice(frames(many, [f"t_{n}" for n in range(9)])))
    lines = text.splitlines()
    assert sum(line.startswith(("lv", "m")) for line in lines) == 40
    assert all(line.count(" & ") == 6 for line in lines if line.startswith(("lv", "m")))
    assert "Left out: 3 more targets and 21 more methods." in text
    assert r"\label{tab:a-grid-settings}" in text and r"t\_0" in text


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_picture_shows_what_each_parameter_does(seeds, tmp_path, monkeypatch):
    lines = []
    import tiltbench.report.pictures.sensitivity as pictures

    line = pictures._plot_target
    monkeypatch.setattr(pictures, "_plot_target", lambda *a: (lines.append(a[1:3]), line(*a)))
    grid = frames([(*row[:2], row[2][:seeds]) for row in GRID])
    assert varied(grid) and sensitivity(tmp_path / "s.png", grid)
    # medians over seeds, in doublings: half of those of a square
    middle = 64.0 if seeds == 1 else (64 + 0.5) / 2
    expected = [math.log2(value / 2) / 2 for value in (middle, 8, 128)]
    assert lines == [([0.001, 0.01, 0.1], pytest.approx(expected))]
    assert (tmp_path / "s.png").stat().st_size > 2_000


def test_methods_of_one_loss_are_no_settings_of_each_other():
    """An escort by log-variance, and trajectory balance with a replay, are other methods."""
    names = ("log_variance", "cmcd_lv", "trajectory_balance", "off_policy_trajectory_balance")
    specs = [spec(build_sampler({"name": name, "params": {}})) for name in names]
    apart = frames([(one["name"], one["params"], [1.0, 1.0]) for one in specs])
    assert len({one["name"] for one in specs}) == 2
    assert [len(method.settings) for method in methods(apart)] == [1] * 4 and not varied(apart)


def test_without_a_grid_there_is_nothing(tmp_path):
    grid = frames([("smc", {}, [1.0, 2.0])])
    assert not varied(grid) and not sensitivity(tmp_path / "s.png", grid)
    assert not list(tmp_path.iterdir())
