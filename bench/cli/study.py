"""`tiltbench study`: answer a question with a table and pictures; see `tiltbench list studies`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tiltbench.cli.arguments import RESULTS, automatic, chosen_device
from tiltbench.cli.options import Device, Tf32, option
from tiltbench.plan.cell import Limits
from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import STUDIES


def study(
    names: Annotated[tuple[str, ...], option("names of studies, or all")],
    /,
    *,
    device: Device = "auto",
    tf32: Tf32 = False,
    out: Annotated[
        str | None, option("default results/studies; NAME is added to it", "DIR")
    ] = None,
    jobs: Annotated[
        int | None, option("studies at a time (default auto: one a core)", "N", automatic)
    ] = None,
) -> int:
    """Answer a question with a table and pictures; see `tiltbench list studies`."""
    every = sorted(STUDIES.entries) if "all" in names else []
    asked = list(dict.fromkeys([*every, *(name for name in names if name != "all")]))
    for name in asked:
        STUDIES.find(name)
    from tiltbench.engine.local import jobs_for
    from tiltbench.study import conduct_all

    there = chosen_device(device)
    if tf32 and there != "cuda":
        raise Refused("--tf32 is how a GPU may multiply; add --device cuda, or leave it out")
    folder = Path(out) if out else RESULTS / "studies"
    count = jobs_for(jobs, there, Limits())
    try:
        for page in conduct_all(asked, folder, there, count, tf32):
            print(page, flush=True)
    except FileNotFoundError as error:
        if error.filename:
            raise
        raise Refused(str(error)) from error  # a study of results that are not there
    return 0
