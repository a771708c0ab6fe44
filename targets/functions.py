"""Targets from plain functions, for a file that names them:

    mine = from_torch("mine", log_density, dim=2)

or, of parameters with bounds, from their log density and a table of them:

    mine = from_constrained("mine", log_density, [Parameter("mu"), Parameter("sd", POSITIVE)])

`tiltbench check path/to/file.py` then checks the target, and `run --targets path/to/file.py` runs
it; a class that extends Density does the same and may have parameters.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Parameter
from tiltbench.targets.constrained.posterior import Posterior
from tiltbench.targets.problem import front
from tiltbench.targets.target import Density, Truth

Values = Callable[[np.ndarray], np.ndarray]  # (n, dim) -> (n,), float64
Gradients = Callable[[np.ndarray], np.ndarray]  # (n, dim) -> (n, dim), float64
Statistics = Mapping[str, Callable[[Any], Any]]  # (n, dim) -> (n,), of arrays or of tensors

STEP = np.finfo(np.float64).eps ** (1 / 3)  # of central differences, in scales


def from_torch(
    name: str,
    log_density: Callable[[Tensor], Tensor],
    dim: int,
    scale: float = 1.0,
    truth: Truth | None = None,
    statistics: Statistics | Iterable[str] | None = None,
) -> type[Density]:
    """The target rho(x) = exp log_density(x), a PyTorch function (*b, dim) -> (*b) in nats.

    `scale` is the rms coordinate, as far as it is known; `truth` what is known, nothing by default:
    then the certified reference beside the file is the truth, once `tiltbench reference` has made
    one.  `statistics` are what a table reports of draws whose truth is unknown: functions by name,
    (n, dim) -> (n,), or one name a coordinate (default x1, x2, ...).

    Raises ValueError where the names are not one a coordinate."""
    return _density(name, log_density, dim, scale, truth, _named(name, statistics, dim))


def from_numpy(
    name: str,
    log_density: Values,
    dim: int,
    scale: float = 1.0,
    gradient: Gradients | None = None,
    truth: Truth | None = None,
    statistics: Statistics | Iterable[str] | None = None,
) -> type[Density]:
    """The same of a NumPy function (n, dim) -> (n,), and of its gradient (n, dim) -> (n, dim).

    Without a gradient central differences are taken: the meter counts one gradient, the machine
    works for 2 dim values.  A function of one point, as Stan's and NumPyro's log densities are,
    becomes one of many by `numpy.vectorize(f, signature="(d)->()")`, its gradient by
    `signature="(d)->(d)"`.  The functions of `statistics` take arrays, too.  There are no second
    derivatives, and no device but the CPU's."""
    slope = gradient or _differences(log_density, scale)

    def log_rho(x: Tensor) -> Tensor:
        value: Tensor = _Foreign.apply(x, log_density, slope)
        return value

    named = _named(name, statistics, dim)
    named = {
        key: _of_arrays(key, g) if isinstance(statistics, Mapping) else g
        for key, g in named.items()
    }
    return _density(name, log_rho, dim, scale, truth, named)


def from_constrained(
    name: str,
    log_density: Callable[..., Tensor],
    parameters: Sequence[Parameter],
    scale: float = 1.0,
    report: Callable[..., Mapping[str, Tensor]] | None = None,
    truth: Truth | None = None,
) -> type[Posterior]:
    """The target of a log density in parameters that have bounds, sampled in unconstrained ones:
    the transforms of the table and their Jacobians are added.

    `log_density` takes the parameters by name, float64 tensors (*b) of numbers and (*b, size) of
    vectors, and returns (*b) nats, say of likelihood and prior; every constant that log Z is to
    have must be in it.  `report` takes the same and returns what tables report, by name; every
    parameter by default.  `scale` is the rms coordinate of x, 1 where the centres and widths of the
    table fit.

    Raises ValueError where the names of the table are not those that the function takes."""
    table, known = tuple(parameters), truth or Truth("unknown")
    for function in (log_density, report):
        if function is not None:
            _takes(name, function, [parameter.name for parameter in table])
    body: dict[str, Any] = {
        "__doc__": (getattr(log_density, "__doc__", None) or "A posterior given as a function."),
        "name": name,
        "scale": scale,
        "parameters": property(lambda self: table),
        "log_joint": lambda self, theta: log_density(**theta),
        "truth": lambda self: known,
        "__module__": _caller(),
    }
    if report is not None:
        body["reported"] = lambda self, theta: report(**theta)
    return dataclass(frozen=True)(type(name, (Posterior,), body))


def _takes(name: str, function: Callable[..., Any], names: Sequence[str]) -> None:
    """Raises ValueError where a function does not take arguments of these names."""
    try:
        inspect.signature(function).bind(**dict.fromkeys(names))
        fits = len(set(names)) == len(names) > 0
    except TypeError:
        fits = False
    if not fits:
        takes = ", ".join(inspect.signature(function).parameters)
        raise ValueError(
            f"{name} has a table of {', '.join(names) or 'no parameters'}, and its function takes "
            f"{takes}: give each parameter one name in both"
        )


