"""What `make gpu` does on a GPU, as far as it can be pretended: parity, times, batches, and that
nothing is read while a training step is recorded as a graph."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.gpu import batch, graphs, parity, times
from tests.gpu.cases import CASES, training
from tests.gpu.section import TINY, Visit

VISIT = Visit("cuda", replace(TINY, steps=1, points=4, replays=1), Path())


@pytest.mark.parametrize("what", ["best_of_n", "pis", "gmm9"])
def test_devices_are_alike_on_the_same_noise(gpu, what):
    found = parity.row(what, VISIT)
    assert found["verdict"] == "alike" and "with TF32" in found


def test_a_constant_that_is_another_on_the_gpu_is_found(gpu):
    def story(generator, visit):
        x = torch.randn(9, generator=generator, device=generator.device)
        return {"x": x * (1.001 if x.is_cuda else 1.0)}

    found = parity.compared(story, VISIT)
    assert found["verdict"] == "DIFFERS" and found["GPU"] == pytest.approx(1e-3, rel=0.01)


def test_a_case_is_timed_and_enlarged_there(gpu, monkeypatch):
    monkeypatch.setattr(times, "profiled", lambda label: {"launches": 0})  # CUDA's own profiler
    monkeypatch.setattr(times, "small", lambda visit: visit.sizes.paths)
    monkeypatch.setattr(times, "DRAWN", 8)
    row = times.measured("log_variance, gmm9, 128 x 32", VISIT)
    assert row["GPU step"] > 0 and row["peak MB"] == 0
    _, row = batch.enlarged("gmm9", "log_variance[reference=Brownian[steps=3]]", 8, VISIT)
    assert row["paths"] == 8


@pytest.mark.parametrize("label", graphs.MAIN)
def test_nothing_is_read_while_a_step_is_recorded(gpu, monkeypatch, label):
    run = training(*CASES[label], "cuda", paths=8)
    for _ in range(graphs.WARM):
        run.step()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    gpu.forget()
    graphs.unread(run)
    assert not gpu.syncs
