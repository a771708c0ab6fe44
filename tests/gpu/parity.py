"""CPU and GPU in float32 on the same noise: every registered sampler, network and target.

A short run is told three times with the same random numbers: on the CPU, on the GPU, and on the CPU
with every random number moved by about eight units of its last place.  The third says how far
rounding alone carries such a run, which for chaotic ones is far; the GPU may be off by SLACK times
that.  Differences are rms over the values of a tensor, relative to the rms of the CPU's.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from contextlib import contextmanager
from typing import Any

import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode

from tests.gpu.section import Notes, Visit
from tiltbench.plan.spec import build_sampler, build_target, parse
from tiltbench.processes import pool
from tiltbench.run.states import modules
from tiltbench.samplers import at_once
from tiltbench.samplers.diffusion import Diffusion
from tiltbench.samplers.registry import NETWORKS, SAMPLERS
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets import precision
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.target import Density, Target, Tilt

MOVED = 2.0**-20  # largest relative change of a random number in the third run
SLACK = 10.0
FLOOR = 1e-5  # differences below are rounding, whatever the third run says
ON_TARGETS = ("gmm9", "tilt_shapes", "dw4", "ising_hs[side=4]", "digits_even")  # tried in turn

Made = Mapping[str, Tensor]  # what a short run makes, by name
Story = Callable[[Generator, Visit], Made]  # on the device of the generator


def run(visit: Visit, notes: Notes) -> None:
    if not visit.on_gpu:
        notes.say("Needs CUDA: here every run is compared with itself, and must be equal to it.")
    known = registered()
    chosen = known[:: math.ceil(len(known) / visit.sizes.pairs)] if visit.sizes.pairs else known
    alike = 0
    for what, row in rows(chosen, visit):
        if isinstance(row, str):
            notes.fault(f"{what}: {row}")
            continue
        notes.row("differences, the worst tensor of each", what=what, **row)
        if row["verdict"] == "alike":
            alike += 1
        else:
            notes.fault(f"{what}: {row['tensor']} differs by {row['GPU']:.1e} of its rms")
    notes.say(f"{alike} of {len(chosen)} are alike; {len(known)} are registered.")


def rows(chosen: Sequence[str], visit: Visit) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """(what, its row, or the sentence of what it raised); in several processes beside a GPU, where
    the runs of the CPU take most of the time."""
    jobs = min(6, (os.cpu_count() or 1) // 2) if visit.on_gpu else 1
    if jobs < 2:
        yield from ((what, row(what, visit)) for what in chosen)
        return
    with pool(jobs) as workers:
        due = {workers.submit(row, what, visit): what for what in chosen}
        for future in as_completed(due):
            yield due[future], future.result()


def row(what: str, visit: Visit) -> dict[str, Any] | str:
    try:
        return compared(stating(what) if what in TARGETS.entries else sampling(what), visit)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


OF_A_READER = {"posterior"}  # targets whose data a reader has


def registered() -> list[str]:
    """Every sampler, network and target, as it is written on the command line."""
    networks = (f"{trained(name)}[model={name}]" for name in sorted(NETWORKS.entries))
    return [*sorted(SAMPLERS.entries), *networks, *sorted(set(TARGETS.entries) - OF_A_READER)]


def trained(network: str) -> str:
    """A loss that trains all of it."""
    return "subtrajectory_balance" if NETWORKS.load(network).flows else "log_variance"


# ---------------------------------------------------------------- stories


def sampling(text: str) -> Story:
    """Init, steps, draws, and paths back from exact draws, on the first target that serves."""

    def story(generator: Generator, visit: Visit) -> Made:
        sampler = build_sampler(parse(text))
        refusal: Unsupported | None = None
        for target_text in ON_TARGETS:
            try:
                return sampled(build_target(parse(target_text)), sampler, generator, visit)
            except Unsupported as error:
                refusal = error
        assert refusal is not None
        raise refusal

    return story


def sampled(target: Target, sampler: Any, generator: Generator, visit: Visit) -> Made:
    sizes, made = visit.sizes, {}
    budget = Cost(4000, 4000)
    if isinstance(sampler, Diffusion):
        sampler = dataclasses.replace(sampler, paths=sizes.paths)
        budget = Cost(10**9, 10**9)
    problem = pose(target, sampler.reference)
    state = sampler.init(problem, budget, generator)
    for number in range(sizes.steps):
        if sampler.done(state):
            break
        state = sampler.step(problem, state, generator)
        if number == 0:
            made |= {f"first step, {name}": tensor for name, tensor in named(state)}
    for index, module in enumerate(modules(state)):
        made |= {f"network {index}, {name}": p for name, p in module.named_parameters()}
    draws = sampler.draw(problem, state, sizes.points, generator)
    made["draws"] = draws.x
    if draws.log_w is not None:
        made["log-weights"] = draws.log_w
    truth = target.truth()
    if truth.sample is not None:
        ends = truth.sample(sizes.points, generator)
        traced = sampler.reverse(problem, state, ends, generator)
        if traced is not None:
            made["log-weights of paths back"] = traced.log_w
    return made


def named(tree: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The floating tensors of a state with their places; those of modules and optimisers, which
    are no data of the state, aside."""
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            yield path, tree.detach().clone()
        return
    parts: list[tuple[Any, Any]] = []
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        parts = [(part.name, getattr(tree, part.name)) for part in dataclasses.fields(tree)]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        parts = list(zip(tree._fields, tree, strict=True))
    elif isinstance(tree, Mapping):
        parts = list(tree.items())
    elif isinstance(tree, list | tuple):
        parts = list(enumerate(tree))
    for key, value in parts:
        yield from named(value, f"{path}.{key}" if path else str(key))


