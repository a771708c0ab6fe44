"""`tiltbench floor`: measure the shipped noise floors again."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltbench.cli.words import listed, whole
from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import build_target, parse, spec
from tiltbench.targets.registry import TARGETS


def floor(options: Namespace, arguments: Sequence[str]) -> int:
    """Other targets and sizes of the shipped file stay as they are; it is written once."""
    names = [*options.names, *listed(options.targets, "--targets")] or sorted(TARGETS.entries)
    sizes = [whole(n, "--draws") for n in options.draws.split(",")]
    if min(sizes) < 2:
        raise Refused("--draws 1 has no spread to measure; write sizes from 2 on, such as 500,1000")
    for name in names:
        called = parse(name)["name"]
        TARGETS.find(called)
        if called not in TARGETS.entries:
            raise Refused(
                f"the floors of {called} do not ship: those of a plug-in are measured when its "
                "runs are scored, and kept with the results"
            )
    from tiltbench.score.floor import SHIPPED, page, regenerate, write_book

    def key(row: Mapping[str, Any]) -> str:
        return page(row["target"], row["version"], row["n"])

    old = json.loads(SHIPPED.read_text(encoding="utf-8"))["floors"] if SHIPPED.exists() else []
    targets = [spec(build_target(parse(name))) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        made = regenerate(targets, sizes, Path(folder) / SHIPPED.name)
    new = {key(row) for row in made}
    write_book(SHIPPED, [*(row for row in old if key(row) not in new), *made])
    print(f"{len(made)} floors measured; {SHIPPED}")
    return 0
