"""`tiltbench study`: a question, answered by a table and pictures."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tiltbench.cli.words import RESULTS, chosen_device
from tiltbench.plan.cell import Limits
from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import STUDIES


def study(options: Namespace, arguments: Sequence[str]) -> int:
    every = sorted(STUDIES.entries) if "all" in options.names else []
    names = list(dict.fromkeys([*every, *(name for name in options.names if name != "all")]))
    for name in names:
        STUDIES.find(name)
    from tiltbench.engine.local import jobs_for
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
