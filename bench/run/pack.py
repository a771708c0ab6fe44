"""A state as JSON and plain tensors, and back, without a class being looked up by its name.

Plain data (None, numbers, strings, tensors, lists, tuples, dictionaries) is written as it is.
Dataclasses, NamedTuples, modules, optimisers and generators are *filled in*: the reader brings a
state that `Sampler.init` has just returned, with one of the same class at the same place, and the
file holds fields, `state_dict`s and tensors only.  So a file can choose numbers, never code.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

Node = Any  # what `json` writes
# A tensor of another class would lose what it adds.
PLAIN: tuple[type, ...] = (Tensor, nn.Parameter)
# What torch's fused kernels read without a look at its size.
MOMENTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "sum"}


class Unsaved(Exception):
    """A state that a file cannot hold; one sentence says what in it."""


class Packer:
    """`node` is the JSON of a tree; `tensors` are those it refers to, by number.

    `places` are where it has something to be filled in, and of which class."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.places: dict[str, type] = {}
        self.memories: set[int] = set()

    def node(self, x: Any, place: str = "state") -> Node:
        """Raises Unsaved.  A tensor inside a graph is written without it."""
        if x is None or type(x) in (bool, int, float, str):
            return x
        if type(x) in PLAIN:
            return {"tensor": self._tensor(x)}
        if type(x) is list:
            return [self.node(v, f"{place}[{i}]") for i, v in enumerate(x)]
        if type(x) is tuple:
            return {"tuple": [self.node(v, f"{place}[{i}]") for i, v in enumerate(x)]}
        if isinstance(x, dict) and all(type(key) in (str, int) for key in x):
            return {"dict": [[key, self.node(v, f"{place}[{key!r}]")] for key, v in x.items()]}
        self.places[place] = type(x)
        if (fields := _fields(x)) is not None:
            return {"fields": [self.node(v, f"{place}.{name}") for name, v in fields.items()]}
        if isinstance(x, nn.Module):
            return {"module": [self.node(x.state_dict(), place), _flags(x)]}
        if isinstance(x, Optimizer):
            return {"optimizer": self.node(x.state_dict(), place)}
        if isinstance(x, Generator):
            return {"generator": self.node(x.get_state(), place)}
        raise Unsaved(f"{place} is a {type(x).__name__}")

    def _tensor(self, x: Tensor) -> list[Any]:
        """Name, order of the dimensions in memory (sums depend on it in the last bit), whether it
        is on the CPU, whether it is a leaf that requires a gradient."""
        if x.layout is not torch.strided or x.is_quantized or x.is_complex():
            raise Unsaved(f"a tensor of layout {x.layout} and type {x.dtype}")
        order, name = list(x.dim_order()), str(len(self.tensors))
        plain = x.detach().permute(order).contiguous().cpu()
        memory = plain.untyped_storage().data_ptr()
        if memory in self.memories:  # safetensors refuses tensors that share any
            plain = plain.clone()
        self.memories.add(memory)
        self.tensors[name] = plain
        return [name, order, x.device.type == "cpu", x.is_leaf and x.requires_grad]


class Unpacker:
    """`fill` turns a node back into a tree.  Raises ValueError, KeyError, TypeError, AttributeError
    or RuntimeError where the node does not fit; what was filled in by then is of no more use."""

    def __init__(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.tensors, self.device = tensors, device

    def fill(self, like: Any, node: Node) -> Any:
        """`like` is what `init` has at this place: filled in where the node wants that."""
        if node is None:
            return None
        filled = isinstance(like, nn.Module | Optimizer | Generator) or _fields(like) is not None
        if not filled and type(node) in (bool, int, float, str):
            return node
        if not filled and type(node) is list:
            return self._items(like, node)
        ((kind, inner),) = node.items()
        match kind:
            case "tensor" if not filled:
                return self._tensor(*inner)
            case "tuple" if not filled:
                return tuple(self._items(like, inner))
            case "dict" if not filled:
                known = like if type(like) is dict else {}
                return {key: self.fill(known.get(key), value) for key, value in inner}
            case "fields":
                return self._record(like, inner)
            case "module" if isinstance(like, nn.Module):
                like.load_state_dict(self.fill(None, inner[0]))
                _set_flags(like, inner[1])
                return like
            case "optimizer" if isinstance(like, Optimizer):
                state = self.fill(None, inner)
                _check(like, state)
                like.load_state_dict(state)
                return like
            case "generator" if isinstance(like, Generator):
                return like.set_state(self._tensor(*inner["tensor"]))
        raise ValueError(f"there is no place for a {kind} in a {type(like).__name__}")

    def _items(self, like: Any, nodes: list[Node]) -> list[Any]:
        known = like if isinstance(like, list | tuple) and len(like) == len(nodes) else nodes
        return [
            self.fill(k if known is like else None, v) for k, v in zip(known, nodes, strict=True)
        ]

    def _record(self, like: Any, nodes: list[Node]) -> Any:
        fields = _fields(like)
        if fields is None:
            raise ValueError(f"there is no place for fields in a {type(like).__name__}")
        values = {n: self.fill(v, node) for (n, v), node in zip(fields.items(), nodes, strict=True)}
        if isinstance(like, tuple):
            return type(like)(**values)
        for name, value in values.items():
            object.__setattr__(like, name, value)  # a frozen one too: `like` is the reader's own
        return like

    def _tensor(self, name: str, order: list[int], on_cpu: bool, requires_grad: bool) -> Tensor:
        x = self.tensors[name]
        if sorted(order) != list(range(x.dim())):
            raise ValueError(f"{order} is no order of {x.dim()} dimensions")
        inverse = sorted(range(x.dim()), key=order.__getitem__)
        # a copy: what stays where the file was read to lies at any address, and products of
        # matrices may differ in their last digit with the address
        x = x.permute(inverse).to("cpu" if on_cpu else self.device, copy=True)
        return x.requires_grad_() if requires_grad else x


def _fields(x: Any) -> dict[str, Any] | None:
    """Of a NamedTuple or a dataclass; None of anything else."""
    if isinstance(x, tuple) and type(x) is not tuple:
        return x._asdict() if isinstance(getattr(type(x), "_fields", None), tuple) else None  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
    return None


def _flags(module: nn.Module) -> list[list[bool]]:
    """What is trained, and whether in training mode: no part of a `state_dict`."""
    modes = [part.training for part in module.modules()]
    return [[p.requires_grad for p in module.parameters()], modes]


def _set_flags(module: nn.Module, flags: list[list[bool]]) -> None:
    for parameter, flag in zip(module.parameters(), flags[0], strict=True):
        parameter.requires_grad_(flag)
    for part, flag in zip(module.modules(), flags[1], strict=True):
        part.training = bool(flag)


def _check(like: Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict` takes any moments: raises ValueError where these do not fit."""
    groups, saved_groups = like.state_dict()["param_groups"], state["param_groups"]
    if [sorted(g) for g in groups] != [sorted(g) for g in saved_groups] or any(
        g["params"] != h["params"] for g, h in zip(groups, saved_groups, strict=True)
    ):
        raise ValueError("the optimiser's groups are others")
    parameters = [p for group in like.param_groups for p in group["params"]]
    for i, entry in state["state"].items():
        for name in MOMENTS & set(entry):
            if entry[name] is not None and entry[name].shape != parameters[i].shape:
                raise ValueError(f"{name} has shape {tuple(entry[name].shape)}")
