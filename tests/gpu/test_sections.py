"""What the sections conclude, on numbers whose answer is known."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Generator

from tests.gpu import cuda_tests, environment, graphs, packing, parity, quick, times
from tests.gpu.layout import ROOT
from tests.gpu.parity import OF_A_READER, SameNoise, compared, difference, named, registered
from tests.gpu.section import TINY, Notes, Visit
from tiltbench.engine.gpus import places
from tiltbench.samplers.registry import NETWORKS, SAMPLERS
from tiltbench.targets.registry import TARGETS

DRY = Visit("cpu", TINY, Path())


# ---------------------------------------------------------------- parity


def test_every_sampler_network_and_target_is_compared():
    targets = len(TARGETS.entries) - len(OF_A_READER)
    assert len(registered()) == len(SAMPLERS.entries) + len(NETWORKS.entries) + targets


def test_the_difference_is_relative_to_the_rms():
    a = torch.tensor([3.0, 4.0, torch.inf])
    assert difference(a, a) == 0
    assert difference(a, torch.tensor([3.0, 4.5, torch.inf])) == pytest.approx(0.1)
    assert difference(a, torch.tensor([3.0, torch.nan, torch.inf])) == torch.inf
    assert difference(a, a[:2]) == torch.inf
    assert difference(torch.zeros(2), torch.ones(2)) == torch.inf


def test_the_same_numbers_come_from_another_generator():
    asked = Generator().manual_seed(1)

    def numbers(g):
        out = torch.empty(2)
        return (
            torch.randn(3, generator=g),
            torch.rand(3, generator=g, dtype=torch.float64),
            torch.randint(9, (3,), generator=g),
            torch.multinomial(torch.ones(5), 2, True, generator=g),
            torch.empty(3).uniform_(2, 3, generator=g),
            torch.randn(2, generator=g, out=out),
        )

    plain, state = numbers(Generator().manual_seed(5)), asked.get_state()
    with SameNoise(asked, Generator().manual_seed(5)):
        same = numbers(asked)
        torch.randn(3, generator=Generator().manual_seed(0))  # not asked of it: left alone
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    with SameNoise(asked, Generator().manual_seed(5), parity.MOVED):
        moved = numbers(asked)
    off = [difference(a.double(), b.double()) for a, b in zip(plain, moved, strict=True)]
    assert off[2] == off[3] == 0
    assert all(0 < v < parity.MOVED for i, v in enumerate(off) if i not in (2, 3))
    assert torch.equal(asked.get_state(), state)


def wrong_from_the_third(at, error):
    """A story of two tensors, told a third time (by the device) with an error in one of them."""
    told = []

    def story(generator, visit):
        told.append(1)
        x = torch.randn(100, generator=generator, dtype=torch.float64)
        return {"sound": x, "planted": x + error * (len(told) == 3) * at}

    return story


def test_an_error_beyond_rounding_is_found_and_rounding_is_not():
    row = compared(wrong_from_the_third(1.0, 1e-4), DRY)
    assert (row["tensor"], row["verdict"]) == ("planted", "DIFFERS")
    assert compared(wrong_from_the_third(1.0, 5e-6), DRY)["verdict"] == "alike"


def test_a_chaotic_run_is_judged_by_its_own_chaos():
    def story(generator, visit):
        x = torch.rand(50, generator=generator, dtype=torch.float64)
        for _ in range(12):
            x = 4 * x * (1 - x)
        return {"x": x + (1e-3 if len(told) == 2 else 0), "told": torch.tensor(told.append(1) or 1)}

    told = []
    row = compared(story, DRY)
    assert row["tensor"] == "x" and 1e-4 < row["rounding"] and row["verdict"] == "alike"


def test_what_one_device_alone_makes_is_said():
    told = []

    def story(generator, visit):
        told.append(1)
        return {"a": torch.ones(1)} | ({"b": torch.ones(1)} if len(told) == 3 else {})

    with pytest.raises(AssertionError, match="different things: b"):
        compared(story, DRY)


def test_a_fault_of_one_leaves_the_others(monkeypatch):
    def one(what, visit):
        if what == "ais":
            return "Mixed: devices"
        return {"tensor": "x", "GPU": 1.0, "rounding": 0.0, "verdict": "DIFFERS"}

    notes = Notes(quiet=True)
    monkeypatch.setattr(parity, "row", one)
    monkeypatch.setattr(parity, "registered", lambda: ["ais", "mala"])
    parity.run(replace(DRY, sizes=replace(TINY, pairs=0)), notes)
    faults = [line["fault"] for line in notes.lines if "fault" in line]
    assert faults == ["ais: Mixed: devices", "mala: x differs by 1.0e+00 of its rms"]
    assert notes.lines[-1]["said"] == "0 of 2 are alike; 2 are registered."


def test_a_state_is_walked_to_its_tensors():
    tree = {"a": [torch.ones(1), torch.ones(1, dtype=torch.int64)], "b": (SimpleNamespace(), None)}
    assert [name for name, _ in named(tree)] == ["a.0"]


# ---------------------------------------------------------------- graphs


def test_a_replay_that_does_the_step_is_equal():
    row = graphs.replayed("log_variance, gmm9, 128 x 32", DRY, graphs.stand_in)
    assert row["parameters"] == "equal" and row["charged alike"]


def test_a_replay_that_does_another_step_is_found():
    def twice(step, generator):
        return lambda: (step(), step())

    row = graphs.replayed("log_variance, gmm9, 128 x 32", DRY, twice)
    assert row["parameters"].startswith("up to ") and not row["charged alike"]


def test_a_graph_that_cannot_be_is_a_fault_and_the_next_is_tried(monkeypatch):
    def refuse(label, visit, record):
        raise RuntimeError("operation not permitted when stream is capturing")

    notes = Notes(quiet=True)
    monkeypatch.setattr(graphs, "replayed", refuse)
    graphs.run(DRY, notes)
    faults = [line["fault"] for line in notes.lines if "fault" in line]
    assert len(faults) == TINY.cases and "not permitted when stream" in faults[-1]


# ---------------------------------------------------------------- the others


def test_launches_and_waits_are_counted_from_a_profile():
    def event(key, count, microseconds=0.0):
        return SimpleNamespace(key=key, count=count, self_device_time_total=microseconds)

    seen = [
        event("cudaLaunchKernel", 7),
        event("cuLaunchKernelEx", 2),
        event("cudaStreamSynchronize", 3),
        event("cudaDeviceSynchronize", 1),
        event("cudaMemcpyAsync", 5),
        event("void at::native::vectorized_elementwise_kernel", 7, 1500.0),
    ]
    assert times.asked(seen, ours=1) == {"launches": 9, "waits": 3, "kernels": 1.5}


def test_the_times_of_a_case_on_the_cpu():
    row = times.measured("mala, gmm9", DRY)
    assert set(row) == {"CPU step", "CPU draw"} and all(value > 0 for value in row.values())


def test_the_files_with_tests_for_cuda_are_found_and_their_end_is_read():
    names = {path.name for path in cuda_tests.marked(ROOT / "tests")}
    assert {"test_targets.py", "test_meter.py"} <= names and "test_board.py" not in names
    assert cuda_tests.counts("....\n3 passed, 2 skipped in 4.05s\n") == {"passed": 3, "skipped": 2}
    assert cuda_tests.counts("1 failed, 1 error in 0.05s (0:00:00)") == {"failed": 1, "error": 1}
    assert cuda_tests.counts("usage: pytest\n") == {}


def test_without_msgspec_sections_say_what_to_fetch():
    for section in (cuda_tests, quick):
        notes = Notes(quiet=True)
        section.run(replace(DRY, missing=("msgspec",)), notes)
        assert "`make gpu-wheels`" in notes.lines[0]["said"] and len(notes.lines) == 1


def test_the_leaderboard_is_read_as_it_is_printed():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = quick.leaders(readme)
    assert len(lines) >= 9 and list(lines[0])[:2] == ["sampler", "mean rank"]
    assert quick.leaders("nothing") == []


def test_as_many_cells_fit_on_the_gpu_as_there_are_cores_for(monkeypatch):
    for cores, cells in ((16, 14), (8, 6), (1, 1)):
        monkeypatch.setattr(quick.os, "cpu_count", lambda cores=cores: cores)
        words = quick.words(replace(DRY, device="cuda"))
        share = words[words.index("--gpu-share") + 1]
        assert len(places(("0",), float(share))) == cells


def test_what_a_process_on_the_device_raises_is_told(monkeypatch):
    sent = SimpleNamespace(send=lambda said: told.append(said), recv=lambda: "go")
    told = []
    packing.iterate(sent, "cpu", 0.0)
    assert [kind for kind, _ in told] == ["value", "value"]
    monkeypatch.setattr(packing, "training", lambda *_: 1 / 0)
    packing.iterate(sent, "cpu", 0.0)
    assert told[-1] == ("error", "ZeroDivisionError: division by zero")


def test_the_environment_can_be_kept_as_json():
    assert (
        json.dumps(environment.facts(DRY)) and environment.version("no_such_package") == "missing"
    )


def test_a_run_without_records_is_a_fault(monkeypatch, tmp_path):
    done = subprocess.CompletedProcess([], 2, "", "tiltbench: no suite")
    monkeypatch.setattr(quick, "command", lambda given: done)
    notes = Notes(quiet=True)
    quick.run(replace(DRY, folder=tmp_path), notes)
    assert notes.lines == [{"fault": "the run left no records: tiltbench: no suite"}]
