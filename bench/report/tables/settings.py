"""The best setting of each method as a table, in Markdown and on at most a page of LaTeX."""

from __future__ import annotations

import re

from tiltbench.report.ranks import Judged, times
from tiltbench.report.settings import BestSetting, Choice
from tiltbench.report.tables.grid import code, grid, text
from tiltbench.report.tables.latex import escaped, tabular, tex

ROWS, COLUMNS = 40, 6  # of a page
NUMBER = (
    "A number is the worst score over the edge of the noise floor; up to 1 it is as good as exact "
    "draws"
)


def markdown(choice: Choice) -> str:
    if choice.chosen_on and not choice.best:
        return (
            "No setting can be called the best: settings are chosen as methods are ranked, by "
            "scores that need a truth, and no run here has one. `tiltbench tune` chooses by what a "
            "method says of itself; `tiltbench reference` certifies a truth.\n"
        )
    if not choice.best:
        return (
            "One seed chooses and shows nothing: a setting is chosen on some seeds and shown on "
            "others, so run two or more (--seeds 4).\n"
        )
    heads = ["method", "settings", *map(code, choice.targets)]
    rows = [
        [code(each.setting.short), str(len(each.method.settings)), *_cells(each, choice)]
        for each in choice.best
    ]
    return (
        f"Of each method the setting with the best mean rank over targets on {_seeds(choice)[0]}; "
        f"the numbers are of {_seeds(choice)[1]}.\n\n{grid(heads, rows)}\n\n{NUMBER}.\n"
    )


def _cells(best: BestSetting, choice: Choice) -> list[str]:
    return [_cell(best.shown.get(target)) for target in choice.targets]


def _cell(judgement: Judged | None) -> str:
    if judgement is None:
        return "–"
    ratio = times(judgement.doublings)
    return ratio if judgement.level else f"{ratio} {text(judgement.worst.metric)}"


def _seeds(choice: Choice) -> tuple[str, str]:
    one, other = (
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        for seeds in (choice.chosen_on, choice.shown_on)
    )
    return one, other


def latex(name: str, choice: Choice) -> str:
    """Of more targets than fit the first, of more methods the first; the caption says how many are
    left out.  Empty where nothing could be chosen."""
    if not choice.best:
        return ""
    targets, best = choice.targets[:COLUMNS], choice.best[:ROWS]
    rows = [
        [escaped(b.setting.short), *(_tex(b.shown.get(target)) for target in targets)] for b in best
    ]
    left = [
        f"{len(whole) - len(kept)} more {what}"
        for whole, kept, what in (
            (choice.targets, targets, "targets"),
            (choice.best, best, "methods"),
        )
        if len(whole) > len(kept)
    ]
    caption = (
        f"{NUMBER}. The setting of each method was chosen on {_seeds(choice)[0]}; the numbers are "
        f"of {_seeds(choice)[1]}."
    )
    caption += f" Left out: {' and '.join(left)}." if left else ""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return tabular(f"{label}-settings", caption, ["", *map(escaped, targets)], [rows])


def _tex(judgement: Judged | None) -> str:
    if judgement is None:
        return "--"
    return tex(judgement.doublings)
