"""`tiltbench check NAME|path/to/file.py`: the contract, in plain sentences, for one plug-in."""

from __future__ import annotations

import difflib
from typing import Any

from tiltbench.check import loss as check_loss
from tiltbench.check import metric as check_metric
from tiltbench.check import sampler as check_sampler
from tiltbench.check import target as check_target
from tiltbench.check.findings import Finding
from tiltbench.metric import Metric
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import METRICS, Spec, build_sampler, build_target, parse
from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Loss
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.samplers.sampler import Sampler
from tiltbench.targets.files import split
from tiltbench.targets.registry import TARGETS, UnknownName
from tiltbench.targets.settings import standard
from tiltbench.targets.target import Target

__all__ = ["Finding", "check"]


@standard()
def check(name: str) -> list[Finding]:
    """What holds and what does not of a target, loss, sampler or metric.

    `name` is a registered name, `name[key=value]` or path/to/file.py.  Every check is deterministic
    (fixed seeds); a statistical one fails a correct plug-in once in a million.  Raises UnknownName
    or BadSpec for a name that is nowhere; a file that cannot be used is a finding."""
    spec = parse(name)
    file = split(spec["name"])
    if file is not None:
        if not file.path.is_file():
            raise UnknownName(f"there is no file {file.path}; check the path")
        return _check_file(spec)
    if spec["name"] in TARGETS.entries:
        return check_target.check(build_target(spec))
    if spec["name"] in SAMPLERS.entries:
        return _of_sampler(build_sampler(spec))
    if spec["name"] in METRICS.entries:
        return check_metric.check(METRICS.load(spec["name"]))
    known = [*TARGETS.entries, *SAMPLERS.entries, *METRICS.entries]
    near = difflib.get_close_matches(spec["name"], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else "see `tiltbench list targets` and `samplers`"
    raise UnknownName(f"no target, loss, sampler or metric is called {spec['name']!r}; {hint}")


def _of_sampler(sampler: Sampler[Any]) -> list[Finding]:
    """Of a loss its optimum, then what it does in training."""
    findings = check_loss.check(sampler) if isinstance(sampler, Diffusion) else []
    return [*findings, *check_sampler.check(sampler)] if all(f.ok for f in findings) else findings


def _check_file(spec: Spec) -> list[Finding]:
    try:
        loaded = TARGETS.load(spec["name"])
    except UnknownName as error:
        return [Finding(False, str(error), "mend the file as the sentence says")]
    except Exception as error:
        what = f"importing {spec['name']} raises {type(error).__name__}: {error}"
        return [Finding(False, what, "make `python` run the file without an error")]
    try:
        if _is(loaded, Target):
            return check_target.check(build_target(spec))
        if isinstance(loaded, Loss | Preset) or _is(loaded, Sampler):
            return _of_sampler(build_sampler(spec))
        if isinstance(loaded, Metric):
            return check_metric.check(loaded)
    except BadSpec as error:
        return [
            Finding(
                False,
                str(error),
                "decorate it with @dataclass(frozen=True), give its fields defaults, and define "
                'what its base class leaves open (Truth("unknown") is an answer to `truth`)',
            )
        ]
    what = f"{spec['name']} holds neither a target nor a loss nor a sampler nor a metric"
    mend = "extend Density, Tilt or Sampler, or write `thing = Loss(...)` or `thing = Metric(...)`"
    return [Finding(False, what, mend)]


def _is(thing: Any, kind: type) -> bool:
    return isinstance(thing, type) and issubclass(thing, kind)
