"""The package where nothing was installed, and where links did not arrive."""

import os
import subprocess
import sys

import pytest

from tests.gpu import layout
from tests.gpu.layout import ROOT, lay_out, prepare, unpack_wheels


def test_links_that_arrived_are_used(tmp_path):
    assert lay_out(ROOT, tmp_path) == ROOT / "src"


@pytest.mark.parametrize("kind", ["none", "as text", "inner ones as text"])
def test_three_folders_become_the_package_without_links(tmp_path, kind):
    root, scratch = tmp_path / "tree", tmp_path / "scratch"
    for name in ("bench", "bench/run", "targets", "samplers", "samplers/losses"):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text(f"HERE = {name!r}\n")
    (root / "src").mkdir()
    if kind != "none":  # as git writes links where it may not make them
        (root / "bench" / "targets").write_text("../targets")
        (root / "bench" / "samplers").write_text("../samplers")
    if kind == "as text":
        (root / "src" / "tiltbench").write_text("../bench")
    if kind == "inner ones as text":
        (root / "src" / "tiltbench").symlink_to("../bench")
    place = lay_out(root, scratch)
    assert place == scratch
    names = ("targets", "samplers.losses", "run")
    code = "".join(f"import tiltbench.{name}; print(tiltbench.{name}.HERE)\n" for name in names)
    environ = {**os.environ, "PYTHONPATH": str(place)}
    said = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["targets", "samplers/losses", "bench/run"]


def test_wheels_are_unpacked_where_something_is_missing(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(subprocess, "run", lambda words, **_: asked.append(words))
    assert unpack_wheels(tmp_path, tmp_path / "to") is None and not asked
    (tmp_path / "msgspec-1-py3-none-any.whl").touch()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "before")
    monkeypatch.setattr(layout, "missing", lambda: [])
    assert prepare(ROOT, tmp_path, tmp_path / "a") == [] and not asked
    monkeypatch.setattr(layout, "missing", lambda: ["msgspec"])
    assert prepare(ROOT, tmp_path, tmp_path / "b") == ["msgspec"]
    assert "--no-index" in asked[0] and asked[0][-1].endswith("msgspec-1-py3-none-any.whl")
    places = os.environ["PYTHONPATH"].split(os.pathsep)
    assert str(tmp_path / "b" / "wheels") in places and "before" in places


def test_wheels_of_another_python_are_a_sentence(tmp_path, monkeypatch, capsys):
    def refuse(words, **_):
        raise subprocess.CalledProcessError(1, words)

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(layout, "missing", lambda: ["msgspec"])
    (tmp_path / "msgspec-1-cp39-cp39-any.whl").touch()
    assert prepare(ROOT, tmp_path, tmp_path / "b") == ["msgspec"]
    assert "cannot be installed on this Python" in capsys.readouterr().out
