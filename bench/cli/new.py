"""`tiltbench new`: write a target, loss, sampler or metric that works, with its test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tiltbench.cli.options import option
from tiltbench.records.command import command


def new(
    kind: Annotated[Literal["target", "loss", "sampler", "metric"], option("what to write")],
    name: Annotated[str, option("small letters, digits and _")],
    /,
    *,
    out: Annotated[str, option("default: this folder", "DIR")] = ".",
) -> int:
    """Write NAME.py and test_NAME.py: they pass as they are; change them step by step."""
    from tiltbench.cli.skeletons import write_skeleton

    for path in write_skeleton(kind, name, Path(out)):
        print(path)
    print(f"next: {command(['check', str(Path(out) / f'{name}.py')])}")
    return 0