def _density(
    name: str,
    f: Callable[[Tensor], Tensor],
    dim: int,
    scale: float,
    truth: Truth | None,
    statistics: Statistics,
) -> type[Density]:
    known = truth or Truth("unknown")
    body: dict[str, Any] = {
        "__doc__": (getattr(f, "__doc__", None) or "A log density given as a function.").strip(),
        "name": name,
        "dim": dim,
        "scale": scale,
        "log_rho": lambda self, x: f(x),
        "truth": lambda self: known,
        "__module__": _caller(),  # beside whose file a reference lies
    }
    if statistics:
        body["statistics"] = lambda self: dict(statistics)
    return dataclass(frozen=True)(type(name, (Density,), body))


def _caller() -> str:
    """The module that called this file."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"] == __name__:
        frame = frame.f_back
    return str(frame.f_globals["__name__"])


def _named(name: str, statistics: Statistics | Iterable[str] | None, dim: int) -> Statistics:
    if statistics is None or isinstance(statistics, Mapping):
        return statistics or {}
    names = [statistics] if isinstance(statistics, str) else [str(one) for one in statistics]
    if len(set(names)) != dim:
        raise ValueError(
            f"{name} has {dim} coordinates, and its statistics are {len(set(names))} different "
            "names: state one a coordinate, or functions by name"
        )
    return {one: partial(_coordinate, i) for i, one in enumerate(names)}


def _coordinate(i: int, x: Tensor) -> Tensor:
    return x[..., i]


def _of_arrays(name: str, f: Callable[[Any], Any]) -> Callable[[Tensor], Tensor]:
    """A NumPy function (n, dim) -> (n,) of the points x (*b, dim)."""

    def statistic(x: Tensor) -> Tensor:
        flat = _array(x)
        value = np.asarray(f(flat), dtype=np.float64)
        if value.shape != flat.shape[:1]:
            raise ValueError(
                f"the statistic {name} maps {flat.shape} to {value.shape}, not to "
                f"{flat.shape[:1]}: write one number a point, such as lambda x: x[:, 0]"
            )
        return torch.from_numpy(value.copy()).to(x).reshape(x.shape[:-1])

    return statistic


def _differences(log_density: Values, scale: float) -> Gradients:
    """(f(x + h e_i) - f(x - h e_i)) / 2h in every coordinate."""

    def gradient(x: np.ndarray) -> np.ndarray:
        n, dim = x.shape
        steps = STEP * scale * np.eye(dim)
        ahead, behind = (
            np.asarray(log_density((x[:, None] + s * steps).reshape(-1, dim))).reshape(n, dim)
            for s in (1, -1)
        )
        with np.errstate(invalid="ignore"):  # beyond an edge: -inf - -inf
            slope: np.ndarray = (ahead - behind) / (2 * STEP * scale)
        return slope

    return gradient


class _Foreign(torch.autograd.Function):
    """A NumPy function of the points x (*b, dim), computed in float64, with the given gradient."""

    @staticmethod
    def forward(x: Tensor, f: Values, gradient: Gradients) -> Tensor:
        flat = _array(x)
        value = np.asarray(f(flat), dtype=np.float64)
        if value.shape != flat.shape[:1]:
            raise ValueError(
                f"the log density maps {flat.shape} to {value.shape}, not to {flat.shape[:1]}; for "
                'a function of one point use numpy.vectorize(f, signature="(d)->()")'
            )
        return torch.from_numpy(value.copy()).to(x).reshape(x.shape[:-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.gradient = inputs[2]

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        (x,) = ctx.saved_tensors
        return grad[0][..., None] * _Slope.apply(x, ctx.gradient), None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, f: Values, gradient: Gradients) -> Any:
        return _Foreign.apply(front(info, in_dims[0], x), f, gradient), 0


class _Slope(torch.autograd.Function):
    """The gradient at the points, of which no more derivatives are known."""

    @staticmethod
    def forward(x: Tensor, gradient: Gradients) -> Tensor:
        slope = np.asarray(gradient(_array(x)), dtype=np.float64)
        if slope.size != x.numel():
            raise ValueError(
                f"the gradient at {x.numel() // x.shape[-1]} points of {x.shape[-1]} coordinates "
                f"has shape {slope.shape}; it must have one number a coordinate"
            )
        return torch.from_numpy(slope.copy()).to(x).reshape(x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        raise RuntimeError(
            "a NumPy log density has no second derivatives; write it in PyTorch for this method"
        )

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, gradient: Gradients) -> Any:
        return _Slope.apply(front(info, in_dims[0], x), gradient), 0


def _array(x: Tensor) -> np.ndarray:
    """A copy: the function may change its argument."""
    return x.detach().to("cpu", torch.float64, copy=True).reshape(-1, x.shape[-1]).numpy()
