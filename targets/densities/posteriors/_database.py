"""The models of posteriordb that exist here: how its data and its draws become those of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from tiltbench.targets.constrained.parameters import Theta
from tiltbench.targets.constrained.posteriordb import Raw
from tiltbench.targets.densities.posteriors._laws import lagged, least_squares
from tiltbench.targets.densities.posteriors._observed import Data, Observed
from tiltbench.targets.densities.posteriors.ark import ArK
from tiltbench.targets.densities.posteriors.diamonds import Diamonds
from tiltbench.targets.densities.posteriors.eight_schools import EightSchools
from tiltbench.targets.densities.posteriors.garch11 import Garch11
from tiltbench.targets.densities.posteriors.hmm_example import HmmExample
from tiltbench.targets.densities.posteriors.hudson_lynx_hare import HudsonLynxHare
from tiltbench.targets.densities.posteriors.low_dim_gauss_mix import LowDimGaussMix
from tiltbench.targets.densities.posteriors.nes1980 import Nes1980


def _as_stored(draws: Theta) -> Theta:
    return draws


class Known(NamedTuple):
    """A model of the database.  `read` raises Refused where data are not that of the model, and
    ValueError where they do not determine it; `from_draws` KeyError where a parameter lacks."""

    model: type[Observed]
    read: Callable[[Raw], Data]
    from_draws: Callable[[Theta], Theta] = _as_stored  # to the parameters of the model's table


def eight_schools(raw: Raw) -> Data:
    schools = raw.whole("J")
    return {"y": raw.array("y", schools), "sigma": raw.positive("sigma", schools)}


def effects(draws: Theta) -> Theta:
    """The centred effects theta become t = (theta - mu) / tau."""
    mu, tau = draws["mu"], draws["tau"]
    return {"t": (draws["theta"] - mu[..., None]) / tau[..., None], "mu": mu, "tau": tau}


def ark(raw: Raw) -> Data:
    count, lags = raw.whole("T"), raw.whole("K")
    raw.must(count > lags > 1, "K", "it must be above 1 and below T, the length of y")
    return least_squares(lagged(raw.array("y", count), lags))


def diamonds(raw: Raw) -> Data:
    """The columns but the first, which is 1, are centred."""
    rows, columns = raw.whole("N"), raw.whole("K")
    raw.must(columns > 2, "K", "it must be above 2: the first column is 1")
    x = raw.array("X", rows, columns)[:, 1:]
    y = raw.array("Y", rows)
    return least_squares(torch.cat([torch.ones(rows, 1), x - x.mean(0), y[:, None]], -1))


def nes(raw: Raw) -> Data:
    """The four age groups become three columns."""
    n = raw.whole("N")
    age = raw.array("age_discrete", n)
    first = [torch.ones(n), raw.array("real_ideo", n), raw.array("race_adj", n)]
    groups = [(age == group).double() for group in (2, 3, 4)]
    last = [raw.array(name, n) for name in ("educ1", "gender", "income", "partyid7")]
    return least_squares(torch.stack([*first, *groups, *last], -1))


def garch11(raw: Raw) -> Data:
    return {"y": raw.array("y", raw.whole("T")), "first": raw.positive("sigma1", 1)}


def persistence(draws: Theta) -> Theta:
    return {**draws, "persistence": torch.stack([draws["alpha1"], draws["beta1"]], -1)}


def low_dim_gauss_mix(raw: Raw) -> Data:
    return {"y": raw.array("y", raw.whole("N"))}


def hmm_example(raw: Raw) -> Data:
    raw.must(raw.whole("K") == 2, "K", "it must be 2, the states of the model")
    return {"y": raw.array("y", raw.whole("N"))}


def lotka_volterra(raw: Raw) -> Data:
    n = raw.whole("N")
    raw.must(raw.array("ts", n).tolist() == [1.0 + i for i in range(n)], "ts", "1, 2, ... N")
    first: Tensor = raw.positive("y_init", 2)
    return {"pelts": torch.cat([first[None], raw.positive("y", n, 2)])}


MODELS: Mapping[str, Known] = {  # by their names in the database
    "eight_schools_noncentered": Known(EightSchools, eight_schools, effects),
    "diamonds": Known(Diamonds, diamonds),
    "arK": Known(ArK, ark),
    "garch11": Known(Garch11, garch11, persistence),
    "low_dim_gauss_mix": Known(LowDimGaussMix, low_dim_gauss_mix),
    "hmm_example": Known(HmmExample, hmm_example),
    "lotka_volterra": Known(HudsonLynxHare, lotka_volterra),
    "nes": Known(Nes1980, nes),
}
