"""A certified reference as it lies on disk: stored draws and what long chains found."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

DATA = Path(__file__).parents[1] / "data"  # of the package


def without_replacement(
    stored: Float[Tensor, "m d"], n: int, generator: Generator, of: str
) -> Float[Tensor, "n d"]:
    """Raises ValueError where n > m."""
    if n > len(stored):
        raise ValueError(
            f"the reference of {of} holds {len(stored)} draws, not {n}: ask for no more than that"
        )
    device = generator.device
    chosen = torch.randperm(len(stored), generator=generator, device=device)[:n]
    return stored.to(device)[chosen]


class Stored(NamedTuple):
    """A reference as it lies on disk."""

    x: Float[Tensor, "n d"]  # float32
    facts: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """The fields of the target it is of."""
        return dict(self.facts["target"].get("params", {}))


def checksum(rows: bytes, facts: Mapping[str, Any]) -> str:
    """SHA-256, in hex digits, over the npz file and over all that the JSON beside it says, as text
    with sorted keys and without `sha256` itself: whoever edits either is found out."""
    text = json.dumps({key: facts[key] for key in facts if key != "sha256"}, sort_keys=True)
    return hashlib.sha256(hashlib.sha256(rows).digest() + text.encode()).hexdigest()


def read(home: Path, name: str) -> Stored | None:
    data, about = (home / f"{name}_reference.{kind}" for kind in ("npz", "json"))
    if not (data.exists() and about.exists()):
        return None
    return _loaded(data, about, (data.stat().st_mtime_ns, about.stat().st_mtime_ns))


@lru_cache(maxsize=16)
def _loaded(data: Path, about: Path, written: tuple[int, ...] = ()) -> Stored:
    """`written`, when they were, makes files that were replaced be read anew."""
    remedy = "restore both files, or delete them and run `tiltbench reference` again"
    rows = data.read_bytes()
    try:
        facts = json.loads(about.read_text(encoding="utf-8"))
        stated, certified = facts["sha256"], facts["certified"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{about.name} is damaged ({error}): {remedy}") from error
    if checksum(rows, facts) != stated:
        raise ValueError(f"{data.name} and {about.name} are not as they were written: {remedy}")
    if certified is not True:
        raise ValueError(f"{about.name} is of a reference that failed its tests: {remedy}")
    with np.load(io.BytesIO(rows), allow_pickle=False) as arrays:
        return Stored(torch.from_numpy(arrays["x"]), facts)
