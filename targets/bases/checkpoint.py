"""Frozen networks: `data/NAME.safetensors` beside `data/NAME.json`, provenance and SHA-256."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

import torch
from safetensors.torch import load
from torch import Tensor

from tiltbench.targets.target import DATA


class Checkpoint(NamedTuple):
    tensors: dict[str, Tensor]  # float32
    note: dict[str, Any]  # what the JSON says


def checkpoint(name: str) -> Checkpoint:
    """Raises ValueError where the file is not the one its provenance describes."""
    raw = (DATA / f"{name}.safetensors").read_bytes()
    note = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    if hashlib.sha256(raw).hexdigest() != note["sha256"]:
        raise ValueError(
            f"data/{name}.safetensors is not the file its provenance describes: restore it"
        )
    return Checkpoint({key: v.to(torch.float32) for key, v in load(raw).items()}, note)
