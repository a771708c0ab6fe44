"""Does every method reach the answer that is known?  From the stored scores of the oracle suite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tiltbench.report.pictures.style import GREY, INK, picture
from tiltbench.studies.common.stored import is_control, oracle_scores
from tiltbench.study import Answer, Study

if TYPE_CHECKING:
    from pandas import DataFrame, Series

TARGET = "tilt_linear"  # where every method but the negative controls must arrive
SLACK = 0.01  # nats


class Shown(NamedTuple):
    """A score as a map of colours between `low` and `high`."""

    metric: str
    label: str
    low: float
    high: float


PICTURES = {
    "oracle": Shown("log_Z_bar_err", "|Bennett error| (nats)", 1e-3, 10.0),
    "distance": Shown("energy_distance", "|energy distance|", 1e-3, 10.0),
}


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    scores = oracle_scores()
    here = scores[scores["target"] == TARGET]
    seeds = here["seed"].nunique()
    rows = [
        _table_row(name, of_method, seeds)
        for name, of_method in here.groupby("sampler", sort=False)
    ]
    table = DataFrame(rows)
    for name, shown in PICTURES.items():
        _draw(folder / f"{name}.png", scores, shown)
    judged = table[~table["method"].map(is_control)]
    others = [n for n in scores["sampler"].unique() if n not in set(table["method"])]
    reached = judged[(judged["log Z"] == "yes") & (judged["floor"] == "yes")]
    missed = [f"`{name}`" for name in judged["method"] if name not in set(reached["method"])]
    words = (
        f"`{TARGET}`, D = 2, {seeds} seed(s), {int(here['budget'].iloc[0]):,} points. *log Z*: "
        f"|Bennett error| below 3 standard errors + {SLACK:g} for every seed; *floor*: median "
        f"energy distance within 2 sd of what exact draws score. {len(reached)} of {len(judged)} "
        f"methods (negative controls left out) reach both"
        + (f"; those that do not: {', '.join(missed)}." if missed else ".")
        + (f" Not defined on this base: {', '.join(f'`{n}`' for n in others)}." if others else "")
    )
    return Answer(table, words)


def _table_row(name: str, scores: DataFrame, seeds: int) -> dict[str, str | float]:
    def of(metric: str) -> DataFrame:
        return scores[(scores["metric"] == metric) & scores["value"].notna()]

    bar, distance = of("log_Z_bar_err"), of("energy_distance")
    near = bar["value"].abs() < 3 * bar["se"] + SLACK
    sound = near & (bar["se"] < math.inf)  # an unknown or infinite error is no success
    middle = distance["value"].median()
    floor, sd = (distance[key].median() for key in ("floor_mean", "floor_sd"))
    return {
        "method": name,
        "runs": len(distance),
        "Bennett errors": ", ".join(_signed(row) for _, row in bar.iterrows()),
        "log Z": _yes(bool(sound.all()) and len(bar) == seeds),
        "energy distance": middle,
        "at the floor": f"{floor:.4f} ± {sd:.4f}",
        "floor": _yes(abs(middle - floor) < 2 * sd),
        "control_err": of("control_err")["value"].median(),
        "ess_model": of("ess_model")["value"].median(),
        "ess_target": of("ess_target")["value"].median(),
    }


def _signed(row: Series) -> str:
    return f"{row['value']:+.3f}±{row['se']:.3f}"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _draw(path: Path, scores: DataFrame, shown: Shown) -> None:
    """The score of every method on every target, median over seeds."""
    part = scores[(scores["metric"] == shown.metric) & scores["value"].notna()]
    part = part.assign(size=part["value"].abs())
    grid = part.pivot_table(
        index="sampler", columns="target", values="size", aggfunc="median", sort=False
    )
    with picture(path, 1, 1, (1.6 + 0.75 * len(grid.columns), 1.2 + 0.24 * len(grid))) as (
        figure,
        axes,
    ):
        panel = axes[0, 0]
        low, high = (math.log10(v) for v in (shown.low, shown.high))
        levels = grid.map(lambda v: math.log10(max(v, shown.low)) if v == v else math.nan)
        image = panel.imshow(
            levels.to_numpy(), cmap="viridis_r", vmin=low, vmax=high, aspect="auto"
        )
        panel.set_xticks(
            range(len(grid.columns)), grid.columns, rotation=40, ha="right", fontsize=7
        )
        panel.set_yticks(range(len(grid)), grid.index, fontsize=7)
        for (i, j), value in np.ndenumerate(grid.to_numpy()):
            dark = value == value and math.log10(max(value, shown.low)) > (low + high) / 2
            text = f"{value:.2g}" if value == value else "–"
            colour = "w" if dark else INK
            panel.text(j, i, text, ha="center", va="center", fontsize=6, color=colour)
        bar = figure.colorbar(image, ax=panel, shrink=0.6)
        bar.set_label(f"log10 {shown.label}", color=GREY)


oracle = Study("oracle", "Every method against the oracle", run)
