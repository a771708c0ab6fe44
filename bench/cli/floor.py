"""`tiltbench floor`: what exact draws score: measure the shipped noise floors again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tiltbench.cli.arguments import sizes
from tiltbench.cli.options import Names, names, option
from tiltbench.plan.errors import BadSpec, Refused
from tiltbench.plan.spec import build_target, parse, spec
from tiltbench.targets.registry import TARGETS


def floor(
    named: Annotated[tuple[str, ...], option("targets; default: every one")] = (),
    /,
    *,
    targets: Annotated[Names, names("the same, as `run` takes them")] = (),
    draws: Annotated[
        tuple[int, ...],
        option("sample sizes (default 250,500,600,1000,2000)", "N,M", sizes),
    ] = (250, 500, 600, 1000, 2000),
) -> int:
    """Measure the noise floors that ship again.

    The shipped file is written when all are measured.  What it has of other targets and sample
    sizes stays as it is.
    """
    called = [*named, *targets] or _complete()
    if min(draws) < 2:
        raise Refused("--draws 1 has no spread to measure; write sizes from 2 on, such as 500,1000")
    for name in (parse(text)["name"] for text in called):
        TARGETS.find(name)
        if name not in TARGETS.entries:
            raise Refused(
                f"the floors of {name} do not ship: those of a plug-in are measured when its "
                "runs are scored, and kept with the results"
            )
    from tiltbench.score.floor import SHIPPED, floors_key, regenerate, write_floors

    def key(row: Mapping[str, Any]) -> str:
        return floors_key(row["target"], row["version"], row["n"])

    old = json.loads(SHIPPED.read_text(encoding="utf-8"))["floors"] if SHIPPED.exists() else []
    specs = [spec(build_target(parse(text))) for text in called]
    with tempfile.TemporaryDirectory() as folder:
        measured = regenerate(specs, draws, Path(folder) / SHIPPED.name)
    new = {key(row) for row in measured}
    write_floors(SHIPPED, [*(row for row in old if key(row) not in new), *measured])
    print(f"{len(measured)} floors measured; {SHIPPED}")
    return 0


def _complete() -> list[str]:
    """The targets that need no parameter: all but those of a reader's own files."""
    names = []
    for name in sorted(TARGETS.entries):
        try:
            build_target(parse(name))
        except BadSpec:
            continue
        names.append(name)
    return names
