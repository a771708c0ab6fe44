"""Which registered samplers and targets the suite tries."""

import pytest

from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.registry import TARGETS


def first_of_its_file(name):
    """The others of its file are the same code with other constants."""
    path = SAMPLERS.entries[name].path
    return name == min(other for other, entry in SAMPLERS.entries.items() if entry.path == path)


def one_of_each_file(slow=()):
    """The names of all samplers, as parameters of a test; by `make slow` those that are not the
    first of their file, and those of `slow`."""
    return [
        name
        if first_of_its_file(name) and name not in slow
        else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(SAMPLERS.entries)
    ]


def by_default():
    """The names of all targets that need no parameter: all but those of a reader's own files."""
    return sorted(set(TARGETS.entries) - {"posterior"})
