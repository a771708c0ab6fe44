"""Files of a results folder: their permissions, and what is said of damaged ones."""

import os
import stat

import pytest
import torch

from tiltbench.plan.toml import Choice, Suite
from tiltbench.records.files import write_tensors
from tiltbench.records.recorded import recorded_cells
from tiltbench.run.checkpoint import Checkpoints, Saved
from tiltbench.run.compute import Metered
from tiltbench.run.ledger import Attempts
from tiltbench.run.phases import run_cell
from tiltbench.score.folder import score
from tiltbench.targets.cost import Cost


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_states_and_checkpoints_honour_the_umask(mask, mode, tmp_path):
    former = os.umask(mask)
    try:
        for _ in range(2):  # anew, and in the place of a file
            write_tensors(tmp_path / "state.safetensors", {"x": torch.zeros(2)})
            checkpoints = Checkpoints(tmp_path / "checkpoint.safetensors", {}, 0.0, places={})
            saved = Saved(None, torch.Generator(), Cost(), Metered(), 1, 1.0, [], Attempts())
            assert checkpoints.save(saved, 0.1) == ""
    finally:
        os.umask(former)
    made = list(tmp_path.iterdir())
    assert len(made) == 2 and all(stat.S_IMODE(path.stat().st_mode) == mode for path in made)


def cut(data):
    return data[:60]


def spoilt(data):
    """Its directory is whole, what it holds is not."""
    return data[:50] + bytes(30) + data[80:]


@pytest.mark.parametrize("damage", [cut, spoilt])
def test_a_damaged_curve_is_said_and_made_anew(damage, tmp_path, capsys):
    choices = (Choice.of("gaussian"),), (Choice.of("mala"),)
    cells = Suite("t", "", 300, 30, (0,), *choices, curve=8).cells("cpu")
    runs = tmp_path / "runs"
    run_cell(cells[0], runs, code={})
    assert set(recorded_cells(cells, runs)) == {cells[0].id}
    path = runs / f"{cells[0].id}.curve.npz"
    path.write_bytes(damage(path.read_bytes()))
    assert score(tmp_path, jobs=1) == 1
    errors = capsys.readouterr().err
    assert f"{path.name} cannot be scored" in errors and "`tiltbench run` makes it anew" in errors
    assert recorded_cells(cells, runs) == {}
    assert f"{path} is damaged; its run is made anew" in capsys.readouterr().err
