"""Sessions that take minutes are recorded as they are stated, and shown where they belong."""

import re
import subprocess

import pytest

from tests.docs.test_docs import PAGES, ROOT, module

transcript = module("transcript")


@pytest.mark.parametrize("name", transcript.SESSIONS)
def test_what_is_published_is_of_these_commands(name):
    text = (transcript.OUT / f"{name}.md").read_text(encoding="utf-8")
    session = transcript.SESSIONS[name]
    assert re.findall(r"^## `(.*)`$", text, re.M) == list(session.commands)
    assert text.startswith(f"# {session.title}\n") and "CPU-seconds; " in text
    assert "certified: the truth of this target from now on" in text
    assert re.search(r"^ +(smc|hmc|log_variance) +1\.0 ", text, re.M)  # somebody has a place
    assert str(ROOT) not in text and "/tmp" not in text


def test_the_tutorial_shows_the_commands_that_were_recorded():
    page = PAGES["docs/tutorials/unknown.md"]
    lines = [line for code in re.findall(r"^```sh\n(.*?)^```$", page, re.M | re.S)
             for line in code.splitlines()]  # fmt: skip
    assert set(transcript.SESSIONS["valley"].commands[:3]) <= set(lines)


def test_a_block_of_a_page_is_a_file(tmp_path):
    transcript.place("docs/tutorials/unknown.md:valley.py", tmp_path)
    assert (tmp_path / "valley.py").read_text().startswith('"""Rosenbrock')
    transcript.place("examples/lotka_volterra.py", tmp_path)
    assert (tmp_path / "examples" / "lotka_volterra.py").is_file()
    with pytest.raises(ValueError, match="has no block with the title none.py"):
        transcript.place("docs/tutorials/unknown.md:none.py", tmp_path)


def test_progress_and_the_folder_are_left_out(tmp_path, monkeypatch):
    output = f"[1/2] gmm9 · smc: done\nscored 1 of 2\nin {tmp_path}/results/x\n  ok\n"
    done = subprocess.CompletedProcess([], 0, output)
    monkeypatch.setattr(transcript.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(transcript, "_ended", lambda: None)
    assert transcript._output("tiltbench run", tmp_path) == "in results/x\n  ok"
