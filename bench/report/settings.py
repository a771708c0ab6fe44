"""Methods that were run with several settings: the best of each, and what every parameter does.

**The rule.**  A setting is ranked on every target by the doublings of its worst score (`ranks`),
on the first half of the seeds; its mean rank over targets chooses one setting for all of them, and
ties go to the first.  What is shown is of the other half: the luckiest of many is not the best, and
its luck does not come twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tiltbench.report.board import summaries
from tiltbench.report.frame import Frames
from tiltbench.report.ranks import Judged, broken_seeds, judged

if TYPE_CHECKING:
    from pandas import DataFrame

IMPORTED = "imported"
METHODICAL = ("recipe", "explore", "replay")  # parts by which two methods of one loss differ


class Setting(NamedTuple):
    label: str  # of the sampler, as every table has it
    params: Mapping[str, Any]  # those that differ among the settings of its method
    short: str  # "log_variance, lr .01"


class Method(NamedTuple):
    name: str
    settings: tuple[Setting, ...]

    @property
    def varied(self) -> tuple[str, ...]:
        """The parameters that differ."""
        return tuple(dict.fromkeys(key for each in self.settings for key in each.params))


class BestSetting(NamedTuple):
    method: Method
    setting: Setting
    shown: Mapping[str, Judged]  # by target, on the seeds that did not choose


class Choice(NamedTuple):
    """Of every method its best setting; methods of one setting stand beside them."""

    chosen_on: tuple[int, ...]  # seeds; () where there are too few to choose and to show
    shown_on: tuple[int, ...]
    targets: tuple[str, ...]
    best: tuple[BestSetting, ...]  # () also where nothing is known to choose by


def methods(frames: Frames) -> list[Method]:
    """By the sampler's registered name and the parts that make it another method, in the order of
    the records; settings by their labels.  A method of one setting goes by its label."""
    by_method: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}
    for record in frames.records:
        given = record.spec["sampler"]
        if given["name"] != IMPORTED:
            params = dict(_flat(given["params"]))
            key = given["name"], *(str(params.get(part)) for part in METHODICAL)
            by_method.setdefault(key, {}).setdefault(record.labels["sampler"], params)
    return [
        Method(name, tuple(_settings(name, mine)))
        for key, mine in by_method.items()
        for name in [key[0] if len(mine) > 1 else next(iter(mine))]
    ]


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Parts by their names, and their parameters behind a dot."""
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield prefix + key, value.get("name", "")
            yield from _flat(value.get("params", {}), f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _settings(name: str, by_label: Mapping[str, Mapping[str, Any]]) -> Iterator[Setting]:
    every = list(by_label.values())
    keys = list(dict.fromkeys(key for params in every for key in params))
    differ = [key for key in keys if len({repr(params.get(key)) for params in every}) > 1]
    for label, params in by_label.items():
        mine = {key: params[key] for key in differ if key in params}
        yield Setting(
            label, mine, ", ".join([name, *(_short(k, v, differ) for k, v in mine.items())])
        )


def _short(key: str, value: Any, among: Sequence[str]) -> str:
    """`lr .01`; of a parameter of a part its last word, where no other ends in it."""
    last = key.rpartition(".")[2]
    clear = sum(other.rpartition(".")[2] == last for other in among) == 1
    return f"{last if clear else key} {number(value)}"


def number(value: Any) -> str:
    """.01 for 0.01, 3e-5 for 3e-05."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    text = f"{value:g}".replace("e-0", "e-").replace("e+0", "e")
    return text.removeprefix("0") if text.startswith("0.") else text.replace("-0.", "-.")


def varied(frames: Frames) -> bool:
    """Whether any method was run with several settings."""
    return any(len(method.settings) > 1 for method in methods(frames))


def choice(frames: Frames) -> Choice:
    """The best setting of every method, of each target at its largest budget."""
    scores = _largest(frames.scores)
    seeds = sorted({int(seed) for seed in scores["seed"]})
    half = len(seeds) // 2
    chosen_on, shown_on = tuple(seeds[:half]), tuple(seeds[half:])
    targets = tuple(dict.fromkeys(map(str, scores["target"])))
    if not half:
        return Choice((), tuple(seeds), targets, ())
    first, second = standings(scores, chosen_on), standings(scores, shown_on)
    if not any(first.values()):  # as where every truth is unknown
        return Choice(chosen_on, shown_on, targets, ())
    best = []
    for method in methods(frames):
        setting = _best(method, targets, first)
        shown = {t: second[t][setting.label] for t in targets if setting.label in second[t]}
        best.append(BestSetting(method, setting, shown))
    return Choice(chosen_on, shown_on, targets, tuple(best))


def standings(scores: DataFrame, seeds: Sequence[int]) -> dict[str, dict[str, Judged]]:
    """By target and sampler, on these seeds."""
    mine = scores[scores["seed"].isin(seeds)]
    return {
        str(target): judged(summaries(rows), broken_seeds(rows))
        for target, rows in mine.groupby("target", sort=False)
    } | {str(t): {} for t in set(scores["target"]) - set(mine["target"])}


def _best(
    method: Method, targets: Sequence[str], judgements: Mapping[str, Mapping[str, Judged]]
) -> Setting:
    from scipy.stats import rankdata

    rows = []
    for target in targets:
        off = [
            judgements[target][s.label].doublings if s.label in judgements[target] else math.inf
            for s in method.settings
        ]
        if min(off) < math.inf:
            rows.append(rankdata(off))
    return method.settings[int(np.mean(rows, axis=0).argmin()) if rows else 0]


def _largest(scores: DataFrame) -> DataFrame:
    """Of each target the rows of its largest budget."""
    most = scores.groupby("target")["budget"].transform("max")
    return scores[scores["budget"] == most]
