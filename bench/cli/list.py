"""`tiltbench list`: what there is, one line each."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from tiltbench.plan.spec import METRICS, STUDIES
from tiltbench.plan.toml import suite_names
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.registry import TARGETS


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
