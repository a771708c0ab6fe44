"""A state is a tree of dataclasses, tuples, mappings and sequences: walking and copying it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn


def copied(state: Any) -> Any:
    """A deep copy; tensors inside a graph, which deepcopy refuses, are copied without it."""
    memo: dict[int, Any] = {}
    for tensor in _leaves(state, Tensor):
        if not tensor.is_leaf:
            memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(state, memo)


def modules(state: Any) -> list[nn.Module]:
    return list(_leaves(state, nn.Module))


def _leaves(tree: Any, kind: type) -> Iterator[Any]:
    """Instances of `kind` in a tree of dataclasses, mappings and sequences."""
    if isinstance(tree, kind):
        yield tree
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for item in dataclasses.fields(tree):
            yield from _leaves(getattr(tree, item.name), kind)
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _leaves(value, kind)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _leaves(value, kind)