def stating(text: str) -> Story:
    """A target's own functions at its exact draws, or at normal points where it has none."""

    def story(generator: Generator, visit: Visit) -> Made:
        target = build_target(parse(text))
        return stated(target, visit.sizes.points, generator)

    return story


def stated(target: Target, n: int, generator: Generator) -> Made:
    truth, made = target.truth(), {}
    x = torch.randn(n, target.dim, generator=generator, device=generator.device)
    x = target.project(target.scale * x)
    if truth.sample is not None:
        x = truth.sample(n, generator)
        made["exact draws"] = x
    x = x.float()
    match target:
        case Density():
            made["log rho"], made["its gradient"] = target.log_rho_and_grad(x)
        case Tilt():
            made["reward"], made["its gradient"] = target.reward_and_grad(x)
            made["features"] = target.features(x)
            made["base, start"] = target.base.start((n, target.dim), generator, torch.float32)
            middle = target.base.steps // 2
            made["base, ahead"] = target.base.base(made["base, start"], middle).mean
            made["base, back"] = target.base.backward(x, middle).mean
    if truth.modes is not None:
        made["modes"] = truth.modes.assign(x)
    for name, observable in truth.observables.items():
        made[f"observable {name}"] = observable.f(x)
    if truth.noised_score is not None:
        half = torch.full((n, 1), 0.5, dtype=torch.float64, device=x.device)
        made["score of noised draws"] = truth.noised_score(x.double(), half, half)
    return made


# ---------------------------------------------------------------- comparison


def compared(story: Story, visit: Visit) -> dict[str, Any]:
    """The tensor of a story that is worst for what it may be: its difference on the device, the
    difference that rounding makes, and on a GPU what TF32 makes of the one that it moves most."""
    here, moved = told(story, visit, "cpu"), told(story, visit, "cpu", MOVED)
    rounding = {name: difference(here[name], moved.get(name, here[name])) for name in here}
    allowed = {name: max(SLACK * rounding[name], FLOOR) for name in here}

    def worst(there: Made) -> tuple[str, float]:
        if set(here) != set(there):
            odd = ", ".join(sorted(set(here) ^ set(there))[:5])
            raise AssertionError(f"the two devices make different things: {odd}")
        off = {name: difference(here[name], there[name]) for name in here}
        name = max(off, key=lambda name: off[name] / allowed[name])
        return name, off[name]

    with tf32(False):
        name, off = worst(told(story, visit, visit.device))
    found: dict[str, Any] = {
        "tensor": name,
        "GPU": off,
        "rounding": rounding[name],
        "verdict": "alike" if off <= allowed[name] else "DIFFERS",
    }
    if visit.on_gpu:
        with tf32(True):
            found["with TF32"] = worst(told(story, visit, visit.device))[1]
    return found


def told(story: Story, visit: Visit, device: str, move: float = 0.0) -> Made:
    """The story on the CPU's random numbers; what it made, on the CPU in float64."""
    generator = Generator(device)
    with SameNoise(generator, Generator().manual_seed(5), move), same_parts():
        made = story(generator, visit)
    return {name: tensor.detach().cpu().double() for name, tensor in made.items()}


class SameNoise(TorchFunctionMode):
    """Random numbers asked of `asked` are drawn from `source`, a generator of the CPU, and moved.

    Real ones are made smaller by a random part of up to `move`."""

    def __init__(self, asked: Generator, source: Generator, move: float = 0.0) -> None:
        super().__init__()
        self.asked, self.source, self.move = asked, source, move
        self.dice = Generator().manual_seed(6)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("generator") is not self.asked:
            return func(*args, **kwargs)
        kwargs["generator"] = self.source
        kwargs.pop("device", None)
        out = kwargs.pop("out", None)
        if func.__name__.endswith("_"):  # in place
            out, args = args[0], (torch.empty(args[0].shape, dtype=args[0].dtype), *args[1:])
        args = tuple(a.cpu() if isinstance(a, Tensor) else a for a in args)
        made = func(*args, **kwargs)
        if self.move and made.is_floating_point():
            made = made * (1 - self.move * torch.rand(made.shape, generator=self.dice))
        return made.to(self.asked.device) if out is None else out.copy_(made)


def difference(a: Tensor, b: Tensor) -> float:
    """rms of a - b over the rms of a; infinite where shapes, or what is finite, differ."""
    finite = a.isfinite()
    if a.shape != b.shape or not torch.equal(finite, b.isfinite()):
        return math.inf
    a, b = a[finite], b[finite]
    off, size = float((a - b).square().sum().sqrt()), float(a.square().sum().sqrt())
    if off == 0:
        return 0.0
    return off / size if size > 0 else math.inf


@contextmanager
def same_parts() -> Iterator[None]:
    """Parts as small on a GPU as on a CPU: in others the same noise goes to other draws."""
    before = at_once.WIDER
    at_once.WIDER = 1
    try:
        yield
    finally:
        at_once.WIDER = before


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Whether products and convolutions on a GPU may round their factors to 10 bits."""
    before = precision.read()
    precision.write(precision.TF32 if on else precision.FULL)
    try:
        yield
    finally:
        precision.write(before)
