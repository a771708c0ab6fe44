"""`tiltbench publish`: what belongs in git, to results/published."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Sequence

from tiltbench.cli.folders import filled
from tiltbench.cli.words import RESULTS
from tiltbench.plan.errors import Refused


def publish(options: Namespace, arguments: Sequence[str]) -> int:
    """Copies into a new folder first, so that what is published is never half old, half new.

    Raises Refused where there is nothing to publish, before anything is touched."""
    source = filled(options.results)
    if not (source / "table.md").is_file():
        raise Refused(f"{source} has no table.md; `tiltbench report {options.results}` writes it")
    from tiltbench.records.store import records

    goal = RESULTS / "published" / source.resolve().name
    fresh = goal.with_name(f".{goal.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    kept = ["*.md", "*.csv", "*.tex", "report.html", "suite.json", "plots/*.png"]
    files = [path for pattern in kept for path in source.glob(pattern) if path.is_file()]
    for record in records(source / "runs"):
        files += sorted((source / "runs").glob(f"{record.id}*.json"))
    for path in files:
        to = fresh / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    shutil.rmtree(goal, ignore_errors=True)
    fresh.rename(goal)
    print(f"{len(files)} files in {goal}")
    return 0
