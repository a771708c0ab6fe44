"""Runs that look good by their own paths and bad by exact draws."""

from __future__ import annotations

import math
from typing import NamedTuple

from tiltbench.report.compare import NO_ERROR
from tiltbench.report.frame import Frames

HEALTHY = 0.5  # ess_model above this is read as success
NATS = 0.1  # an error of log Z worth naming
ERRORS = 5  # standard errors
OWN = "log_Z_own_err"
MASS = 0.2  # share of the target's mass in the wrong mode


class Number(NamedTuple):
    value: float
    se: float
    floor_mean: float
    floor_sd: float


class Misled(NamedTuple):
    """One run: its signs of success by its own paths, and what contradicts them."""

    target: str
    sampler: str
    seed: int
    signs: tuple[str, ...]
    against: tuple[str, ...]
    severity: float

    def sentence(self, target: str, sampler: str) -> str:
        """In words, with the two labels as the page at hand writes them."""
        return (
            f"On {target}, {sampler} (seed {self.seed}) looks good by its own paths: "
            f"{', '.join(self.signs)}. By exact draws: {'; '.join(self.against)}."
        )


def misled(frames: Frames) -> list[Misled]:
    """The runs that a one-sided score misleads about, the worst first.

    One-sided signs of success: ess_model above 1/2, log Z stated to better than 0.1 nats, or an own
    estimate of log Z (SMC, tempering, learned) with an error bar that hides its error.
    Contradictions: mode_tv (after weighting, where there are weights) above its floor by 0.2 and
    2 sd; ess_target a tenth of ess_model or less; log Z off by more than 0.1 nats and 5 of its own
    standard errors, or with weights that tell no error.  The other side needs no test of its own:
    where its estimate of log Z exists the truth is known, and an own estimate that is off it is off
    the other side's too."""
    runs = []
    keys = ["target", "sampler", "seed", "id"]
    for (target, sampler, seed, _), rows in frames.scores.groupby(keys, sort=False):
        table = rows[rows["value"].notna()].set_index("metric")
        columns = ["value", "se", "floor_mean", "floor_sd"]
        scores = {name: Number(*table.loc[name, columns]) for name in table.index}
        bare = frozenset(table.index[table["reason"].fillna("").str.startswith(NO_ERROR)])
        signs, against, severity = _signs_of_success(scores), *_against(scores, bare)
        if signs and against:
            runs.append(Misled(target, sampler, int(seed), signs, against, severity))
    return sorted(runs, key=lambda m: -m.severity)


def _signs_of_success(scores: dict[str, Number]) -> tuple[str, ...]:
    signs = []
    if "ess_model" in scores and scores["ess_model"].value > HEALTHY:
        signs.append(f"ess_model {scores['ess_model'].value:.2f}")
    if "log_Z_err" in scores and scores["log_Z_err"].se < NATS:
        signs.append(f"log Z stated to ±{scores['log_Z_err'].se:.2g}")
    elif OWN in scores and _off(scores[OWN]):  # without weights only this can mislead
        signs.append(f"it states log Z to ±{scores[OWN].se:.2g}")
    return tuple(signs)


def _off(error: Number) -> bool:
    """An error of log Z that its own error bar hides; an unknown one (NaN) says nothing."""
    return abs(error.value) > NATS and abs(error.value) > ERRORS * error.se


def _against(scores: dict[str, Number], bare: frozenset[str]) -> tuple[tuple[str, ...], float]:
    """`bare`: scores whose weights do not tell an error."""
    signs, severity = [], 0.0
    stated = [
        name
        for name in ("log_Z_err", OWN)
        if name in scores
        and (abs(scores[name].value) > NATS if name in bare else _off(scores[name]))
    ]
    if len(stated) == 2 and abs(scores[OWN].value - scores["log_Z_err"].value) < NATS:
        stated.pop()  # SMC's own estimate is that of its weights
    for name in stated:
        value, se, _, _ = scores[name]
        many = f" ({abs(value) / se:,.0f} of its standard errors)" if se > 0 else ""
        whose = "its own log Z" if name == OWN else "log Z"
        signs.append(f"{whose} is off by {value:+.2f} nats{many}")
        severity += abs(value)
    if "ess_model" in scores and "ess_target" in scores:
        model, target = scores["ess_model"].value, scores["ess_target"].value
        if target <= model / 10 and model > HEALTHY:
            signs.append(f"ess_target {target:.2g}")
            severity += min(math.log(model / max(target, 1e-30)), 10)
    # a claim made by weights is met by the modes after weighting
    modes = scores.get("mode_tv_weighted", scores.get("mode_tv"))
    if modes:
        value, _, mean, sd = modes
        if value > mean + max(2 * sd, MASS):
            signs.append(f"mode_tv {value:.2g} where exact draws score {mean:.2g} ± {sd:.1g}")
            severity += 5 * value
    return tuple(signs), severity
