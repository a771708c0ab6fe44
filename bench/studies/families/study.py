"""Which family of methods wins where, at equal calls and at equal compute?  From the stored runs of
`standard`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tiltbench.plan.toml import load_suite
from tiltbench.records.files import write_bytes
from tiltbench.records.published import results
from tiltbench.report.compare import LEVEL
from tiltbench.report.frame import frames_of
from tiltbench.report.pictures.style import COLOURS, GREY, picture
from tiltbench.report.ranks import times
from tiltbench.report.tables.grid import frame_grid
from tiltbench.studies.common.stored import folder_of
from tiltbench.studies.families.conclusions import conclusions
from tiltbench.studies.families.paired import SignFlipTest, paired
from tiltbench.studies.families.stands import (
    FAMILIES,
    MOST,
    PairedTest,
    Stand,
    nearest,
    paired_tests,
    ratio,
    read,
)
from tiltbench.study import Answer, Claim, Study, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUITE = "standard"
READINGS = {"compute": "equal compute", "calls": "equal calls"}


def run(folder: Path, device: str) -> Answer:
    from pandas import DataFrame

    frames = frames_of(results(folder_of(SUITE)))
    planned = {(t.label, s.label) for t, s in load_suite(SUITE).pairs}
    stands, unready = read(frames, planned)
    if not stands:
        raise FileNotFoundError(f"no seed of {SUITE} is complete on any target yet")
    tests = {reading: paired_tests(stands, reading) for reading in READINGS}
    _draw(folder / "families.png", stands)
    concluded = conclusions(stands, tests["compute"])
    write_bytes(folder / "conclusions.md", concluded.encode())
    pairs = DataFrame(list(_pair_lines(tests)))
    methods = DataFrame(list(_method_lines(stands)))
    return Answer(
        DataFrame(list(_target_lines(stands))),
        "\n\n".join(
            [concluded, _summary(stands, unready), frame_grid(pairs), METHODS, frame_grid(methods)]
        ),
        tuple(_claims(tests)),
    )


def _target_lines(stands: Sequence[Stand]) -> Iterator[dict[str, str]]:
    """A target a line: the first method and the first of every other family."""
    for target in dict.fromkeys(s.target for s in stands):
        here = [s for s in stands if s.target == target]
        line = {"target": target, "seeds": str(max(len(s.off["calls"]) for s in here))}
        for reading, label in READINGS.items():
            best = {f: nearest(here, f, reading) for f in FAMILIES}
            known = [s for s in best.values() if s is not None]
            known.sort(key=lambda s: s.mean(reading))
            line[f"first at {label}"] = _named(known[:1], reading)
            line[f"then, at {label}"] = _named(known[1:3], reading)
        yield line


METHODS = (
    "Each method over the targets it applies to, nearest first: geometric mean, and in brackets "
    "one standard error below and above it."
)


def _method_lines(stands: Sequence[Stand]) -> Iterator[dict[str, str]]:
    by_method: dict[str, list[Stand]] = {}
    for stand in stands:
        by_method.setdefault(stand.method, []).append(stand)

    def over(mine: Sequence[Stand], reading: str) -> SignFlipTest:
        return paired([s.mean(reading) for s in mine if s.known(reading)])

    for method, mine in sorted(by_method.items(), key=lambda pair: over(pair[1], "compute").mean):
        line = {"method": f"`{method}`", "family": mine[0].family, "targets": str(len(mine))}
        for reading, label in READINGS.items():
            mean_pair = over(mine, reading)
            line[f"worst score / floor, at {label}"] = ratio(mean_pair)
        yield line


def _named(stands: Iterable[Stand], reading: str) -> str:
    return ", ".join(f"`{s.method}` {times(s.mean(reading))} ({s.family})" for s in stands)


def _pair_lines(tests: Mapping[str, Sequence[PairedTest]]) -> Iterator[dict[str, str]]:
    for of_pair in zip(*tests.values(), strict=True):
        line = {"families": f"{of_pair[0].a} − {of_pair[0].b}"}
        for test, label in zip(of_pair, READINGS.values(), strict=True):
            line[f"at {label}"] = str(test)
            nearer = f"**{test.nearer}**" if test.nearer else "not significantly different"
            line[f"nearer, at {label}"] = nearer
        yield line


def _claims(tests: Mapping[str, Sequence[PairedTest]]) -> Iterator[Claim]:
    """What papers on learned samplers take for granted, or are read to say."""
    for reading, label in READINGS.items():
        for test in tests[reading]:
            if test.b == "classical":
                yield Claim(
                    f"At {label} the {test.a} come nearer to exact draws than classical methods",
                    verdict(test.nearer == test.a, test.nearer == test.b),
                    str(test),
                )


def _summary(stands: Sequence[Stand], unready: int) -> str:
    targets = len({s.target for s in stands})
    seeds = max(len(s.off["calls"]) for s in stands)
    members = "; ".join(
        f"*{family}*: {', '.join(f'`{m}`' for m in methods)}"
        for family in FAMILIES
        if (methods := dict.fromkeys(s.method for s in stands if s.family == family))
    )
    left = (
        f" {unready} pairs of target and seed are left out: a method has no record there yet."
        if unready
        else ""
    )
    return (
        f"From the stored runs of `{SUITE}`: {targets} targets, up to {seeds} seeds.{left} A "
        "number is a method's worst score as a multiple of the edge of the noise floor, the "
        "geometric mean over seeds; up to 1 it is as good as exact draws, and a run that failed or "
        f"lies farther off counts {2**MOST:,.0f}. At equal compute everybody is read at the least "
        "FLOP that a learned method of the table has spent, at equal calls at the least calls; a "
        "method of which that is not known is left out of that column.\n\n"
        f"The families. {members}.\n\n"
        "Each two families are compared on the same targets. On a target a family is represented "
        "by that of its methods which is nearest on the *other* targets, so that a family gains "
        "nothing by its number of methods. p is that of the exact sign-flip test over targets, "
        "after Holm's correction for the number of pairs; below "
        f"{LEVEL:g} the nearer family is named."
    )


def _draw(path: Path, stands: Sequence[Stand]) -> None:
    """Every method on every target, coloured by family."""
    targets = list(dict.fromkeys(s.target for s in stands))
    size = (3.4, 0.8 + 0.26 * len(targets))
    with picture(path, 1, len(READINGS), size) as (figure, grid):
        for panel, (reading, label) in zip(grid[0], READINGS.items(), strict=True):
            _panel(panel, stands, targets, reading)
            panel.set_xlabel(f"log2(worst score / floor), {label}", color=GREY)
            panel.set_yticks(range(len(targets)), targets if panel is grid[0, 0] else [])
            panel.invert_yaxis()
        named = grid[0, 0].get_legend_handles_labels()
        figure.legend(*named, loc="outside upper center", ncols=len(FAMILIES), fontsize=7)


def _panel(axes: Axes, stands: Sequence[Stand], targets: Sequence[str], reading: str) -> None:
    for i, (family, colour) in enumerate(zip(FAMILIES, COLOURS, strict=False)):
        mine = [s for s in stands if s.family == family and s.known(reading)]
        rows = [targets.index(s.target) + 0.13 * (i - 2) for s in mine]
        axes.scatter([s.mean(reading) for s in mine], rows, s=11, color=colour, lw=0, label=family)


families = Study("families", "Which family of methods wins where?", run)
