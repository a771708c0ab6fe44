"""`tiltbench reference`: long chains that must pass tests before a target's truth rests on them.

What is asked for is checked first, since the chains run for minutes."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tiltbench.cli.arguments import RESULTS, Setting, automatic, natural, setting, whole
from tiltbench.cli.options import Typed, option, repeated
from tiltbench.plan.cell import Limits
from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import build_target, parse, spec
from tiltbench.records.command import command
from tiltbench.targets.registry import TARGETS

if TYPE_CHECKING:
    from tiltbench.reference.evidence import Effort
    from tiltbench.targets.target import Density


def reference(
    names: Annotated[tuple[str, ...], option("targets, as in `run --targets`")],
    /,
    *,
    settings: Annotated[
        tuple[Setting, ...],
        repeated("a parameter of a target", "NAME.KEY=A", setting, "--set"),
    ] = (),
    seed: Annotated[int, option("of the chains (default 0)", "N", natural)] = 0,
    points: Annotated[
        int | None,
        option(
            "of tempering, and again of SMC (default 12 million and 300,000 a dimension)",
            "N",
            whole,
        ),
    ] = None,
    ladders: Annotated[
        int | None,
        option("independent ladders of temperatures, 4 or more (default 32)", "N", whole),
    ] = None,
    out: Annotated[
        str | None, option("write here, certified or not, and nothing anywhere else", "DIR")
    ] = None,
    jobs: Annotated[
        int | None, option("targets at a time (default auto: one a core)", "N", automatic)
    ] = None,
    typed: Typed,
) -> int:
    """Certify a reference: parallel tempering from dispersed starts, R-hat, virial test, agreement
    of halves, log Z in two ways.

    Where a target's truth is unknown, a reference that passes is stored, with the package or beside
    path/to/file.py, and is the target's truth from then on.  `tiltbench score` then scores stored
    runs again.  Where a truth is known, it is compared with the chains.

    Exit code: 0 when every test passes, 1 when one fails, 2 for a wrong argument.
    """
    from tiltbench.engine.local import jobs_for
    from tiltbench.reference.certify import Broken, conduct_all

    targets = [_density(target).certified_as for target in _set_targets(names, settings)]
    chosen = [spec(target) for target in targets]
    efforts = [_effort(target, points, ladders) for target in targets]
    folder = Path(out) if out else RESULTS / "references"
    stores: list[Path | None] = [None] * len(targets)
    if not out:
        stores = [_store(target, effort) for target, effort in zip(targets, efforts, strict=True)]
    at_once = jobs_for(jobs, "cpu", Limits())
    try:
        certificates = conduct_all(chosen, efforts, stores, seed, folder, command(typed), at_once)
    except Broken as error:  # too few points, or a log rho that raises
        raise Refused(f"no reference of {error}") from error
    return 0 if all(certificate.passed for certificate in certificates) else 1


def _density(target: dict[str, Any]) -> Density:
    from tiltbench.targets.target import Density

    built = build_target(target)
    if not isinstance(built, Density):
        raise Refused(f"{built.name} is no density: references are made for densities only")
    return built


def _effort(target: Density, points: int | None, ladders: int | None) -> Effort:
    from tiltbench.reference.certify import usual
    from tiltbench.reference.evidence import LADDERS

    effort = usual(target)
    if points is not None:
        effort = effort._replace(points=points)
    if ladders is not None:
        effort = effort._replace(ladders=ladders)
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
    from tiltbench.targets.reference import needs_reference

    if not needs_reference(target):
        return None
    if not _standard(target):
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


def _standard(target: Density) -> bool:
    """Whether the target has the parameters that its class has by default."""
    try:
        return bool(target == type(target)().certified_as)
    except (TypeError, ValueError):  # a parameter without a default, or that must be given
        return False


def _set_targets(names: Sequence[str], settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """The specs of targets named on the command line, with the parameters of --set."""
    chosen = [parse(name) for name in names]
    for owner, key, values in settings:
        mine = [target for target in chosen if fnmatchcase(target["name"], owner)]
        if not mine or len(values) > 1:
            raise Refused(f"--set {owner}.{key} must set one value of a target that is named")
        for target in mine:
            target["params"][key] = values[0]
    for target in chosen:
        TARGETS.find(target["name"])
    return chosen
