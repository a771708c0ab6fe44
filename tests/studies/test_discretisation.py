"""What the optimum scores on a grid: its gap closes with the steps, distances count in edges."""

import pytest

from tiltbench.score.floor import Floor
from tiltbench.studies.discretisation import study


def lines(monkeypatch, mean, sd):
    monkeypatch.setattr(study, "STEPS", (4, 64))
    monkeypatch.setattr(study, "DRAWS", 400)
    floor = Floor(mean, sd, 400)
    monkeypatch.setattr(study, "measure", lambda *_: {"energy_distance": floor})
    return study._grid_results("gmm9", ((1.0, 12.0),), "cpu")


def test_the_optimum_on_a_grid(monkeypatch):
    coarse, fine = lines(monkeypatch, 1.0, 0.5)
    assert coarse.gap.value > fine.gap.value > 0  # log Z is above the ELBO
    assert coarse.ess.value < fine.ess.value < 1
    wide, _ = lines(monkeypatch, 3.0, 2.5)
    assert coarse.distance * 2 == pytest.approx(wide.distance * 8)
