"""The parameter table of a posterior: name, support and transform of each, in order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.constants import constant
from tiltbench.targets.constrained.transforms import REAL, Transform

Theta = Mapping[str, Tensor]  # by name: (*b) of a number, (*b, size) of a vector


@dataclass(frozen=True)
class Parameter:
    """A number (size 0) or a vector of a model, theta = transform(centre + width x).

    `centre` and `width` are one for all of its free numbers, or one each.  They make x of order
    one, which samplers like: a rough fit is enough, such as an optimiser's."""

    name: str
    transform: Transform = REAL
    size: int = 0
    centre: float | tuple[float, ...] = 0.0
    width: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        if self.size < 0 or self.free < 1:
            raise ValueError(
                f"the parameter {self.name} has size {self.size}, which leaves no free number: "
                "state 0 of a number and the length of a vector"
            )
        for what, numbers in (("centre", self.centre), ("width", self.width)):
            if not all(map(math.isfinite, _each(numbers, self.free))):
                raise ValueError(f"the {what} of {self.name} is {numbers}; it must be finite")
            if isinstance(numbers, tuple) and len(numbers) != self.free:
                raise ValueError(
                    f"the parameter {self.name} has {len(numbers)} numbers as its {what}; it must "
                    f"have {self.free}, or one for all"
                )
        if not min(_each(self.width, self.free)) > 0:
            raise ValueError(f"the width of {self.name} is {self.width}; it must be positive")

    @property
    def free(self) -> int:
        return self.transform.free(self.size or 1)

    @property
    def labels(self) -> list[str]:
        """`mu`, or `b[1]`, `b[2]`, ..."""
        return [f"{self.name}[{i + 1}]" for i in range(self.size)] if self.size else [self.name]


Table = tuple[Parameter, ...]


class Constrained(NamedTuple):
    """Points in the model's own parameters."""

    theta: dict[str, Tensor]
    log_jacobian: Tensor  # (*b): log |det d theta / d x|
    inside: Tensor  # (*b): whether no transform is beyond its reach


def dimension(table: Table) -> int:
    """The free numbers of all parameters.  Raises ValueError where two have one name."""
    names = [parameter.name for parameter in table]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(
            f"the table has more than one parameter {min(twice)}: give each a name of its own"
        )
    return sum(parameter.free for parameter in table)


def constrain(table: Table, x: Float[Tensor, "*b d"]) -> Constrained:
    """The parameters at x.  Beyond the reach of a transform they are those at its edge."""
    theta: dict[str, Tensor] = {}
    log_jacobian = x.new_zeros(())
    inside = torch.ones((), dtype=torch.bool, device=x.device)
    parts = x.split([parameter.free for parameter in table], -1)
    for parameter, part in zip(table, parts, strict=True):
        width = constant(_each(parameter.width, parameter.free), x)
        u = constant(_each(parameter.centre, parameter.free), x) + width * part
        reach = parameter.transform.reach
        if reach < torch.inf:
            inside = inside & ~(u.abs() > reach).any(-1)  # NaN stays NaN
            u = u.clamp(-reach, reach)
        value, slope = parameter.transform.forward(u)
        log_jacobian = log_jacobian + slope + width.log().sum()
        theta[parameter.name] = value if parameter.size else value[..., 0]
    return Constrained(theta, log_jacobian.expand(x.shape[:-1]), inside.expand(x.shape[:-1]))


def unconstrain(table: Table, theta: Theta) -> Float[Tensor, "*b d"]:
    """x of parameters: the inverse of `constrain`.

    Raises ValueError where one is outside its support."""
    parts = []
    for parameter in table:
        value = theta[parameter.name]
        u = parameter.transform.inverse(value if parameter.size else value[..., None])
        if not bool(u.isfinite().all()):
            raise ValueError(
                f"{parameter.name} is outside its support, {parameter.transform.support}: mend the "
                "values, or state the transform that fits them"
            )
        centre, width = (
            constant(_each(numbers, parameter.free), u)
            for numbers in (parameter.centre, parameter.width)
        )
        parts.append((u - centre) / width)
    return torch.cat(parts, -1)


def rows(table: Table) -> list[tuple[str, str, str]]:
    """(name, support, transform) of each parameter, for people to read."""
    return [
        (
            parameter.name + (f"[{parameter.size}]" if parameter.size else ""),
            parameter.transform.support,
            parameter.transform.name,
        )
        for parameter in table
    ]


def _each(numbers: float | tuple[float, ...], free: int) -> tuple[float, ...]:
    return numbers if isinstance(numbers, tuple) else (float(numbers),) * free
