"""`tiltbench reference`: what is asked for is checked first, since the chains run for minutes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltbench.cli.words import RESULTS, seeds, setting, whole
from tiltbench.plan.cell import Limits
from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import build_target, parse
from tiltbench.records.command import command
from tiltbench.targets.registry import TARGETS

if TYPE_CHECKING:
    from tiltbench.reference.certify import Effort
    from tiltbench.targets.target import Density


def reference(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.engine.local import jobs_for
    from tiltbench.reference.certify import conduct_all
    from tiltbench.samplers.sampler import Unsupported

    chosen = _set_targets(options.names, options.set)
    made = [_density(target) for target in chosen]
    efforts = [_effort(target, options) for target in made]
    out = Path(options.out) if options.out else RESULTS / "references"
    stores: list[Path | None] = [None] * len(made)
    if not options.out:
        stores = [_store(target, effort) for target, effort in zip(made, efforts, strict=True)]
    if options.jobs != "auto":
        whole(options.jobs, "--jobs")
    jobs = jobs_for(options.jobs, "cpu", Limits())
    try:
        found = conduct_all(
            chosen, efforts, stores, seeds(options.seed)[0], out, command(arguments), jobs
        )
    except Unsupported as error:  # too few points
        raise Refused(str(error)) from error
    return 0 if all(verdict.passed for verdict in found) else 1


def _density(target: dict[str, Any]) -> Density:
    from tiltbench.targets.target import Density

    made = build_target(target)
    if not isinstance(made, Density):
        raise Refused(f"{made.name} is no density: references are made for densities only")
    return made


def _effort(target: Density, options: Namespace) -> Effort:
    from tiltbench.reference.certify import LADDERS, usual

    effort = usual(target)
    if options.points is not None:
        effort = effort._replace(points=whole(options.points, "--points"))
    if options.ladders is not None:
        effort = effort._replace(ladders=whole(options.ladders, "--ladders"))
    if effort.ladders < LADDERS:
        raise Refused(
            f"--ladders {effort.ladders} leaves the tests no error to judge by; write "
            f"{LADDERS} or more"
        )
    return effort


def _store(target: Density, effort: Effort) -> Path | None:
    """Where the reference is to lie if it passes; None where none is needed.

    Raises Refused where one of other parameters or a better one would be lost."""
    from tiltbench.reference.certify import outdone
    from tiltbench.targets.reference import Referenced

    if not isinstance(target, Referenced):
        return None
    if target != type(target)():
        raise Refused(
            f"the stored reference is of {target.name} as it stands; name a folder for one with "
            "other parameters with --out"
        )
    try:
        worse = outdone(target, effort)
    except ValueError as error:  # a damaged one
        raise Refused(str(error)) from error
    if worse:
        raise Refused(worse)
    return target.home


def _set_targets(names: Sequence[str], settings: Sequence[str]) -> list[dict[str, Any]]:
    """The specs of targets named on the command line, with the parameters of --set."""
    chosen = [parse(name) for name in names]
    for text in settings:
        owner, key, values = setting(text)
        mine = [target for target in chosen if target["name"] == owner]
        if not mine or len(values) > 1:
            raise Refused(f"--set {text} must set one value of a target that is named")
        for target in mine:
            target["params"][key] = values[0]
    for target in chosen:
        TARGETS.find(target["name"])
    return chosen
