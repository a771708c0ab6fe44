"""Studies: their arithmetic on known data, their files, and a tiny run of each."""

import math
import re

import numpy as np
import pytest
import torch
from pandas import DataFrame

from tiltbench.cli import main
from tiltbench.samplers.weights import Estimate
from tiltbench.spec import STUDIES
from tiltbench.studies import convergence, fluctuation, oracle
from tiltbench.study import Answer, Study, conduct


def test_a_study_writes_its_table_with_command_and_commit(tmp_path):
    made = DataFrame({"a": [1.23456, math.nan], "b": ["x", "y"]})
    page = conduct(
        Study("toy", "A question", lambda folder, device: Answer(made, "Two.")), tmp_path, "cpu"
    )
    text = page.read_text()
    assert "| 1.235 | x |" in text and "| – | y |" in text
    assert text.startswith("# A question") and "`tiltbench study toy`" in text
    assert re.search(r"commit [0-9a-f]{40}", text) and "torch" in text
    assert (tmp_path / "table.csv").read_text().splitlines()[1] == "1.23456,x"


def test_unknown_studies_are_refused(capsys):
    assert main(["study", "convergense"]) == 2
    assert "did you mean 'convergence'" in capsys.readouterr().err


def test_the_crossing_of_gaussian_work_is_log_Z():
    """N(log Z -+ sd^2/2, sd^2) obeys Crooks: log p_bwd / p_fwd = a - log Z."""
    g, sd, log_Z = torch.Generator().manual_seed(0), 1.2, 0.7
    xi = torch.randn(2, 400_000, generator=g, dtype=torch.float64) * sd
    sides = fluctuation.Sides(log_Z - sd**2 / 2 + xi[0], log_Z + sd**2 / 2 + xi[1], log_Z)
    slope, root = fluctuation._crossing(sides)
    assert slope == pytest.approx(1, abs=0.02) and root == pytest.approx(log_Z, abs=0.02)
    apart = sides._replace(backward=sides.backward + 50)
    assert all(math.isnan(v) for v in fluctuation._crossing(apart))


def test_the_fitted_slope_is_the_order():
    errors = [Estimate(-3.0 / k**2, 1e-3 / k**2, 10) for k in convergence.STEPS]
    slope, se = convergence._slope(errors)
    assert slope == pytest.approx(-2, abs=1e-6) and 0 < se < 1e-3
    assert math.isnan(convergence._slope([Estimate(0.0, 1.0, 10)] * 5)[0])


SHRUNK = {
    "memory": {"POINTS": 500, "DRAWS": 100, "METHOD": "adjoint_matching[paths=64]"},
    "fluctuation": {
        "CASES": {"tilt_linear": ("cmcd_lv[paths=8]", 2_000)},
        "PATHS": 500,
    },
    "convergence": {"PATHS": 400, "CHUNK": 200, "STEPS": (2, 4)},
}


@pytest.mark.parametrize("name", sorted(set(STUDIES.entries) - {"oracle"}))
def test_every_study_runs(name, tmp_path, monkeypatch):
    for key, value in SHRUNK[name].items():
        monkeypatch.setattr(f"tiltbench.studies.{name}.{key}", value)
    page = conduct(STUDIES.load(name), tmp_path, "cpu").read_text()
    assert page.count("\n|") > 3 and (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_the_oracle_judges_from_stored_scores(tmp_path, monkeypatch):
    rows = []
    for method, shift in {"good": 0.0, "off": 0.2, "a_unweighted": 0.5}.items():
        for seed in range(3):
            head = {"target": "tilt_linear", "budget": 1000, "sampler": method, "seed": seed}
            bar = {"metric": "log_Z_bar_err", "value": shift + 0.01 * seed, "se": 0.01}
            ed = {"metric": "energy_distance", "value": shift, "floor_mean": 0.0, "floor_sd": 0.01}
            rows += [{**head, **bar}, {**head, **ed}]
    bar = {"metric": "log_Z_bar_err", "value": 0.0, "se": math.inf}
    ed = {"metric": "energy_distance", "value": 0.0, "floor_mean": 0.0, "floor_sd": 0.01}
    for seed in range(3):  # an infinite error covers everything and proves nothing
        head = {"target": "tilt_linear", "budget": 1000, "sampler": "lost", "seed": seed}
        rows += [{**head, **bar}, {**head, **ed}]
    rows.append({**head, **ed, "target": "gmm9", "sampler": "elsewhere"})
    path = tmp_path / "table.csv"
    DataFrame(rows).to_csv(path, index=False)
    monkeypatch.setattr(oracle, "SCORES", (path,))
    made = oracle.run(tmp_path, "cpu")
    verdict = made.table.set_index("method")
    assert verdict.loc["good", ["log Z", "floor"]].tolist() == ["yes", "yes"]
    assert verdict.loc["off", ["log Z", "floor"]].tolist() == ["no", "no"]
    assert verdict.loc["lost", "log Z"] == "no"
    assert "1 of 3 methods" in made.words and "`off`, `lost`" in made.words
    assert "Not defined on this base: `elsewhere`" in made.words
    assert np.isnan(verdict.loc["good", "control_err"])
    monkeypatch.setattr(oracle, "SCORES", (tmp_path / "none.csv",))
    with pytest.raises(FileNotFoundError, match="run the suite first"):
        oracle.run(tmp_path, "cpu")
