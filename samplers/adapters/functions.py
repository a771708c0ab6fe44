"""Samplers from functions that know nothing of the suite, for a file that names them:

    mine = from_numpy("mine", sample)

where `sample(log_prob, grad, dim, budget, rng)` returns draws, (n, dim), or (chains, n, dim) where
those of a chain depend on each other; or (draws, log_w) with E[exp(log_w) f(x)] = Z E_p*[f], such
as log_w = log_prob(x) - log q(x) of draws of q.  A function may yield such values instead, each in
the place of the one before: what it yielded last is drawn from.  Further parameters have defaults,
and are those of the sampler: `--samplers "mine.py[chains=8]"`.

`log_prob(x)` is log rho, not normalised (of a tilt log p_base + r), at x (dim,) or (*b, dim), and
costs a value a point.  `grad(x)` is its gradient, which costs a value and a gradient, and
`log_prob.and_grad(x)` returns both for the same.  `log_prob.scale` is the rms coordinate of the
target, as every method knows it.  `budget` is how many values and how many gradients there are; the
call that would exceed it raises BudgetExceeded, which the function may let pass.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from tiltbench.samplers.adapters.density import LogDensity, Misuse
from tiltbench.samplers.adapters.foreign import Foreign, seed
from tiltbench.samplers.adapters.handed import Handed, handed
from tiltbench.samplers.search import Search

Function = Callable[..., Any]
GIVEN = ("log_prob", "grad", "dim", "budget", "rng")


def from_torch(
    name: str, sample: Function, consistent: bool = True, search: Search | None = None
) -> type[Foreign]:
    """The sampler of a PyTorch function.

    Points are floating-point tensors on `rng.device`, rng a torch.Generator; log_prob is
    differentiable, and autograd's gradients are counted like any.  `consistent` is False where
    draws, weighted where they have weights, do not tend to p* as the budget grows."""
    return _sampler(name, sample, Torch, consistent, search)


def from_numpy(
    name: str, sample: Function, consistent: bool = True, search: Search | None = None
) -> type[Foreign]:
    """The same of a NumPy function: float64 arrays, rng a numpy.random.Generator."""
    return _sampler(name, sample, NumPy, consistent, search)


def from_jax(
    name: str, sample: Function, consistent: bool = True, search: Search | None = None
) -> type[Foreign]:
    """The same of a JAX function, rng a key of jax.random.

    log_prob may be traced by jit, grad, vmap (points under vmap are evaluated in one batch) and
    scan, in the dtype of x; it has no second derivatives.  The target is computed by PyTorch, on
    the run's device, in a callback on the host.  Needs JAX: the extra `jax`."""
    return _sampler(name, sample, Jax, consistent, search)


@dataclass(frozen=True)
class Called(Foreign):
    """A function that is called once."""

    sample: ClassVar[Function]

    @abstractmethod
    def given(self, density: LogDensity, number: int, generator: Generator) -> tuple[Any, Any, Any]:
        """(log_prob, grad, rng) of the function's library."""

    def begin(self, density: LogDensity, generator: Generator) -> Iterator[Handed]:
        number = seed(generator)
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        device = generator.device

        def work() -> Iterator[Handed]:
            log_prob, grad, rng = self.given(density, number, generator)
            returned = type(self).sample(log_prob, grad, density.dim, density.budget, rng, **values)
            for each in returned if inspect.isgenerator(returned) else [returned]:
                yield handed(each, self.name, density.dim, device)

        return work()


class LogProb:
    """log_prob as a function is given it: x -> log rho(x), `and_grad`: x -> (log rho, gradient)."""

    def __init__(self, value: Function, and_grad: Function, density: LogDensity) -> None:
        self._value, self.and_grad = value, and_grad
        self.scale, self.dim = density.scale, density.dim

    def __call__(self, x: Any) -> Any:
        return self._value(x)


@dataclass(frozen=True)
class Torch(Called):
    def given(self, density: LogDensity, number: int, generator: Generator) -> tuple[Any, Any, Any]:
        def points(x: Any) -> Tensor:
            if not isinstance(x, Tensor):
                raise Misuse(
                    f"{self.name} asks for log_prob at a {_kind(x)}; from_torch takes tensors: use "
                    "torch.as_tensor, or from_numpy or from_jax of tiltbench"
                )
            if not x.dtype.is_floating_point:
                raise Misuse(f"{self.name} asks for log_prob at x of {x.dtype}; take x.float()")
            if x.device != density.device:
                raise Misuse(
                    f"{self.name} asks for log_prob at x on {x.device}; the run is on "
                    f"{density.device}: make tensors on rng.device"
                )
            density.points(x, "coordinates")
            return x

        def and_grad(x: Any) -> tuple[Tensor, Tensor]:
            return density.both(points(x))

        log_prob = LogProb(lambda x: density.value(points(x)), and_grad, density)
        rng = Generator(density.device).manual_seed(number)
        return log_prob, lambda x: and_grad(x)[1], rng


