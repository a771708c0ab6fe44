"""The command behind a result, as it would be typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def command(arguments: Sequence[str], *extra: str) -> str:
    return shlex.join(["tiltbench", *arguments, *extra])
