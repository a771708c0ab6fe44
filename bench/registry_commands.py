"""The commands about what is registered: list, floor, check, study."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltbench.cell import Limits
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.spec import METRICS, STUDIES, build_target, parse, spec
from tiltbench.suite import suite_names
from tiltbench.targets.registry import TARGETS
from tiltbench.words import RESULTS, Refused, chosen_device, listed, whole


def show_list(options: Namespace, arguments: Sequence[str]) -> int:
    if options.kind == "suites":
        lines = suite_names()
    else:
        registry = {
            "targets": TARGETS,
            "samplers": SAMPLERS,
            "metrics": METRICS,
            "studies": STUDIES,
        }[options.kind]
        lines = {name: entry.summary for name, entry in registry.entries.items()}
    width = max((len(name) for name in lines), default=0)
    for name, summary in sorted(lines.items()):
        print(f"{name:{width}}  {summary}")
    return 0


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
    from tiltbench.floor import SHIPPED, page, regenerate, write_book

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


def check(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.check import check as findings

    bad = 0
    for name in options.names:
        for finding in findings(name):
            bad += not finding.ok
            mark, remedy = ("ok ", "") if finding.ok else ("BAD", f"  -> {finding.remedy}")
            print(f"{mark} {name}: {finding.what}{remedy}")
    return 1 if bad else 0


def study(options: Namespace, arguments: Sequence[str]) -> int:
    every = sorted(STUDIES.entries) if "all" in options.names else []
    names = list(dict.fromkeys([*every, *(name for name in options.names if name != "all")]))
    for name in names:
        STUDIES.find(name)
    from tiltbench.local import jobs_for
    from tiltbench.study import conduct_all

    device = chosen_device(options.device)
    if options.jobs != "auto" and not (options.jobs.isdecimal() and int(options.jobs)):
        raise Refused(f"--jobs is {options.jobs!r}; write a number of studies at a time, 1 or more")
    jobs = jobs_for(options.jobs, device, Limits())
    out = Path(options.out) if options.out else RESULTS / "studies"
    try:
        for page in conduct_all(names, out, device, jobs):
            print(page, flush=True)
    except FileNotFoundError as error:
        if error.filename:
            raise
        raise Refused(str(error)) from error  # a study of results that are not there
    return 0


COMMANDS = {"list": show_list, "floor": floor, "check": check, "study": study}
