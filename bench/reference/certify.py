"""`tiltbench reference NAME`: long chains, the tests they must pass, and what is kept of them.

A target whose truth is exact is compared with it; nothing is stored then.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tiltbench.plan.spec import Spec, build_target, label, spec
from tiltbench.processes import pool
from tiltbench.records.files import strict, write_bytes, write_json
from tiltbench.records.provenance import code_identity, environment
from tiltbench.reference.evidence import Effort, Evidence, gather, generator_of, minus_virial
from tiltbench.reference.resume import DiskKeeper
from tiltbench.reference.tests import (
    Test,
    against,
    combined,
    estimate,
    halves,
    mixing,
    two_ways,
    virial,
)
from tiltbench.rhat import rank_rhat
from tiltbench.run.failures import explain
from tiltbench.samplers.classical._leapfrog import spread_out
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.reference import Referenced, needs_reference, stated
from tiltbench.targets.settings import standard
from tiltbench.targets.target import Density
from tiltbench.targets.truths.certified import described, probed, reference_of
from tiltbench.targets.truths.facts import Truth
from tiltbench.targets.truths.stored import checksum

LEAST, A_DIMENSION = 12_000_000, 300_000  # points by default, and more for each dimension
MOST = 20_000  # rows stored: two sets of 10,000, the second for the floor of a distance
NUMBERS = 1_010_000  # stored at most: under 4 MB in single precision


class Broken(Exception):
    """Chains that could not be run; the message names the targets and says why."""


class Certificate(NamedTuple):
    tests: tuple[Test, ...]
    files: tuple[Path, ...]  # written

    @property
    def passed(self) -> bool:
        return all(test.passed for test in self.tests)


def conduct_all(
    targets: Sequence[Spec],
    efforts: Sequence[Effort],
    stores: Sequence[Path | None],
    seed: int,
    out: Path,
    command: str,
    jobs: int,
) -> list[Certificate]:
    """`conduct` for every target, its effort and its store, `jobs` at a time in processes of one
    thread each.  Raises Broken where chains cannot be run: the others have been."""
    with pool(min(jobs, len(targets))) as workers:
        waiting = {
            workers.submit(_conduct, target, effort, seed, out, store, command): k
            for k, (target, effort, store) in enumerate(zip(targets, efforts, stores, strict=True))
        }
        certificates, broken = {}, []
        for future in as_completed(waiting):
            k = waiting[future]
            try:
                text, certificates[k] = future.result()
            except Exception as error:
                broken.append(f"{label(build_target(targets[k]))}: {explain(error)[1]}")
            else:
                print(text, flush=True)
    if broken:
        raise Broken("; ".join(broken))
    return [certificates[k] for k in range(len(targets))]


def usual(target: Density) -> Effort:
    return Effort(LEAST + A_DIMENSION * target.rank)


def outdone(target: Density, effort: Effort) -> str:
    """Why the reference that lies in the target's home is not to be replaced by one of this effort;
    empty where it may be.  Raises ValueError where it is damaged."""
    old = reference_of(target)
    if old is None or not described(target, old):
        return ""
    if not isinstance(target, Referenced) and target.truth().unknown:
        return ""  # it is of a density that the file had before
    before = Effort(**old.facts["effort"])
    if effort.points >= before.points and effort.ladders >= before.ladders:
        return ""
    return (
        f"the stored reference of {target.name} took {before.points} points and {before.ladders} "
        f"ladders, more than {effort.points} and {effort.ladders}: ask for as many, name another "
        f"folder with --out, or delete {target.name}_reference.json in {target.home}"
    )


def _conduct(
    target: Spec, effort: Effort, seed: int, out: Path, store: Path | None, command: str
) -> tuple[str, Certificate]:
    lines: list[str] = []
    certificate = conduct(build_target(target), effort, seed, out, store, command, lines.append)
    return "\n".join(lines), certificate


@standard()
def conduct(
    target: Density,
    effort: Effort,
    seed: int,
    out: Path,
    store: Path | None,
    command: str,
    say: Callable[[str], None] = print,
) -> Certificate:
    """Runs the chains, tests them and writes <name>_reference.npz and .json.

    What passes of a target that needs a reference is written to `store` (to `out` where that is
    None), what fails and what needs none to `out`.
    """
    begun, cpu = time.monotonic(), time.process_time()
    identity = {
        "target": spec(target),
        "version": target.version,
        "effort": effort._asdict(),
        "seed": seed,
        "code": code_identity(),
    }
    keeper = DiskKeeper(out / f"{target.name}_reference.unfinished", identity, say)
    evidence = gather(target, effort, seed, keeper)
    tests = examine(target, evidence)
    say(f"{label(target)}, {effort.points:,} points of tempering, seed {seed}:")
    for test in tests:
        say(f"  {'ok ' if test.passed else 'BAD'} {test.sentence}")
    for line in _findings(evidence):
        say(f"      {line}")
    passed = all(test.passed for test in tests)
    needed = needs_reference(target)
    folder = store if passed and needed and store is not None else out
    rows = _rows(evidence.x, seed)
    raw = _packed(rows)
    stem = f"{target.name}_reference"
    about = strict(
        {
            **facts(target, evidence),
            "log_rho": probed(target, rows),
            "certified": passed,
            "tests": [_plain(test) for test in tests],
            "notes": dict(evidence.notes),
            "command": command,
            "effort": effort._asdict(),
            "seed": seed,
            "seconds": round(time.monotonic() - begun, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "code": code_identity(),
            "env": environment("cpu"),
        }
    )
    files = (folder / f"{stem}.npz", folder / f"{stem}.json")
    write_bytes(files[0], raw)
    write_json(files[1], {**about, "sha256": checksum(raw, about)})
    keeper.done()
    outcome = "NOT certified"
    if passed:
        outcome = _certified(store is not None) if needed else _checked(stated(target))
    say(f"  {outcome}; {files[1]}")
    return Certificate(tuple(tests), files)


def _findings(evidence: Evidence) -> list[str]:
    """Log Z and the shares of the basins, with errors."""
    log_Z, se = combined(evidence.tempering, evidence.smc)
    shares = [estimate(basin) for basin in evidence.basins]
    findings = [f"log Z {log_Z:.4f} +- {se:.4f}"]
    if shares:
        listed = ", ".join(f"{share.value:.3g} +- {share.se:.1g}" for share in shares)
        findings.append(f"shares of the basins {listed}")
    return findings


def _certified(stored: bool) -> str:
    return "certified: the truth of this target from now on" if stored else "certified"


def _checked(truth: Truth) -> str:
    """Of a target that has a truth of its own, which a reference does not replace."""
    alone = " (which has no log Z: those of the chains stand alone)" if truth.log_Z is None else ""
    return f"agrees with the truth it has, {truth.source}{alone}, and needs no other"


def _plain(test: Test) -> dict[str, Any]:
    return {"passed": test.passed, "sentence": test.sentence, "figures": dict(test.figures)}


def examine(target: Density, evidence: Evidence) -> tuple[Test, ...]:
    """Every test, whatever the others say."""
    tests = [
        mixing(evidence.watched),
        virial(evidence.virial, minus_virial(target)),
        halves(evidence.watched),
        two_ways(evidence.tempering, evidence.smc),
    ]
    known, estimates = _exact(target, evidence)
    if known:
        tests.append(against(known, estimates))
    return tuple(tests)


def _exact(
    target: Density, evidence: Evidence
) -> tuple[dict[str, tuple[float, float]], dict[str, Estimate]]:
    """What is known of the target without chains, and what they say of it."""
    if isinstance(target, Referenced):
        cells = target.basins()
        shares = (cells.share if cells is not None else None) or ()
        by_symmetry = {f"basin_{k}": (share, 0.0) for k, share in enumerate(shares)}
        return by_symmetry, {f"basin_{k}": estimate(y) for k, y in enumerate(evidence.basins)}
    truth = stated(target)
    known = {name: (o.mean, o.se) for name, o in truth.observables.items()}
    estimates = {name: estimate(evidence.statistics[name]) for name in known}
    if truth.modes is not None:
        for k, weight in enumerate(truth.modes.weight.tolist()):
            known[f"basin_{k}"], estimates[f"basin_{k}"] = (
                (weight, 0.0),
                estimate(evidence.basins[k]),
            )
    if truth.log_Z is not None:
        known |= dict.fromkeys(("log_Z_tempering", "log_Z_smc"), (truth.log_Z, truth.log_Z_se))
        estimates |= {"log_Z_tempering": evidence.tempering, "log_Z_smc": evidence.smc}
    return known, estimates


def facts(target: Density, evidence: Evidence) -> dict[str, Any]:
    """What `Referenced.truth` reads: the keys are its contract."""
    log_Z, se = combined(evidence.tempering, evidence.smc)
    worst = max(rank_rhat(chains) for chains in evidence.watched.values())
    chains, states = evidence.x.shape[:2]
    return {
        "target": spec(target),
        "version": target.version,
        "source": f"parallel tempering, {chains} ladders x {states} states, R-hat {worst:.4f}",
        "log_Z": log_Z,
        "log_Z_se": se,
        "count": min(MOST, NUMBERS // target.dim, chains * states),
        "statistics": {
            name: {"mean": (mean := estimate(y)).value, "sd": float(y.std()), "se": mean.se}
            for name, y in evidence.statistics.items()
        },
        "basins": [{"share": (mean := estimate(y)).value, "se": mean.se} for y in evidence.basins]
        or None,
    }


def _rows(x: Float[Tensor, "chains states d"], seed: int) -> Float[Tensor, "n d"]:
    """Single-precision rows spread evenly over chains and time."""
    chains, states, dim = x.shape
    count = min(MOST, NUMBERS // dim, chains * states)
    index = spread_out(chains, states, count, generator_of(seed, "rows"))
    return x.reshape(-1, dim)[index].float()


def _packed(rows: Float[Tensor, "n d"]) -> bytes:
    """The npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, x=rows.numpy())
    return file.getvalue()
