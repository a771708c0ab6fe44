"""A finished run, loaded again from its files: what it trained, to draw more from."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tiltbench.plan.budget import UNLIMITED
from tiltbench.plan.errors import Refused
from tiltbench.plan.spec import build_sampler, build_target
from tiltbench.records.files import read_arrays
from tiltbench.records.located import located
from tiltbench.records.provenance import deciding_code, same_code
from tiltbench.records.record import Record
from tiltbench.records.validate import validated
from tiltbench.run.failures import explain
from tiltbench.run.meter import Meter
from tiltbench.run.states import copied
from tiltbench.run.streams import generator
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.samplers.weights import Estimate
from tiltbench.targets import precision
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import Problem, pose
from tiltbench.targets.settings import standard
from tiltbench.targets.target import Target
from tiltbench.trained.chosen import title
from tiltbench.trained.restored import restored

ENDLESS = Cost(UNLIMITED, UNLIMITED)
STATE = ".state.safetensors"
PARTS = ("target", "sampler")


@dataclass(frozen=True)
class Loaded:
    """What a run has trained: `draw` as often as wanted, on `device`.

    `state` is what the sampler draws from, `problem` the target as it sees it, with the recipe's
    chain still to be posed; `warning` is a sentence where the code is not that of the run, else
    empty."""

    record: Record
    runs: Path
    target: Target
    sampler: Sampler[Any]
    state: Any
    device: str
    warning: str
    meter: Meter = field(repr=False)
    problem: Problem = field(repr=False)

    @property
    def calls(self) -> Cost:
        """Of the target, that all drawing has taken so far: values and gradients, at a point."""
        return self.meter.spent

    def draw(self, n: int, seed: int = 0) -> Draws:
        """n draws, with log_w (n,) where the sampler weighs them: E[exp(log_w) f(x)] = Z E_p*[f].
        Fewer where the run holds no more.

        Other than the run's own draws for every seed, and the same for the same seed, to the bit
        on one kind of machine: the stream is that of the run's seed and of `seed`.  Raises Refused
        where they are not finite or do not fit into memory."""
        if n < 1 or seed < 0:
            what = f"{n} draws" if n < 1 else f"seed {seed}"
            raise Refused(f"{what} cannot be had; ask for 1 or more, with a seed of 0 or more")
        return self._draw(n, 1 + seed)

    def as_recorded(self) -> Draws:
        """The run's own draws, made again: equal to the recorded ones on the same machine."""
        return self._draw(int(self.record.spec["draws"]), None)

    def traced(self, x: Float[Tensor, "n d"], part: str = "") -> Float[Tensor, " n"]:
        """log_w (n,) float64 of reverse paths from points x, given which
        E[exp(-log_w)] = q(x) / rho(x), q being the density of what `draw` returns.

        `part` names the stream of random numbers.  Raises Refused where the sampler has no paths,
        or its base's own chain cannot be reversed."""
        name, record = self.record.labels["sampler"], self.record
        if not self.problem.base.reversed_exactly:
            raise Refused(f"paths of {name} cannot be reversed along the chain that is weighed")
        with standard(record.spec["seed"]):
            _as_then(record, self.device)
            source = generator(record.spec["seed"], "reverse", self.device, stream(part))
            x = x.to(self.device)
            try:
                paths = self.sampler.reverse(self.problem, copied(self.state), x, source)
            except Exception as error:
                why = explain(error)[1].rstrip(".")
                raise Refused(f"reverse paths of {name} failed: {why}") from error
        if paths is None:
            raise Refused(f"{name} has no reverse paths")
        log_w = paths.log_w.detach().double().cpu()
        if log_w.shape != (len(x),) or bool(log_w.isnan().any()):
            raise Refused(f"weights of traced paths of {name} are not numbers, one a point")
        return log_w

    def _draw(self, n: int, part: int | None) -> Draws:
        record, log_Z = self.record, None
        source = generator(record.spec["seed"], "draw", self.device, part)
        with standard(record.spec["seed"]):
            _as_then(record, self.device)
            try:
                draws = self.sampler.draw(self.problem, self.state, n, source)
                draws = validated(draws, n, self.target.dim)
            except Exception as error:
                why = explain(error)[1].rstrip(".")
                raise Refused(f"drawing from run {record.id} failed: {why}") from error
        if draws.log_Z is not None:  # learned in training: as it was recorded, steps included
            log_Z = _recorded_log_Z(self.runs, record.id)
        return draws._replace(log_Z=log_Z or draws.log_Z)


