"""Files that are written whole or not at all, and read without running anything in them."""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to, then fsync and rename: a reader sees the old file
    or the new one.  It has the permissions that the umask gives, whoever writes it (safetensors
    would keep it to its owner)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        usual = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        if stat.S_IMODE(temporary.stat().st_mode) != usual:
            temporary.chmod(usual)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Strict JSON: NaN and infinities are written as null."""
    write_bytes(path, (json.dumps(strict(value), indent=1, allow_nan=False) + "\n").encode())


def strict(value: Any) -> Any:
    """The value as it will be read back from strict JSON."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    return value


def write_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    buffer = io.BytesIO()
    plain: dict[str, Any] = {k: v.detach().cpu().numpy() for k, v in arrays.items()}
    np.savez_compressed(buffer, **plain)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The tensors of an .npz file, on the CPU; nothing in the file is executed."""
    with np.load(path, allow_pickle=False) as data:
        return {key: torch.as_tensor(data[key], device="cpu") for key in data.files}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """As safetensors; clones, because tensors that share memory are refused."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({key: value.clone() for key, value in tensors.items()}, temporary)


def read_json(path: Path) -> Any:
    """Raises ValueError, OSError included, for what is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError) as error:  # RecursionError: brackets without end
        raise ValueError(str(error)) from error
