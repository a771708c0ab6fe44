"""Attempts to hide calls or compute: each fails, or is counted in full."""

import copy
import functools
import threading
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from tiltbench.api import cell
from tiltbench.plan.plugins import offer
from tiltbench.run.phases import run_cell
from tiltbench.samplers.sampler import Draws, Sampler
from tiltbench.targets.bases.linear import Linear
from tiltbench.targets.bases.references import Stationary

N, STEPS, BUDGET = 64, 40, 100_000
MATRIX = torch.randn(N, N)
PRODUCT = 2 * N**3  # operations of one product


@dataclass
class State:
    """What the dishonest keep."""

    reward: Any = None
    network: Any = None
    step: int = 0
    extra: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Plain(Sampler[State]):
    """STEPS steps of ten values each; the attempts add what they try to hide."""

    name: ClassVar[str] = "plain"
    reference: Linear = Stationary(steps=2)

    def init(self, problem, budget, generator):
        return State()

    def step(self, problem, state, generator):
        x = problem.base.end((10, problem.dim), generator)
        problem.reward(x)
        self.cheat(problem, state, x)
        state.step += 1
        return state

    def cheat(self, problem, state, x):
        pass

    def done(self, state):
        return state.step >= STEPS

    def draw(self, problem, state, n, generator):
        return Draws(problem.base.end((n, problem.dim), generator))


def lived(sampler, folder, **limits):
    offer(type(sampler))
    asked = cell("gaussian", sampler, limits.pop("budget", BUDGET), draws=20, **limits)
    return run_cell(asked, folder, code={})


def calls(record):
    return tuple(record.cost["train"])


# Attempts on calls: what is done at 10 more points in every step, and what it must cost a step.


def kept_closure(problem, state, x):
    state.extra.setdefault("f", problem.reward)(x)


def deep_copy(problem, state, x):
    copy.deepcopy(problem).reward(x)


def leading_axes(problem, state, x):
    problem.reward(x.reshape(5, 2, -1))


def vmapped(problem, state, x):
    torch.func.vmap(torch.func.grad(lambda y: problem.reward(y[None])[0]))(x)


def in_a_thread(problem, state, x):
    thread = threading.Thread(target=problem.reward, args=(x,))
    thread.start()
    thread.join()


def partial(problem, state, x):
    functools.partial(problem.reward.value, x)()


def gradients_only(problem, state, x):
    problem.reward.value_and_grad(x)


def no_grad_mode(problem, state, x):
    with torch.inference_mode():
        problem.reward(x.clone())


def twice_backward(problem, state, x):
    y = problem.reward(x.requires_grad_()).sum()
    y.backward(retain_graph=True)
    y.backward()


ON_CALLS = {
    kept_closure: (10, 0),
    deep_copy: (10, 0),
    leading_axes: (10, 0),
    vmapped: (10, 10),
    in_a_thread: (10, 0),
    partial: (10, 0),
    gradients_only: (10, 10),
    no_grad_mode: (10, 0),
    twice_backward: (10, 20),
}


@pytest.mark.parametrize("attempt", ON_CALLS, ids=lambda f: f.__name__)
def test_calls_that_somebody_would_hide(tmp_path, attempt):
    @dataclass(frozen=True)
    class Sly(Plain):
        name: ClassVar[str] = attempt.__name__

        def cheat(self, problem, state, x):
            attempt(problem, state, x)

    values, grads = ON_CALLS[attempt]
    record = lived(Sly(), tmp_path)
    assert calls(record) == (STEPS * (10 + values), STEPS * grads), record.reason


def test_forward_mode_is_refused(tmp_path):
    @dataclass(frozen=True)
    class Forward(Plain):
        name: ClassVar[str] = "forward_mode"

        def cheat(self, problem, state, x):
            torch.func.jvp(problem.reward, (x,), (torch.ones_like(x),))

    assert not lived(Forward(), tmp_path).status.finished


def test_batches_of_backward_passes_are_refused(tmp_path):
    @dataclass(frozen=True)
    class Batched(Plain):
        name: ClassVar[str] = "batched_backward"

        def cheat(self, problem, state, x):
            y = problem.reward(x.requires_grad_())
            torch.autograd.grad(y, x, torch.eye(10, dtype=y.dtype), is_grads_batched=True)

    assert not lived(Batched(), tmp_path).status.finished


