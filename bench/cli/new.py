"""`tiltbench new`: a plug-in that works, with its test, to start from."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tiltbench.records.command import command


def new(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.cli.skeletons import write_skeleton

    for path in write_skeleton(options.kind, options.name, Path(options.out)):
        print(path)
    print(f"next: {command(['check', str(Path(options.out) / f'{options.name}.py')])}")
    return 0
