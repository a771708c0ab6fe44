"""A posterior of a reader's own checkout of posteriordb, for the models that exist here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from tiltbench.targets.constrained import posteriordb
from tiltbench.targets.constrained.parameters import Table, Theta, unconstrain
from tiltbench.targets.constrained.posteriordb import AGAIN, Refused
from tiltbench.targets.densities.posteriors._database import MODELS, Known
from tiltbench.targets.densities.posteriors._observed import Data, Observed, placed
from tiltbench.targets.truths.facts import Observable, Truth
from tiltbench.targets.truths.stored import without_replacement


@dataclass(frozen=True)
class FromDatabase(Observed):
    """The data of a checkout of posteriordb under the model of that name here, its reference draws
    as truth, where it has any.

    posterior[path=.../posterior_database,name=garch-garch11].  x is standardised by the draws' mean
    and sd.  Nothing of the checkout is executed."""

    path: str = ""
    name: str = "posterior"  # type: ignore[misc]  # of the posterior in the database

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(
                "posterior needs a checkout of posteriordb and a name: write "
                "posterior[path=.../posterior_database,name=garch-garch11]; path must be given"
            )
        _loaded(self)

    scale = 1.0

    def data(self) -> Data:
        return _loaded(self).data

    def table(self, data: Data) -> Table:
        return _loaded(self).model.table(data)

    def log_density(self, theta: Theta, data: Data) -> Float[Tensor, " *b"]:
        return _loaded(self).model.log_density(theta, data)

    def reported(self, theta: Theta) -> Mapping[str, Tensor]:
        return _loaded(self).model.reported(theta)

    @property
    def parameters(self) -> Table:
        return _loaded(self).table

    def truth(self) -> Truth:
        x = _loaded(self).draws
        if x is None:
            return Truth("unknown: the database has no draws of it")
        flat = x.flatten(0, 1)

        def sample(n: int, generator: Generator) -> Float[Tensor, "n d"]:
            return without_replacement(flat, n, generator, self.name)

        return Truth(
            f"reference draws of posteriordb, {len(x)} chains of {x.shape[1]}",
            sample=sample,
            held=len(flat),
            observables={name: _known(f, x) for name, f in self.statistics().items()},
        )


class Loaded(NamedTuple):
    """What the checkout says of a posterior."""

    model: Observed
    data: Data
    table: Table
    draws: Float[Tensor, "chains draws d"] | None  # x


@lru_cache(maxsize=16)
def _loaded(posterior: FromDatabase) -> Loaded:
    stored = posteriordb.read(Path(posterior.path), posterior.name)
    if stored.model not in MODELS:
        raise Refused(
            f"the model {stored.model} of {posterior.name} does not exist here: those that do are "
            + ", ".join(sorted(MODELS))
        )
    known = MODELS[stored.model]
    model = known.model()
    try:
        data = known.read(stored.data)
    except Refused:
        raise
    except ValueError as error:
        raise Refused(f"the data of {posterior.name} is not of {stored.model}: {error}") from error
    plain = model.table(data)
    if stored.draws is None:
        return Loaded(model, data, plain, None)
    theta = _of_the_table(known, plain, stored.draws, posterior.name)
    try:
        u = unconstrain(plain, theta)
        table = placed(plain, *posteriordb.scale_of(u.flatten(0, 1)))
    except ValueError as error:
        raise Refused(
            f"the draws of {posterior.name} are not those of {stored.model}: {error}; {AGAIN}"
        ) from error
    return Loaded(model, data, table, unconstrain(table, theta))


def _of_the_table(known: Known, table: Table, draws: dict[str, Tensor], name: str) -> Theta:
    """The draws of every parameter.  Raises Refused where they are not those of the model."""
    try:
        theta = known.from_draws(draws)
        sizes = {p.name: theta[p.name].shape[2:] for p in table}
    except KeyError as error:
        raise Refused(f"the draws of {name} lack the parameter {error.args[0]}") from error
    except RuntimeError as error:
        raise Refused(
            f"the draws of {name} have parameters of shapes that do not fit: {AGAIN}"
        ) from error
    for parameter in table:
        expected = torch.Size([parameter.size] if parameter.size else [])
        if sizes[parameter.name] != expected:
            raise Refused(
                f"the draws of {name} have {parameter.name} of shape {tuple(sizes[parameter.name])}"
                f", and its data makes it {tuple(expected)}: take both anew from posteriordb"
            )
    return theta


def _known(f: object, x: Float[Tensor, "chains draws d"]) -> Observable:
    """Mean and sd over all draws, the error of the mean by chains."""
    y = f(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # type: ignore[operator]
    se = float(y.mean(1).std()) / len(x) ** 0.5 if len(x) > 1 else float(y.std()) / y.numel() ** 0.5
    return Observable(f, float(y.mean()), float(y.std()), se)  # type: ignore[arg-type]
