"""Records, scores and draws made up on the spot: what a report is asked to show."""

import torch

from tiltbench.metric import Outcome
from tiltbench.plan.spec import build_sampler, build_target, spec
from tiltbench.records.files import write_json
from tiltbench.records.record import Record, Status, write_outcome, write_record
from tiltbench.samplers.sampler import Draws

FLOOR = {"mean": 0.01, "sd": 0.005, "n": 40, "unfit": False}
GMM9 = spec(build_target({"name": "gmm9", "params": {}}))
MALA = spec(build_sampler({"name": "mala", "params": {}}))


def put(
    folder,
    sampler,
    seed,
    scores,
    *,
    status=Status.SPENT,
    target="gmm9",
    reason="",
    of=GMM9,
    made_by=MALA,
    commit="a" * 40,
    version=1,
    draws=40,
    limits=None,
    **cost,
):
    """One run of `folder`: its record, 40 draws with weights and, where it finished, `scores`: a
    number, (number, floor), or a sentence in its place."""
    runs, problem = folder / "runs", build_target(of)
    record = Record(
        {
            "target": of,
            "target_version": version,
            "sampler": {**made_by, "params": {**made_by["params"], "label": sampler}},
            "seed": seed,
            "device": "cpu",
            "draws": draws,
            "budget": {
                "train": [1000, 1000],
                "draw": [8000, 8000],
                "measure": [9, 9],
                **(limits or {}),
            },
        },
        {"target": target, "sampler": sampler},
        status,
        reason,
        traceback="" if status.finished else f"Traceback\n{reason}",
        cost={"train": [1000, 500], "draw": [40, 0], "seconds": 2.0, "train_seconds": 1.0, **cost},
        env={"torch": "2", "numpy": "2", "device": "cpu", "cores": 2, "threads": 1, "os": "Linux"},
        code={"version": "0", "commit": commit, "dirty": False, "hash": "1", "plugins": {}},
    )
    if status.finished:
        g = torch.Generator().manual_seed(seed)
        x = 2 * torch.randn(40, problem.dim, generator=g, dtype=torch.float64)
        log_w = torch.randn(40, generator=g, dtype=torch.float64)
        write_outcome(runs, record.id, Outcome(Draws(x, log_w), log_w + 1, {}))
        curve = {"spend": [100, 1000], "seconds": [0.1, 1.0], "n": 40, "metric": "energy_distance",
                 "log_Z_err": [1.0, 0.5], "log_Z_se": [0.1, 0.1], "distance": [2.0, 0.7],
                 "floor": FLOOR}  # fmt: skip
        result = {"run": record.id, "code": "c", "draws": 40, "curve": curve}
        result["scores"] = {name: _score(value) for name, value in scores.items()}
        write_json(runs / f"{record.id}.scores.json", result)
    write_record(runs, record)
    return record


def _score(value):
    if isinstance(value, str):
        return {"value": None, "reason": value}
    value, floor = value if isinstance(value, tuple) else (value, None)
    return {"value": value, "se": 0.01, "n": 40, **({"floor": floor} if floor else {})}
