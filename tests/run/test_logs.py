"""Loggers are told of a training, change nothing of it, and cost only their log by failing."""

import csv

import pytest
import torch

from tests.tools.small import small
from tiltbench.api import cell
from tiltbench.cli.main import main
from tiltbench.plan import loggers as logs
from tiltbench.records.record import read_outcome
from tiltbench.run.phases import run_cell

CSV = """
class Csv:
    name = "csv"

    def __init__(self, title, run, folder):
        self.file = open(folder / f"{run}.log.csv", "w")

    def line(self, step, numbers):
        if not self.file.tell():
            print("step", *numbers, sep=",", file=self.file)
        print(step, *numbers.values(), sep=",", file=self.file, flush=True)

    def close(self):
        self.file.close()


class Full:
    name = "full"

    def __init__(self, title, run, folder):
        self.lines = 0

    def line(self, step, numbers):
        raise OSError("no space\\nleft")

    def close(self):
        raise AssertionError("it has been dropped")


class Absent:
    name = "absent"

    def __init__(self, title, run, folder):
        raise ModuleNotFoundError("no wandb here")


class Half:
    name = "half"
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loggers.py").write_text(CSV)
    return "loggers.py"


CELL = cell("gmm9", small("log_variance", batches=5), budget=400, draws=10)


def test_lines_come_at_their_steps_and_at_the_end(file, tmp_path, monkeypatch):
    monkeypatch.setattr(logs.Logs.due, "__defaults__", (4,))
    record = run_cell(CELL, tmp_path, loggers=[f"{file}:csv"])
    with (tmp_path / f"{record.id}.log.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert [row["step"] for row in rows] == ["4", "5"]
    assert [row["calls"] for row in rows] == ["32", "40"]  # 8 paths a step
    assert list(rows[0]) == "step share calls flops seconds loss lr log_Z".split()
    numbers = [{key: float(value) for key, value in row.items()} for row in rows]
    assert all(value == value for row in numbers for value in row.values())
    assert rows[0]["loss"] != rows[1]["loss"] and numbers[0]["lr"] > numbers[1]["lr"]
    assert record.cost["notes"] == []


def test_a_logged_run_is_the_same_run(file, tmp_path, monkeypatch):
    monkeypatch.setattr(logs.Logs.due, "__defaults__", (1,))
    plain = run_cell(CELL, tmp_path / "plain")
    told = run_cell(CELL, tmp_path / "told", loggers=[f"{file}:csv"])
    x, y = (read_outcome(tmp_path / name, CELL.id).draws.x for name in ("plain", "told"))
    assert torch.equal(x, y) and plain.spec == told.spec
    assert plain.cost["train_flops"] == told.cost["train_flops"]


def test_one_that_fails_costs_its_log_alone(file, tmp_path):
    names = [f"{file}:absent", f"{file}:full", f"{file}:csv"]
    record = run_cell(CELL, tmp_path, loggers=names)
    assert record.status.finished
    assert record.cost["notes"] == [
        "logger loggers.py:absent has stopped: ModuleNotFoundError: no wandb here",
        "logger full has stopped: OSError: no space left",
    ]
    assert len((tmp_path / f"{record.id}.log.csv").read_text().splitlines()) == 2


RUN = ["run", "--targets", "gmm9", "--samplers", "mala", "--dry-run"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--log", "tensorboard"], "no logger is called 'tensorboard', as no installed package"),
        (["--log", "nowhere.py"], "there is no file nowhere.py"),
        (["--log", "loggers.py"], "loggers.py holds csv, full, absent, half; choose one as"),
        (["--log", "loggers.py:half"], "loggers.py:half is no logger: it has no line(...)"),
        (["--log", "loggers.py:svc"], "choose one as loggers.py:NAME"),
        (["--log", ""], "names nothing"),
        (["--log"], "--log has no value"),
        (["--curve", "-1"], "--curve -1 is not a whole number from 0 on"),
        (["--curve", "many"], "--curve many is not a whole number from 0 on"),
        (["--logs", "loggers.py:csv"], "there is no option --logs; did you mean '--log'?"),
    ],
)
def test_a_mistake_is_one_sentence(words, said, file, capsys):
    assert main([*RUN, *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and said in printed.err, printed.err


def test_the_curve_is_asked_for_or_left_out(file, capsys):
    from tiltbench.cli.run import Asked

    asked = {"targets": ("gmm9",), "samplers": ("mala",)}
    assert [Asked(**asked, curve=n).plan().curve for n in (None, 0, 40)] == [250, 0, 40]
