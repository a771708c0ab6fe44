"""`tiltbench report`: the files that it writes."""

import shutil

import pandas
import pytest

from tiltbench.report import report


@pytest.fixture(scope="module")
def reported(fabricated, tmp_path_factory):
    """A copy with everything that a report writes."""
    folder = shutil.copytree(fabricated, tmp_path_factory.mktemp("reported") / "made")
    report(folder)
    return folder


def test_csv_is_tidy(reported):

    frame = pandas.read_csv(reported / "table.csv")
    assert {"target", "sampler", "seed", "metric", "value", "floor_mean"} <= set(frame.columns)
    assert not frame.duplicated(["target", "budget", "sampler", "seed", "metric"]).any()


def test_pictures_are_made(reported):
    names = {path.name for path in (reported / "plots").iterdir()}
    assert names == {"gmm9.curves.png", "gmm9.draws.png", "gmm9.weights.png", "summary.png"}
    for name in names:
        assert (reported / "plots" / name).read_bytes().startswith(b"\x89PNG")


def test_a_folder_without_records_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no records"):
        report(tmp_path)
