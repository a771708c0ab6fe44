"""Trains and stores the networks of the digits base, and draws of it (`tiltbench base digits`).

Deterministic: one thread, generators from fixed seeds, weights stored as float16, so that the same
command on the same machine writes the same bytes.
"""

from __future__ import annotations

import copy
import hashlib
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Generator, Tensor, nn

from tiltbench.records.files import write_bytes, write_json
from tiltbench.samplers.networks.timed import initialise
from tiltbench.targets.bases.checkpoint import checkpoint
from tiltbench.targets.bases.pretrained import doubts, levels
from tiltbench.targets.bases.process import Uncontrolled, simulate
from tiltbench.targets.digits.digits import DIM, FLOW, Classifier, Field, Kind, digits, split
from tiltbench.targets.digits.pool import AT_ONCE, COUNT, SEED, STORED
from tiltbench.targets.settings import standard

WIDTH, BLOCKS, BATCH = 160, 3, 128
KEEP = 0.999  # of the running mean of the weights, a step
FIELD_STEPS, CLASSIFIER_STEPS = 8_000, 2_000
TIMES = 1_000  # at which the fields are trained


def train(
    network: nn.Module, loss: Callable[[], Tensor], steps: int, lr: float, decay: float
) -> nn.Module:
    """AdamW with a cosine to zero; the exponential mean of the weights is returned, as float16
    holds it."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=decay, fused=True)
    mean = copy.deepcopy(network).requires_grad_(False)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps)) * min(1, step / 200)
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()
        keep = min(KEEP, step / (step + 10))
        for old, new in zip(mean.parameters(), network.parameters(), strict=True):
            old.lerp_(new.detach(), 1 - keep)
    for p in mean.parameters():
        p.copy_(p.half())
    return mean


@standard()
def train_field(kind: Kind, steps: int = FIELD_STEPS) -> Field:
    """Flow matching E |v - (alpha' X_1 + beta' xi)|^2, or DDPM's E |eps - xi|^2, t uniform on a
    grid."""
    g = Generator().manual_seed(0)
    data = split(torch.empty(0))[0].x
    network = Field(WIDTH, BLOCKS)
    initialise(network, g)
    nn.init.zeros_(network.out.weight)
    nn.init.zeros_(network.out.bias)
    flows = kind is FLOW
    table = torch.tensor([levels(kind.schedule, i / TIMES) for i in range(TIMES)])

    def loss() -> Tensor:
        x1 = data[torch.randint(len(data), (BATCH,), generator=g)]
        xi, i = torch.randn(x1.shape, generator=g), torch.randint(TIMES, (BATCH,), generator=g)
        signal, noise, first, second = table[i].T[..., None]
        goal = first * x1 + second * xi if flows else xi
        return (network(signal * x1 + noise * xi, i / TIMES) - goal).square().mean()

    trained = train(network, loss, steps, 2e-3, 0.0)
    assert isinstance(trained, Field)
    return trained


@standard()
def train_classifier(steps: int = CLASSIFIER_STEPS) -> Classifier:
    """Cross entropy under Gaussian noise of up to 0.3, so that it has an opinion near the images
    too, which a reward must have."""
    g = Generator().manual_seed(0)
    data = split(torch.empty(0))[0]
    network = Classifier()
    initialise(network, g)

    def loss() -> Tensor:
        chosen = torch.randint(len(data.x), (BATCH,), generator=g)
        size = 0.3 * torch.rand(BATCH, 1, generator=g)
        x = data.x[chosen] + size * torch.randn(BATCH, data.x.shape[1], generator=g)
        return nn.functional.cross_entropy(network(x), data.digit[chosen])

    trained = train(network, loss, steps, 3e-3, 1e-3)
    assert isinstance(trained, Classifier)
    return trained


def doubt_of(network: Field, kind: Kind) -> list[tuple[float, float]]:
    """The uncertainty table of a base, on the images held out."""
    x = split(torch.empty(0))[1].x
    measured = doubts(network, kind.reading, kind.schedule, x, Generator().manual_seed(1))
    return [(t, round(tau, 4)) for t, tau in measured]


def store(network: nn.Module, folder: Path, name: str, note: dict[str, Any]) -> Path:
    """NAME.safetensors, float16, and NAME.json with its checksum; the path of the former."""
    raw = save({key: v.half().contiguous() for key, v in network.state_dict().items()})
    write_bytes(folder / f"{name}.safetensors", raw)
    write_json(folder / f"{name}.json", {**note, "sha256": hashlib.sha256(raw).hexdigest()})
    return folder / f"{name}.safetensors"


@torch.no_grad()
def store_draws(folder: Path, note: dict[str, Any]) -> Path:
    """COUNT draws of the flow that ships, as float16, with their checksum and the network's."""
    base, g = digits(), Generator().manual_seed(SEED)
    parts = [
        simulate(base, Uncontrolled(), (AT_ONCE, DIM), g).x[-1].half()
        for _ in range(COUNT // AT_ONCE)
    ]
    buffer = io.BytesIO()
    np.save(buffer, torch.cat(parts).numpy())
    raw = buffer.getvalue()
    checksums = {
        "of": checkpoint(FLOW.stored).note["sha256"],
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    write_bytes(folder / f"{STORED}.npy", raw)
    write_json(folder / f"{STORED}.json", {**note, **checksums})
    return folder / f"{STORED}.npy"
