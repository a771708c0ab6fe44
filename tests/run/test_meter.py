"""The meter: every value and gradient at a point counts, however it is asked for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltbench.plan.budget import Budget
from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.targets.checks import Diverged
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import checked

PLENTY = Cost(10**6, 10**6)


def reward(x):
    return -(x**4).sum(-1) / 4 + x[..., 0] * x[..., 1]


def watched(budget=PLENTY):
    meter = Meter(budget)
    return meter, meter.watch(checked(reward, "the reward", 3))


def points(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(3,), (7, 3), (2, 5, 3), (0, 3)])
def test_values_count_by_points(shape):
    meter, f = watched()
    x = points(*shape)
    assert torch.equal(f(x), reward(x))
    n = x[..., 0].numel()
    assert meter.spent == Cost(n, 0)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_spending_adds_up(sizes):
    meter, f = watched()
    for n in sizes:
        f(points(n, 3))
    assert meter.spent == Cost(sum(sizes), 0)
    assert meter.left == Cost(PLENTY.values - sum(sizes), PLENTY.grads)


# Each entry takes (f, x with 7 points of dimension 3) and says what it must cost.
WAYS = {
    "autograd": (lambda f, x: grad(f, x), Cost(7, 7)),
    "backward": (lambda f, x: f(x.requires_grad_()).sum().backward(), Cost(7, 7)),
    "two backward passes": (lambda f, x: twice(f, x), Cost(7, 14)),
    "torch.func.grad": (lambda f, x: torch.func.grad(lambda y: f(y).sum())(x), Cost(7, 7)),
    "grad_and_value": (lambda f, x: torch.func.grad_and_value(lambda y: f(y).sum())(x), Cost(7, 7)),
    "vmap": (lambda f, x: torch.func.vmap(f)(x), Cost(7, 0)),
    "vmap of grad": (lambda f, x: torch.func.vmap(torch.func.grad(f))(x), Cost(7, 7)),
    "vmap in chunks": (
        lambda f, x: torch.func.vmap(torch.func.grad(f), chunk_size=2)(x),
        Cost(7, 7),
    ),
    "vmap over another axis": (
        lambda f, x: torch.func.vmap(torch.func.grad(f), in_dims=1)(x.T.contiguous()),
        Cost(7, 7),
    ),
    "vjp": (lambda f, x: torch.func.vjp(f, x)[1](torch.ones(7, dtype=x.dtype)), Cost(7, 7)),
    "a gradient of some outputs": (lambda f, x: grad(lambda y: f(y)[:2], x), Cost(7, 7)),
    # second order: the first gradient, then one more pass back through every point
    "Hessian-vector product": (lambda f, x: hvp(f, x), Cost(7, 14)),
    # the first gradient once; jacrev pulls back one vector for each of the 7 x 3 outputs, over 7
    # points each
    "jacrev of grad": (
        lambda f, x: torch.func.jacrev(torch.func.grad(lambda y: f(y).sum()))(x),
        Cost(7, 7 + 21 * 7),
    ),
    # one point at a time: 3 pulled-back vectors each
    "vmap of jacrev of grad": (
        lambda f, x: torch.func.vmap(torch.func.jacrev(torch.func.grad(f)))(x),
        Cost(7, 7 + 3 * 7),
    ),
    "no_grad": (lambda f, x: no_grad(f, x), Cost(7, 0)),
    "detached input": (lambda f, x: f(x.detach()), Cost(7, 0)),
}


def grad(f, x, **options):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(f(x).sum(), x, **options)[0]


def no_grad(f, x):
    with torch.no_grad():
        return f(x.requires_grad_())


def twice(f, x):
    y = f(x.requires_grad_()).sum()
    torch.autograd.grad(y, x, retain_graph=True)
    return torch.autograd.grad(y, x)[0]


def hvp(f, x):
    x = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(f(x).sum(), x, create_graph=True)
    return torch.autograd.grad((g * torch.ones_like(g)).sum(), x)[0]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_asking_is_counted(way):
    ask, cost = WAYS[way]
    meter, f = watched()
    got = ask(f, points(7, 3))
    assert meter.spent == cost
    want = ask(reward, points(7, 3))
    if want is not None:  # and the wrapper changes no number
        for a, b in zip(
            torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(want), strict=True
        ):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_overspent_however_it_is_asked_for(way):
    """With one point less than is needed the evaluation is refused, and the meter stays within."""
    ask, cost = WAYS[way]
    short = Cost(cost.values, cost.grads - 1) if cost.grads else Cost(cost.values - 1, 0)
    meter, f = watched(short)
    with pytest.raises(BudgetExceeded):
        ask(f, points(7, 3))
    assert short.covers(meter.spent)


def test_refused_before_the_pass():
    calls = []

    def slow(x):
        calls.append(len(x))
        return reward(x)

    meter = Meter(Cost(10, 10))
    f = meter.watch(slow)
    f(points(6, 3))
    with pytest.raises(BudgetExceeded, match="6 values and 0 gradients asked for, 4"):
        f(points(6, 3))
    assert calls == [6] and meter.spent == Cost(6, 0)


def test_a_gradient_is_refused_before_the_pass_through_the_reward():
    passes = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum(-1)

        @staticmethod
        def backward(ctx, g):
            passes.append(len(g))
            return g[:, None].expand(-1, 3)

    meter = Meter(Cost(100, 5))
    with pytest.raises(BudgetExceeded):
        grad(meter.watch(Spy.apply), points(6, 3))
    assert passes == [] and meter.spent == Cost(6, 0)
    grad(meter.watch(Spy.apply), points(5, 3))
    assert passes == [5] and meter.spent == Cost(11, 5)


def test_what_hides_the_count_raises():
    _, f = watched()
    x = points(7, 3).requires_grad_()
    y = f(x)
    with pytest.raises(RuntimeError, match="is_grads_batched"):
        torch.autograd.grad(y, x, torch.eye(7, dtype=y.dtype), is_grads_batched=True)
    with pytest.raises(Exception):
        torch.func.jvp(f, (points(7, 3),), (points(7, 3),))
    with pytest.raises(Exception):
        torch.func.jacfwd(f)(points(3))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(points(7, 3), points(7, 3))
        with pytest.raises(Exception):
            f(dual)


def test_a_closed_meter_pays_for_nothing():
    meter, f = watched()
    y = f(points(4, 3).requires_grad_()).sum()
    meter.close()
    assert meter.left == Cost(0, 0)
    with pytest.raises(BudgetExceeded):
        f(points(1, 3))
    with pytest.raises(BudgetExceeded):  # nor for the gradient of a value paid before
        y.backward()
    assert meter.spent == Cost(4, 0)


def test_the_check_of_the_reward_sees_points_under_vmap():
    meter = Meter(PLENTY)
    f = meter.watch(checked(lambda x: torch.log(x[..., 0]), "log rho of it", 2))
    x = torch.tensor([[1.0, 0.0], [-1.0, 2.0]])
    for ask in (f, torch.func.vmap(f)):
        with pytest.raises(
            Diverged, match=r"log rho of it is nan at 1 of 2 points, first at x = \(-1, 2\)"
        ):
            ask(x)
    f(torch.tensor([[0.0, 1.0]]))  # -inf is zero density and passes


def test_a_value_with_its_gradient_is_charged_for_both_before_it_is_made():
    meter, f = watched(Cost(10, 9))
    r, g = f.value_and_grad(points(6, 3))
    assert meter.spent == Cost(6, 6)
    torch.testing.assert_close((r, g), (reward(points(6, 3)), grad(reward, points(6, 3))))
    with pytest.raises(BudgetExceeded, match="4 values and 4 gradients asked for"):
        Meter(Cost(10, 3)).watch(f.value).value_and_grad(points(4, 3))
    with pytest.raises(BudgetExceeded):
        f.value_and_grad(points(4, 3))  # four values are left, and three gradients
    assert meter.spent == Cost(6, 6)
    with pytest.raises(RuntimeError, match="torch.func.grad"):
        torch.func.vmap(f.value_and_grad)(points(2, 3))


def test_a_captured_computation_is_charged_before_every_replay_and_refused_when_it_is_dear():
    meter, f = watched(Cost(20, 20))
    f(points(2, 3))  # spent before
    static, made = points(5, 3), []

    def capture():  # as a CUDA graph: what is recorded is launched at replays only
        f.value_and_grad(static)
        f(static)
        return lambda: made.append(reward(static))

    replay = meter.captured(capture)
    assert meter.spent == Cost(2, 0) and made == []
    replay()
    assert meter.spent == Cost(12, 5) and len(made) == 1
    with pytest.raises(BudgetExceeded, match="10 values and 5 gradients asked for, 8"):
        replay()
    assert meter.spent == Cost(12, 5) and len(made) == 1


def test_a_capture_that_cannot_be_paid_once_is_refused_and_costs_nothing():
    meter, f = watched(Cost(8, 8))
    with pytest.raises(BudgetExceeded):
        meter.captured(lambda: (f(points(5, 3)), f(points(5, 3))))
    assert meter.spent == Cost(0, 0)


def test_budgets_are_separate():
    budget = Budget.of(40_000, 1_000, Cost(7, 9))
    assert budget.train == Cost(40_000, 40_000)
    assert budget.draw == Cost(200_000, 200_000)
    assert budget.measure == Cost(200_007, 200_009)


@given(st.tuples(*[st.integers(0, 100)] * 4))
def test_cost_arithmetic(numbers):
    a, b = Cost(*numbers[:2]), Cost(*numbers[2:])
    assert a.plus(b).minus(b) == a
    assert a.covers(b) == (a.values >= b.values and a.grads >= b.grads)
    assert a.plus(b).covers(a)
    assert a.times(3) == a.plus(a).plus(a)
    assert a.calls == max(a)


@pytest.mark.cuda
def test_the_meter_lets_no_point_through_on_the_gpu():
    meter, f = watched()
    grad(f, points(7, 3).cuda())
    assert meter.spent == Cost(7, 7)
