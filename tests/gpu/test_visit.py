"""The visit as a whole: no section stops the next, and the page says what was wrong."""

import multiprocessing
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gpu import __main__ as command
from tests.gpu import visit as visiting
from tests.gpu.layout import ROOT
from tests.gpu.section import TINY, Notes, Section, Visit, read
from tests.gpu.visit import SECTIONS, Finding, body, page, supervised
from tests.waiting import wait_for

FORK = multiprocessing.get_context("fork")  # the server that sections have takes seconds to start


@dataclass(frozen=True)
class Sure(Section):
    """A section that does as it is told."""

    does: str = "well"

    def run(self, visit, notes):
        notes.row("numbers", a=1.0, b=None)
        if self.does == "raises":
            raise ValueError("one sentence\nof two lines")
        if self.does == "dies":
            os._exit(7)
        if self.does == "hangs":
            child = subprocess.Popen(["sleep", "1000"])
            (visit.folder / "child").write_text(str(child.pid))
            child.wait()
        notes.say("done")


def ran(tmp_path, does, left=100.0, seconds=100.0):
    section = Sure(does, "none", f"It {does}", seconds, does=does)
    return supervised(section, Visit("cuda", TINY, tmp_path), left, FORK)


def test_a_section_that_works(tmp_path):
    found = ran(tmp_path, "well")
    assert found.lines == [{"table": "numbers", "cells": {"a": 1.0, "b": None}}, {"said": "done"}]
    assert found.faults == []


@pytest.mark.parametrize(
    "does, says",
    [
        ("raises", "ValueError: one sentence of two lines"),
        ("dies", "its process ended with exit code 7"),
    ],
)
def test_a_section_that_fails_leaves_its_rows_and_a_fault(tmp_path, does, says):
    found = ran(tmp_path, does)
    assert found.lines[0]["cells"] == {"a": 1.0, "b": None} and found.faults == [says]


def test_a_section_that_hangs_is_ended_with_all_it_started(tmp_path):
    found = ran(tmp_path, "hangs", seconds=0.3)
    assert found.faults == ["stopped after 0 s, its limit; what it had found stands above"]
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: gone(child))  # SIGKILL is not answered at once


def gone(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def test_the_time_of_the_whole_is_a_limit_too(tmp_path):
    found = ran(tmp_path, "well", left=-1.0)
    assert found.faults == ["not begun: the time of the whole visit is spent"]


def test_the_sections_fit_into_eight_minutes_and_are_there():
    assert command.LIMITS["cuda"] + visiting.GRACE <= 480
    for section in SECTIONS:
        assert (ROOT / "tests" / "gpu" / f"{section.module}.py").exists()


def test_the_page_names_faults_first_and_joins_rows_of_a_table():
    notes = Notes(quiet=True)
    notes.row("times", what="a", ms=1.23456)
    notes.say("A sentence.")
    notes.row("times", what="b", MB=2e5)
    notes.fault("b is wrong")
    made = page([Finding(SECTIONS[0], notes.lines, 3.2)], "signed")
    head, _, rest = made.partition("\n## ")
    assert head == "# On a GPU\n\n- **environment**: b is wrong\n"
    assert "| what | ms | MB |\n| --- | --- | --- |\n| a | 1.23 | – |\n| b | – | 200,000 |" in rest
    assert rest.index("A sentence.") < rest.index("**b is wrong**") < rest.index("signed")
    assert body([]) == []


def test_notes_that_were_cut_off_are_read_as_far_as_they_go(tmp_path):
    path = tmp_path / "notes.jsonl"
    Notes(path, quiet=True).say("whole")
    with path.open("a") as file:
        file.write('{"said": "ha')
    assert read(path) == [{"said": "whole"}]
    assert read(tmp_path / "none") == []


@pytest.fixture
def laid_out(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "prepare", lambda *_: [])
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return ["--folder", str(tmp_path)]


def test_without_a_gpu_it_says_what_to_do(laid_out, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert command.main([*laid_out, "--device", "cuda"]) == 2
    assert "`make gpu DEVICE=cpu` is the dry run" in capsys.readouterr().err


def test_an_unknown_section_is_refused(laid_out, capsys):
    assert command.main([*laid_out, "--device", "cpu", "time"]) == 2
    assert "no section is called 'time'; they are: environment," in capsys.readouterr().err


@pytest.mark.parametrize("faults, code", [([], 0), (["off"], 1)])
def test_the_dry_run_publishes_nothing(laid_out, tmp_path, monkeypatch, faults, code):
    def found(section, visit, left):
        assert visit.device == "cpu" and visit.sizes == TINY
        return Finding(section, [{"fault": fault} for fault in faults], 0.0)

    before = (ROOT / "results" / "published" / "gpu.md").exists()
    monkeypatch.setattr(visiting, "supervised", found)
    assert command.main([*laid_out, "--device", "cpu"]) == code
    assert "commit" in (tmp_path / "gpu.md").read_text()
    assert (ROOT / "results" / "published" / "gpu.md").exists() == before


@pytest.mark.parametrize(
    "words, line",
    [
        ("", ".venv/bin/python -m tests.gpu --device cuda"),
        ("PYTHON=python9", "python9 -m tests.gpu --device cuda"),
        ("PYTHON=python9 DEVICE=cpu", ".venv/bin/python -m tests.gpu --device cpu"),
    ],
)
def test_make_takes_the_python_that_is_named_and_no_venv_then(words, line):
    outer = ("PYTHON", "DEVICE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # of `make test` itself
    environ = {key: value for key, value in os.environ.items() if key not in outer}
    said = subprocess.run(
        ["make", "-n", "gpu", *words.split()], cwd=ROOT, env=environ, capture_output=True, text=True
    ).stdout
    assert said.splitlines()[-1].startswith(line)
    assert "Set up" not in said or ".venv" in line


def test_readme_says_whether_it_was_ever_run():
    never = "has been run on a GPU so far" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert never != (ROOT / "results" / "published" / "gpu.md").exists()
