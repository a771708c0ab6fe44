"""`tiltbench list`: what there is, one line each, or all that is known of a name."""

from __future__ import annotations

import shutil
from typing import Annotated

from tiltbench.cli.help import columns
from tiltbench.cli.kinds import KINDS, registries
from tiltbench.cli.options import Plugins, option, plugged


def list_(
    what: Annotated[
        str, option(f"{', '.join(KINDS)}; or a name, name[key=value] or path/to/file.py")
    ],
    /,
    *,
    plugin: Plugins = (),
) -> int:
    """Say what there is of a kind, or all that is known of a name.

    Of a target, sampler or part of one: what its docstring says, its parameters with their
    defaults and, of a target, dimension and truth.  Of a suite: its targets, samplers, budget and
    seeds.
    """
    width = max(shutil.get_terminal_size((100, 24)).columns, 40)
    with plugged(plugin):
        if what == "suites":
            from tiltbench.plan.toml import suite_names

            print(columns(sorted(suite_names().items()), width, indent=0))
        elif what in KINDS:
            registry = registries()[what]()
            rows = {entry.name: entry.summary for entry in registry.entries.values()}
            if what == "targets":
                dims = {entry.name: entry.dim for entry in registry.entries.values()}
                wide = max(map(len, dims.values()), default=0)
                rows = {
                    name: f"{dims[name] or '-':>{wide}}  {shown}" for name, shown in rows.items()
                }
                left = max(map(len, rows), default=0)
                print(f"{'':{left}}  {'dim':>{wide}}")
                print(columns(sorted(rows.items()), width, indent=0, hang=wide + 2))
            else:
                print(columns(sorted(rows.items()), width, indent=0))
        else:
            from tiltbench.cli.describe import describe

            print(describe(what, width))
    return 0
