"""Does gradient variance predict final error?  From the stored scores of the oracle suite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import rankdata

from tiltbench.report.pictures.style import COLOURS, GREY, picture
from tiltbench.studies.common.stored import is_control, oracle_scores
from tiltbench.study import Answer, Claim, Study, verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from pandas import DataFrame

PREDICTORS = {"grad_cov": "tr Cov(g)", "grad_var": "tr Cov(g) / |E g|²"}
OUTCOMES = {
    "log_Z_bar_err": "|log Z error| (Bennett, nats)",
    "elbo_gap": "log Z − ELBO (nats)",
    "control_err": "control error",
}
LEAST = 5  # methods a target must have for a rank correlation
SHUFFLES = 5_000
PREDICTS = 0.3  # rank correlation from which on a claim "predicts" holds


class Family(NamedTuple):
    """Methods whose losses share a functional, and so the units of their gradients."""

    name: str
    has: Callable[[str], bool]


ESCORTS, PATHS = ("cmcd", "nets"), ("variance", "balance", "entropy")
FAMILIES = (
    Family("escorts", lambda method: any(word in method for word in ESCORTS)),
    Family("path functionals", lambda method: any(word in method for word in PATHS)),
    Family("regressions on a control", lambda method: True),  # what is left
)
REGRESSIONS = FAMILIES[-1].name


class Pooled(NamedTuple):
    """The mean over targets of Spearman's rho, its standard error (targets are the independent
    units) and the share of within-target shuffles with a mean as far from 0."""

    rho: float
    se: float
    p: float
    targets: int


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    table = medians(oracle_scores())
    rows, pooled = [], {}
    for group, part in (("all", table), (REGRESSIONS, table[table["family"] == REGRESSIONS])):
        for predictor in PREDICTORS:
            row: dict[str, str | float] = {"methods": group, "gradient": PREDICTORS[predictor]}
            for outcome in OUTCOMES:
                correlation = pool(part, predictor, outcome)
                pooled[group, predictor, outcome] = correlation
                row[OUTCOMES[outcome]] = _text(correlation)
            rows.append(row)
    for target, of_target in table.groupby("target", sort=False):
        one = of_target[of_target["family"] == REGRESSIONS]
        row = {"methods": f"{REGRESSIONS}, `{target}`", "gradient": PREDICTORS["grad_cov"]}
        for outcome in OUTCOMES:
            pair = one[["grad_cov", outcome]].dropna().to_numpy()
            row[OUTCOMES[outcome]] = "–"
            if len(pair) >= LEAST:
                row[OUTCOMES[outcome]] = f"{spearman(*pair.T):+.2f} (n = {len(pair)})"
        rows.append(row)
    _draw(folder / "rank_agreement.png", table)
    known, seen, cells = (int(table[n].notna().sum()) for n in ("grad_var", "grad_cov", "target"))
    words = (
        "Spearman's rank correlation between a method's gradient variance at its final parameters "
        "and its final error. Methods are compared within a target (medians over seeds; negative "
        f"controls left out), then averaged over the targets that have {LEAST} or more; ± is the "
        f"standard error over targets, p the share of {SHUFFLES:,} shuffles within targets that "
        f"are as far from 0. The ratio {PREDICTORS['grad_var']} is known for {known} of {cells} "
        "pairs of target and method only: near a stationary point |E g|² is not significantly "
        "above zero, so its rows speak for methods that are still moving. "
        f"{PREDICTORS['grad_cov']} is known for {seen}, but has the units of the loss: it is "
        f"compared among the {REGRESSIONS}, which all minimise a mean of |u − T|², and over all "
        "methods with that caveat."
    )
    claims = tuple(
        _claim(pooled[REGRESSIONS, "grad_cov", outcome], outcome) for outcome in OUTCOMES
    )
    return Answer(DataFrame(rows), words, claims)


def medians(scores: DataFrame) -> DataFrame:
    """(target, sampler) rows with the median over seeds of the size of each score."""
    names = [*PREDICTORS, *OUTCOMES]
    fair = ~scores["sampler"].map(is_control)
    part = scores[fair & scores["metric"].isin(names) & scores["value"].notna()]
    part = part.assign(size=part["value"].abs())
    wide = part.pivot_table(
        index=["target", "sampler"], columns="metric", values="size", aggfunc="median", sort=False
    ).reindex(columns=names)
    wide = wide.reset_index()
    wide["family"] = [next(f.name for f in FAMILIES if f.has(name)) for name in wide["sampler"]]
    return wide


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """The correlation of the ranks, ties shared."""
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def pool(table: DataFrame, predictor: str, outcome: str) -> Pooled:
    rng = np.random.default_rng(0)
    correlations, shuffled = [], np.zeros(SHUFFLES)
    for _, of_target in table.groupby("target", sort=False):
        x, y = of_target[[predictor, outcome]].dropna().to_numpy().T
        if len(x) < LEAST or len(set(x)) == 1 or len(set(y)) == 1:
            continue
        a, b = (_standard(rankdata(v)) for v in (x, y))
        correlations.append(float(a @ b))
        shuffled += rng.permuted(np.tile(a, (SHUFFLES, 1)), axis=1) @ b
    n = len(correlations)
    if n == 0:
        return Pooled(math.nan, math.nan, math.nan, 0)
    mean = float(np.mean(correlations))
    se = float(np.std(correlations, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    extreme = int((np.abs(shuffled / n) >= abs(mean) - 1e-12).sum())
    return Pooled(mean, se, (extreme + 1) / (SHUFFLES + 1), n)


def _standard(ranks: np.ndarray) -> np.ndarray:
    centred = ranks - ranks.mean()
    return np.asarray(centred / np.linalg.norm(centred))


def _text(pooled: Pooled) -> str:
    if pooled.targets == 0:
        return "–"
    return f"{pooled.rho:+.2f} ± {pooled.se:.2f}, p = {pooled.p:.2g} ({pooled.targets} targets)"


def _claim(pooled: Pooled, outcome: str) -> Claim:
    low, high = pooled.rho - 2 * pooled.se, pooled.rho + 2 * pooled.se
    return Claim(
        f"Among the {REGRESSIONS}, a larger gradient variance predicts a larger "
        f"{OUTCOMES[outcome]} (mean rank correlation of {PREDICTS} or more)",
        verdict(holds=low > PREDICTS, fails=high < PREDICTS),
        _text(pooled),
    )


def _draw(path: Path, table: DataFrame) -> None:
    with picture(path, len(PREDICTORS), len(OUTCOMES), (3.1, 2.6)) as (_, grid):
        for i, predictor in enumerate(PREDICTORS):
            for j, outcome in enumerate(OUTCOMES):
                _panel(grid[i, j], table, predictor, outcome)
        grid[0, 0].legend(fontsize=6.5)


def _panel(axes: Axes, table: DataFrame, predictor: str, outcome: str) -> None:
    known = table.dropna(subset=[predictor, outcome])
    for colour, family in zip(COLOURS, FAMILIES, strict=False):
        of_family = known[known["family"] == family.name]
        axes.scatter(
            of_family[predictor], of_family[outcome], s=9, color=colour, label=family.name, lw=0
        )
    if len(known):
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel(PREDICTORS[predictor], color=GREY)
    axes.set_ylabel(OUTCOMES[outcome], color=GREY)


rank_agreement = Study("rank_agreement", "Does gradient variance predict final error?", run)
