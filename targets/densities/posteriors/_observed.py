"""A model and its data: what ships with the package, or what a reader's own checkout holds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from tiltbench.targets.constants import settled
from tiltbench.targets.constrained.parameters import Parameter, Table, Theta
from tiltbench.targets.constrained.posterior import Posterior
from tiltbench.targets.target import table as frozen

Data = Mapping[str, Tensor]  # float64
Place = tuple[Sequence[float], Sequence[float]]  # centre and width


class Observed(Posterior):
    """A posterior whose law is a function of data.

    x = (u - centre) / width of the unconstrained parameters u, with numbers stated once for the
    data that ships: rounded means and sds, as a first fit gives, or that fit itself."""

    centre: ClassVar[tuple[float, ...]] = ()  # none: 0
    width: ClassVar[tuple[float, ...]] = ()  # none: 1

    def place(self, data: Data) -> Place:
        """Centre and width of the free numbers of the table in turn."""
        return self.centre, self.width

    @abstractmethod
    def data(self) -> Data:
        """The data that ships, or is printed, on the CPU."""

    @abstractmethod
    def table(self, data: Data) -> Table:
        """The parameters of the model for such data, neither moved nor stretched."""

    @abstractmethod
    def log_density(self, theta: Theta, data: Data) -> Float[Tensor, " *b"]:
        """log p(y | theta) + log p(theta), all constants included."""

    @property
    def parameters(self) -> Table:
        return _placed(self)

    def log_joint(self, theta: Theta) -> Float[Tensor, " *b"]:
        return self.log_density(theta, self.given(next(iter(theta.values())).device))

    def given(self, device: torch.device) -> Data:
        """The data on the device, copied there once."""
        return _data_on(self, settled(device))


def printed(*rows: float | tuple[float, ...]) -> Tensor:
    """Numbers of a page, float64 on the CPU."""
    return torch.tensor(rows, dtype=torch.float64)


def stored(name: str) -> Tensor:
    """The frozen array data/<name>.npy, float64 on the CPU."""
    return frozen(name, torch.zeros((), dtype=torch.float64))


@lru_cache(maxsize=64)
def _placed(posterior: Observed) -> Table:
    data = posterior.data()
    return placed(posterior.table(data), *posterior.place(data))


def placed(table: Table, centre: Sequence[float], width: Sequence[float]) -> Table:
    """The table with the centre and width of each free number in turn; where there are none it
    stays as it is."""
    start = 0
    parameters: list[Parameter] = []
    for parameter in table:
        here = slice(start, start + parameter.free)
        start += parameter.free
        if centre and width:
            new = replace(parameter, centre=tuple(centre[here]), width=tuple(width[here]))
            parameter = new
        parameters.append(parameter)
    return tuple(parameters)


@lru_cache(maxsize=64)
def _data_on(posterior: Observed, device: torch.device) -> Data:
    with torch.inference_mode(False):  # or whoever records a graph later could not use it
        return {name: value.double().to(device) for name, value in posterior.data().items()}