@dataclass(frozen=True)
class NumPy(Called):
    def given(self, density: LogDensity, number: int, generator: Generator) -> tuple[Any, Any, Any]:
        def points(x: Any) -> Tensor:
            if isinstance(x, Tensor):
                raise Misuse(
                    f"{self.name} asks for log_prob at a {_kind(x)}; from_numpy takes arrays: use "
                    "from_torch of tiltbench for code in PyTorch"
                )
            try:
                array = np.array(x, dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise Misuse(
                    f"{self.name} asks for log_prob at a {_kind(x)} that is no array of numbers "
                    f"({error}); give it points, (n, {density.dim})"
                ) from error
            density.points(array, "coordinates")
            return torch.from_numpy(array).to(density.device)

        def value(x: Any) -> Any:
            with torch.no_grad():
                return density.value(points(x)).cpu().numpy()[()]

        def and_grad(x: Any) -> tuple[Any, Any]:
            y, g = density.both(points(x))
            return y.cpu().numpy()[()], g.cpu().numpy()

        log_prob = LogProb(value, and_grad, density)
        return log_prob, lambda x: and_grad(x)[1], np.random.default_rng(number)


@dataclass(frozen=True)
class Jax(Called):
    def given(self, density: LogDensity, number: int, generator: Generator) -> tuple[Any, Any, Any]:
        import jax

        # A callback that reads its arguments while the CPU's own dispatch waits for it hangs for
        # ever (github.com/jax-ml/jax/issues/24255).
        jax.config.update("jax_cpu_enable_async_dispatch", False)

        def traced(x: Any) -> Any:
            if isinstance(x, Tensor):
                raise Misuse(
                    f"{self.name} asks for log_prob at a {_kind(x)}; from_jax takes arrays: use "
                    "from_torch of tiltbench for code in PyTorch"
                )
            x = jax.numpy.asarray(x)
            if not jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
                raise Misuse(
                    f"{self.name} asks for log_prob at x of {x.dtype}; points are floating-point "
                    "numbers"
                )
            density.points(x, "coordinates, without that of vmap")
            return x

        def tensor(x: Any) -> Tensor:
            return torch.from_numpy(np.array(x, dtype=np.float64)).to(density.device)

        def value(x: Any) -> Any:
            with torch.no_grad():
                return density.value(tensor(x)).cpu().numpy().astype(x.dtype)

        def both(x: Any) -> Any:
            y, g = density.both(tensor(x))
            return y.cpu().numpy().astype(x.dtype), g.cpu().numpy().astype(x.dtype)

        def called(f: Function, shapes: Any, x: Any) -> Any:
            return jax.pure_callback(f, shapes, x, vmap_method="broadcast_all")

        def number_of(x: Any) -> Any:
            return jax.ShapeDtypeStruct(x.shape[:-1], x.dtype)

        def and_grad(x: Any) -> Any:
            x = traced(x)
            return called(both, (number_of(x), jax.ShapeDtypeStruct(x.shape, x.dtype)), x)

        @jax.custom_vjp
        def of(x: Any) -> Any:
            return called(value, number_of(x), x)

        of.defvjp(and_grad, lambda g, along: (along[..., None] * g,))
        log_prob = LogProb(lambda x: of(traced(x)), and_grad, density)
        return log_prob, lambda x: and_grad(x)[1], jax.random.key(number)


def _kind(x: Any) -> str:
    return f"{type(x).__module__.partition('.')[0]}.{type(x).__name__}"


def _sampler(
    name: str, sample: Function, library: type[Called], consistent: bool, search: Search | None
) -> type[Foreign]:
    parameters = _parameters(name, sample)
    body: dict[str, Any] = {
        "__doc__": (getattr(sample, "__doc__", None) or "A sampler given as a function.").strip(),
        "__annotations__": {key: type(value) for key, value in parameters.items()},
        "name": name,
        "consistent": consistent,
        "law": dict(search or {}),
        "sample": staticmethod(sample),
        **parameters,
    }
    return dataclass(frozen=True)(type(name, (library,), body))


def _parameters(name: str, sample: Function) -> Mapping[str, Any]:
    """The parameters beyond the five given ones, with their defaults.  Raises ValueError where the
    function cannot be called with the five, or where a default cannot be written in a spec."""
    if not callable(sample):
        raise ValueError(f"{name} is made from a {type(sample).__name__}; give a function")
    signature = inspect.signature(sample)
    try:
        signature.bind(*GIVEN)
    except TypeError as error:
        raise ValueError(
            f"the function of {name} cannot be called as sample({', '.join(GIVEN)}): {error}; "
            "give further parameters defaults"
        ) from error
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    rest = [p for p in list(signature.parameters.values())[len(GIVEN) :] if p.kind not in variable]
    for one in rest:
        if not isinstance(one.default, bool | int | float | str | tuple):
            raise ValueError(
                f"{one.name} of {name} has the default {one.default!r}; a parameter is a number, a "
                "string or a tuple of these"
            )
        if hasattr(Called, one.name):
            raise ValueError(f"{one.name} of {name} is a name that samplers use; choose another")
    return {one.name: one.default for one in rest}
