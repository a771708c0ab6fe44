"""What a registered thing says of itself."""

from __future__ import annotations

import importlib
import inspect

from tiltbench.targets.registry import Registry


def docstring(registry: Registry, name: str) -> str:
    """That of its file, and of a class its own; "" of a name that is not there, or is a file's."""
    entry = registry.entries.get(name)
    if entry is None:
        return ""
    thing = entry.load()
    whole = inspect.getdoc(importlib.import_module(entry.module)) if entry.module else ""
    own = inspect.getdoc(thing) if isinstance(thing, type) else ""
    return "\n\n".join(filter(None, (whole, own))) or entry.summary