def load(runs: Path, record: Record, device: str = "cpu") -> Loaded:
    """The run `record` of the folder `runs`, on "cpu" or "cuda", whichever it ran on.

    Raises Refused where it has not finished, where its files or the code of its target or sampler
    are gone, where they do not fit one another, or where nothing was trained (`restored`)."""
    run, name = record.id, record.spec["sampler"]["name"]
    if name == "imported":
        raise Refused(f"the draws of run {run} were imported: draw more where they were made")
    if not record.status.finished:
        raise Refused(
            f"run {run} ended as {record.status} ({record.reason}): it has trained nothing to draw "
            "from; run it again with --retry"
        )
    spec, there = record.spec, {part: located(record, runs, part) for part in PARTS}
    try:
        target, sampler = build_target(there["target"]), build_sampler(there["sampler"])
    except Exception as error:
        why = " ".join(str(error).split())
        raise Refused(
            f"run {run} ({title(record)}) cannot be built here: {why}; put its file back, or name "
            "it with --plugin"
        ) from error
    if target.version != spec["target_version"]:
        raise Refused(
            f"{spec['target']['name']} is version {target.version} here and was version "
            f"{spec['target_version']} in run {run}: run it again"
        )
    meter = Meter(ENDLESS)
    with standard(spec["seed"]):
        _as_then(record, device)
        try:
            problem = pose(target, sampler.reference, meter.watch)
            source = generator(spec["seed"], "train", device)
            fresh = sampler.init(problem, Cost(*spec["budget"]["train"]), source)
        except Exception as error:
            raise Refused(f"run {run} cannot begin here: {explain(error)[1]}") from error
        state = _filled(sampler, fresh, runs / f"{run}{STATE}", device)
    warning = ""
    if not same_code(record.code, deciding_code(there["target"], there["sampler"])):
        commit = str(record.code.get("commit") or "")[:9]
        warning = (
            f"run {run} was made by other code than this: its draws may be others than they would "
            f"have been{f'; commit {commit} has that code' if commit else ''}"
        )
    return Loaded(record, runs, target, sampler, state, device, warning, meter, problem)


def stream(text: str) -> int:
    """A number of a text, the same on every machine, that names a stream of random numbers."""
    return zlib.crc32(text.encode())


def _as_then(record: Record, device: str) -> None:
    """The threads and the rounding that the run had."""
    threads = record.env.get("threads")
    torch.set_num_threads(threads if isinstance(threads, int) and threads > 0 else 1)
    if record.spec.get("tf32") and device == "cuda":
        precision.write(precision.TF32)


def _filled(sampler: Sampler[Any], fresh: Any, file: Path, device: str) -> Any:
    """The state of the file.  Raises Refused."""
    again = "the same `tiltbench run` with --force makes it anew"
    tensors: dict[str, Tensor] = {}
    try:
        if file.is_file():
            tensors = load_file(file, device=device)
        return restored(sampler, fresh, tensors)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        if not file.is_file():
            raise Refused(f"{file} is not there, which holds what was trained; {again}") from error
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise Refused(
            f"{file} does not fit {sampler.name} as it is here ({why}); {again}"
        ) from error
    except Exception as error:
        raise Refused(explain(error)[1]) from error


def _recorded_log_Z(runs: Path, run: str) -> Estimate | None:
    try:
        stored = read_arrays(runs / f"{run}.npz").get("log_Z")
    except (OSError, ValueError):  # the draws are not needed for anything else
        return None
    return None if stored is None else Estimate(float(stored[0]), float(stored[1]), int(stored[2]))
