"""Every study on the pretended GPU, at the sizes of its own test."""

import pytest

from tests.studies.test_studies import RUN, SHRUNK
from tiltbench.plan.spec import STUDIES
from tiltbench.report.pictures import style
from tiltbench.study import conduct


@pytest.mark.parametrize("name", RUN)
def test_on_the_gpu(gpu, tmp_path, monkeypatch, name):
    monkeypatch.setattr(style, "save", lambda figure, path: None)
    for key, value in SHRUNK[name].items():
        monkeypatch.setattr(f"tiltbench.studies.{name}.study.{key}", value)
    assert conduct(STUDIES.load(name), tmp_path, "cuda").read_text().count("\n|") > 3
