"""Runs fabricated by samplers of known quality, written as a real run writes them."""

import math
from pathlib import Path

import torch

from tiltbench.metric import Outcome
from tiltbench.plan.spec import build_target, spec
from tiltbench.records.files import write_arrays
from tiltbench.records.record import Record, Status, write_outcome, write_record
from tiltbench.records.store import read_scores, records
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.score.folder import score

N = 200


def source(seed):
    return torch.Generator().manual_seed(seed)


def exact(truth, g):
    """Perfect weights and draws."""
    x = truth.sample(N, g)
    w = truth.log_Z + 0.05 * torch.randn(N, generator=g, dtype=torch.float64) - 0.05**2 / 2
    back = truth.log_Z + 0.05 * torch.randn(N, generator=g, dtype=torch.float64) + 0.05**2 / 2
    gradients = 1 + torch.randn(16, 8, generator=g, dtype=torch.float64)
    probes = {"gradient_gram": gradients @ gradients.T}
    return Outcome(Draws(x, w), back, probes)


def one_mode(truth, g):
    """All draws in one of nine modes: forward weights look perfect, log Z is off by log 9."""
    x = truth.sample(60 * N, g)
    x = x[truth.modes.assign(x) == 0][:N]
    share = float(truth.modes.weight[0])
    w = truth.log_Z + math.log(share) + 0.02 * torch.randn(N, generator=g, dtype=torch.float64)
    back = truth.log_Z + 30 * torch.rand(N, generator=g, dtype=torch.float64)
    return Outcome(Draws(x, w), back, {})


def biased(truth, g):
    """Too wide, with honest weights."""
    x = truth.sample(N, g)
    wide = x + 0.6 * torch.randn(x.shape, generator=g, dtype=torch.float64)
    w = truth.log_Z - 0.5 + torch.randn(N, generator=g, dtype=torch.float64)
    return Outcome(Draws(wide, w), w + 1.0, {})


def chains(truth, g):
    """Ten chains that never move far: no weights, groups."""
    start = truth.sample(10, g).repeat_interleave(N // 10, 0)
    x = start + 0.05 * torch.randn(start.shape, generator=g, dtype=torch.float64)
    return Outcome(Draws(x, None, torch.arange(10).repeat_interleave(N // 10)), None, {})


def zero(truth, g):
    """Every weight is zero; the method has an estimate of its own."""
    x = truth.sample(N, g)
    log_Z = Estimate(truth.log_Z + 0.1, 0.02, 4)
    return Outcome(Draws(x, torch.full((N,), -torch.inf), None, log_Z), None, {})


OUTCOMES = {"exact": exact, "one_mode": one_mode, "biased": biased, "chains": chains, "zero": zero}


TARGET = spec(build_target({"name": "gmm9", "params": {}}))


def write(
    runs: Path,
    sampler: str,
    seed: int,
    status=Status.SPENT,
    budget=1000,
    of=TARGET,
    table=0,
    **cost,
):
    target = build_target(of)
    truth = target.truth()
    grads = 0 if sampler == "biased" else budget
    record = Record(
        {
            "target": of,
            "target_version": target.version,
            "sampler": {"name": sampler, "params": {}},
            "seed": seed,
            "device": "cpu",
            "draws": N,
            "budget": {"train": [budget, budget], "draw": [0, 0], "measure": [0, 0]},
        },
        {"target": of["name"], "sampler": sampler, **({"budget": str(table)} if table else {})},
        status,
        "" if status.finished else "log rho of gmm9 is nan at 3 of 512 points",
        cost={
            **{"train": [budget, grads], "draw": [N, 0], "measure": [9, 9], "seconds": 1.5},
            **cost,
        },
        env={"torch": "2", "device": "cpu", "cores": 2, "threads": 1, "os": "Linux"},
        code={"version": "0", "commit": "abc", "dirty": False, "hash": "1"},
    )
    if status.finished:
        outcome = OUTCOMES[sampler](truth, source(seed))
        write_outcome(runs, record.id, outcome)
        x = torch.stack([outcome.draws.x[:50] * s for s in (0.3, 0.8, 1.0)]).float()
        log_w = torch.full((3, 50), torch.nan)
        if outcome.draws.log_w is not None:
            log_w = torch.stack([outcome.draws.log_w[:50] - s for s in (2.0, 0.5, 0.0)])
        spend = torch.tensor([budget // 10, budget // 2, budget])
        write_arrays(runs / f"{record.id}.curve.npz", {"spend": spend, "x": x, "log_w": log_w})
    write_record(runs, record)
    return record


def scores_of(folder, sampler):
    return [
        read_scores(folder / "runs", record.id)["scores"]
        for record in records(folder / "runs")
        if record.labels["sampler"] == sampler and record.status.finished
    ]


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


def spoil(path):
    """The file's directory is whole, what it holds is not."""
    data = bytearray(path.read_bytes())
    data[100:300] = bytes(200)
    path.write_bytes(data)


PLUGIN = """
from dataclasses import dataclass
import torch
from tiltbench.targets.target import Density, Truth

@dataclass(frozen=True)
class Shifted(Density):
    name = "shifted"
    version = 1
    dim = 2
    scale = 1.0

    def log_rho(self, x):
        return -0.5 * x.square().sum(-1)

    def truth(self):
        def sample(n, g):
            return SIZE * torch.randn(n, 2, generator=g, dtype=torch.float64)
        return Truth("made up", log_Z=1.8378770664093453, sample=sample)
"""


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def only(truth, g):
    return Outcome(Draws(truth.sample(N, g)), None, {})


def rank_rows(table):
    """{sampler: {column: text}} of the first table of ranks."""
    return cost_rows(table, "rank |")


def cost_rows(table, head="draws |"):
    """{sampler: {column: text}} of the first cost table."""
    lines = table[table.index(f"| sampler | {head}") :].splitlines()
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines if line.startswith("|")]
    names = cells[0]
    rows = {}
    for row in cells[2:]:
        if len(row) == len(cells[0]):
            rows.setdefault(row[0].strip("| `✗"), dict(zip(names, row, strict=False)))
    return rows


def fabricated(folder):
    """Five seeds of every sampler above, five that diverged, one that does not apply; scored."""
    for sampler in OUTCOMES:
        for seed in range(5):
            write(folder / "runs", sampler, seed)
    for seed in range(5):
        write(folder / "runs", "broken", seed, Status.DIVERGED)
    write(folder / "runs", "refused", 0, Status.UNSUPPORTED)
    score(folder, jobs=1)
    return folder
