"""What a record says of the machine; a GPU is pretended."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tiltbench.api import cell
from tiltbench.records import provenance
from tiltbench.records.provenance import environment, forget_peak, peak_memory
from tiltbench.records.record import Record, Status
from tiltbench.report.tables.provenance import facts
from tiltbench.run.phases import run_cell
from tiltbench.targets import precision
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.settings import standard

OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (dvs)\n"
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15 UTC 2026\n"


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU as far as an environment asks for one."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(provenance, "DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text(OPEN)
    return tmp_path / "version"


def test_a_gpu_is_described(gpu):
    with standard():
        found = environment("cuda")
    said = {"cuda": "12.8", "cudnn": "91002", "driver": "570.124.06", "capability": "9.0"}
    assert said.items() <= found.items()
    assert found["device_name"] == "NVIDIA H200" and found["tf32"] is False
    with standard():
        precision.write(precision.TF32)
        rounded = environment("cuda")
    assert rounded == {**found, "tf32": True}
    (machine,) = (v for k, v in facts([Record({}, {}, Status.DONE, env=rounded)]) if k == "machine")
    assert machine.endswith("CUDA 12.8, cuDNN 91002, driver 570.124.06, TF32 allowed")
    gpu.write_text(CLOSED)
    assert environment("cuda")["driver"] == "535.104.05"


def test_a_cpu_is_described_as_before():
    assert not {"cuda", "tf32", "driver"} & set(environment("cpu"))


def test_a_gpu_that_answers_no_more_is_no_obstacle_to_a_record(gpu, monkeypatch):
    def broken():
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "get_device_name", broken)
    monkeypatch.setattr(torch.cuda, "get_device_capability", broken)
    gpu.unlink()
    found = environment("cuda")
    assert found["device_name"] is found["capability"] is found["driver"] is None


def test_the_peak_of_one_cell_is_not_that_of_another(monkeypatch, tmp_path):
    """An allocator that is pretended: cells of 300 and 100 MB in one process."""
    held = {"peak": 0}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held["peak"] * 2**20)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: held.update(peak=0))
    peaks = []
    for megabytes in (300, 100):
        forget_peak("cuda")
        held["peak"] = max(held["peak"], megabytes)
        peaks.append(peak_memory("cuda"))
    assert peaks == [300, 100]
    forgotten = []
    monkeypatch.setattr("tiltbench.run.phases.forget_peak", forgotten.append)
    run_cell(cell("gaussian", "mala", budget=50, draws=5), tmp_path, code={})
    assert forgotten == ["cpu"]  # of every cell, before it starts


def test_nor_is_it_on_a_cpu_where_the_system_can_forget():
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError as why:
        pytest.skip(f"this system remembers the peak of a process: {why}")
    before = peak_memory("cpu")
    held = bytearray(200 * 2**20)
    assert peak_memory("cpu") > before + 150
    del held
    forget_peak("cpu")
    assert peak_memory("cpu") < before + 150


class Asks(Gaussian):
    """Notes at every point whether TF32 may round."""

    name = "asks"
    said: list[bool] = []

    def log_rho(self, x):
        self.said.append(precision.allowed())
        return super().log_rho(x)


@pytest.mark.parametrize("rounded", [False, True])
def test_a_cell_is_rounded_where_it_says_so_and_only_then(rounded, tmp_path):
    chosen = replace(cell(Asks, "mala", budget=50, draws=5), tf32=rounded)
    before = precision.read()
    Asks.said.clear()
    record = run_cell(chosen, tmp_path, code={})
    assert record.status.finished and set(Asks.said) == {rounded}
    assert precision.read() == before