def test_the_reward_of_training_is_of_no_use_in_drawing(tmp_path):
    @dataclass(frozen=True)
    class Saver(Plain):
        name: ClassVar[str] = "saver"

        def cheat(self, problem, state, x):
            state.reward = problem.reward

        def draw(self, problem, state, n, generator):
            state.reward(torch.zeros(10**6, problem.dim))
            return super().draw(problem, state, n, generator)

    record = lived(Saver(), tmp_path)
    assert not record.status.finished and "0 and 0 left" in record.reason


def test_a_swallowed_refusal_ends_training_all_the_same(tmp_path):
    @dataclass(frozen=True)
    class Deaf(Plain):
        name: ClassVar[str] = "deaf"

        def step(self, problem, state, generator):
            try:
                return super().step(problem, state, generator)
            except Exception:
                state.step += 1
                return state

    record = lived(Deaf(), tmp_path, budget=105)
    assert calls(record) == (100, 0) and record.cost["ended_by"] == "calls"


# Attempts on compute: at least one product of N x N a step, and the least that must be charged.


def own_network(state):
    network = state.extra.setdefault("network", nn.Linear(N, N))
    network(MATRIX).sum().backward()
    return 2 * PRODUCT  # its input needs no gradient


def functional(state):
    nn.functional.linear(MATRIX, MATRIX)
    return PRODUCT


def by_elements(state):
    (MATRIX[:, :, None] * MATRIX[None]).sum(1)
    return PRODUCT


def in_place(state):
    torch.zeros(N, N).addmm_(MATRIX, MATRIX)
    return PRODUCT


def as_a_convolution(state):
    nn.functional.conv1d(MATRIX[None], MATRIX[..., None])
    return PRODUCT


def under_vmap(state):
    torch.func.vmap(lambda row: MATRIX @ row)(MATRIX)
    return PRODUCT


def written_out(state):
    torch.mm(MATRIX, MATRIX, out=torch.empty(N, N))
    return PRODUCT


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g @ MATRIX


def in_a_backward_pass(state):
    Hidden.apply(MATRIX.clone().requires_grad_()).sum().backward()
    return PRODUCT


def under_inference(state):
    with torch.inference_mode():
        MATRIX @ MATRIX
    return PRODUCT


def as_distances(state):
    torch.cdist(MATRIX, MATRIX)
    return PRODUCT


ON_COMPUTE = (
    own_network,
    functional,
    by_elements,
    in_place,
    as_a_convolution,
    under_vmap,
    written_out,
    in_a_backward_pass,
    under_inference,
    as_distances,
)


@pytest.mark.parametrize("attempt", ON_COMPUTE, ids=lambda f: f.__name__)
def test_compute_that_somebody_would_hide(tmp_path, attempt):
    least = []

    @dataclass(frozen=True)
    class Sly(Plain):
        name: ClassVar[str] = attempt.__name__

        def cheat(self, problem, state, x):
            least.append(attempt(state))

    record = lived(Sly(), tmp_path)
    assert record.cost["train_flops"] >= sum(least) == STEPS * least[0]
    least.clear()
    half = lived(Sly(), tmp_path, flops=STEPS / 2 * record.cost["train_flops"] / STEPS)
    assert half.cost["ended_by"] == "flops" and 0.4 * STEPS <= len(least) <= 0.6 * STEPS


WHERE = ("init", "done", "draw", "later", "seldom")


@pytest.mark.parametrize("where", WHERE)
def test_compute_in_another_place(tmp_path, where):
    """In `init`, `done` or `draw`; in all steps but the first; in every fifth."""
    made = []

    def work(times):
        for _ in range(times):
            MATRIX @ MATRIX
            made.append(PRODUCT)

    @dataclass(frozen=True)
    class Sly(Plain):
        name: ClassVar[str] = f"in_{where}"

        def init(self, problem, budget, generator):
            work(50 * (where == "init"))
            return super().init(problem, budget, generator)

        def step(self, problem, state, generator):
            work(5 * (where == "later" and state.step > 0))
            work(25 * (where == "seldom" and state.step % 5 == 4))
            return super().step(problem, state, generator)

        def done(self, state):
            work(5 * (where == "done"))
            return state.step >= 400

        def draw(self, problem, state, n, generator):
            work(50 * (where == "draw"))
            return super().draw(problem, state, n, generator)

    record = lived(Sly(), tmp_path)
    phase = "draw" if where == "draw" else "train"
    share = record.cost[f"{phase}_flops"] / sum(made)
    exact = where in ("init", "draw", "done")
    assert share >= 0.99 if exact else 0.3 <= share <= 3, share
    made.clear()
    if where in ("init", "draw"):
        refused = lived(Sly(), tmp_path, flops=20 * PRODUCT)
        assert not refused.status.finished and len(made) <= 21
        assert "operations" in refused.reason
