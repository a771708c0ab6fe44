"""Checks that wait: what was evaluated is read once, and what is wrong is told as if at once."""

import copy
import threading
from contextlib import nullcontext

import pytest
import torch

from tiltbench.targets.bases.references import Brownian, Stationary
from tiltbench.targets.checks import Checks, Diverged
from tiltbench.targets.functions import from_torch
from tiltbench.targets.problem import Problem, graded, pose

X = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
GOOD = torch.tensor([0.0, -torch.inf, 1.0])
SLOPES = torch.tensor([[1.0, 1.0], [torch.nan, 0.0], [0.0, 1.0]])  # NaN where the density is zero


def bad(i, what):
    y, g = torch.zeros(3), torch.zeros(3, 2)
    (y if what == "value" else g)[i] = torch.nan
    return y, g


def test_zero_density_and_its_gradient_pass():
    Checks().values("log rho", X, GOOD, SLOPES)
    Checks().values("log rho", X, GOOD)


@pytest.mark.parametrize(
    "what, message",
    [
        ("value", r"^log rho is nan at 1 of 3 points, first at x = \(3, 4\); return -inf, "),
        ("gradient", r"^the gradient of log rho is not finite at 1 of 3 points.*\(3, 4\)$"),
    ],
)
def test_what_is_not_finite_is_told_at_once_or_at_the_end(what, message):
    with pytest.raises(Diverged, match=message):
        Checks().values("log rho", X, *bad(1, what))
    checks, reached = Checks(), []
    with pytest.raises(Diverged, match=message), checks.together():
        with checks.together():  # the inner end reads nothing
            checks.values("log rho", X, *bad(1, what))
        checks.values("later", X, *bad(2, what))  # the first is told
        reached.append(True)
    assert reached
    checks.values("log rho", X, GOOD)  # and nothing is left of it


def test_finite_numbers_whose_sum_overflows_pass():
    top = torch.finfo(torch.float32).max
    Checks().values("log rho", X, torch.full((3,), top))
    with pytest.raises(Diverged, match="is inf at 1 of 3"):
        Checks().values("log rho", X, torch.tensor([top, top, torch.inf]))


def test_conditions_and_numbers_are_read_with_it():
    checks = Checks()
    with checks.together():
        checks.values("log rho", X, GOOD)
        checks.never(torch.tensor(False), lambda: KeyError("never"))
        checks.finite(torch.tensor(2.0), lambda: KeyError("finite"))
        few, more = checks.also(torch.tensor([3, 1, 2])), checks.also(torch.tensor([7]))
        assert few == [] == more
    assert few == [3, 1, 2] and more == [7]
    with pytest.raises(KeyError, match="never"), checks.together():
        checks.never(torch.tensor(True), lambda: KeyError("never"))
    for value in (torch.nan, torch.inf):
        with pytest.raises(KeyError, match="finite"):
            checks.finite(torch.tensor(value), lambda: KeyError("finite"))


def test_what_was_wrong_first_is_told_rather_than_what_it_led_to():
    checks = Checks()
    with pytest.raises(Diverged, match="log rho is nan"), checks.together():
        checks.values("log rho", X, *bad(0, "value"))
        raise ZeroDivisionError("of the points that came out of it")
    with pytest.raises(ZeroDivisionError), checks.together():
        checks.values("log rho", X, GOOD)
        raise ZeroDivisionError("of its own")
    with pytest.raises(KeyboardInterrupt), checks.together():
        checks.values("log rho", X, *bad(0, "value"))
        raise KeyboardInterrupt
    checks.values("log rho", X, GOOD)  # forgotten with the interrupted work


def test_a_plain_reward_gets_its_gradient_and_the_check_of_its_problem():
    problem = Problem(2, Brownian(), lambda x: x.square().sum(-1).sqrt())
    r, g = graded(problem.reward, problem.checks).value_and_grad(X)
    torch.testing.assert_close(g, X / r[:, None])
    assert not r.requires_grad and not g.requires_grad
    steep = graded(lambda x: x[..., 0].abs().sqrt(), problem.checks)
    with pytest.raises(Diverged, match="gradient of the reward is not finite at 1 of 1"):
        steep.value_and_grad(torch.zeros(1, 2))


def test_what_a_caller_writes_into_its_rewards_is_not_what_is_checked():
    for reward in (lambda x: x[..., 0].log(), lambda x: x.sum(-1)):
        posed = pose(from_torch("given", reward, 2, scale=2.0)(), Stationary())
        x = torch.tensor([[-1.0, 1.0]])
        for ask in (posed.reward, lambda y, p=posed: p.reward.value_and_grad(y)[0]):
            wrong = bool(reward(x).isnan().any())
            with pytest.raises(Diverged) if wrong else nullcontext(), posed.checks.together():
                with torch.no_grad():
                    ask(x).nan_to_num_(0.0).mul_(torch.inf)


def test_what_came_first_is_told_whatever_its_kind():
    checks = Checks()
    with pytest.raises(KeyError, match="control"), checks.together():
        checks.never(torch.tensor(True), lambda: KeyError("control"))
        checks.values("log rho", X, *bad(0, "value"))


def test_a_problem_is_copied_as_it_was_before_it_had_checks():
    posed = pose(from_torch("given", lambda x: -x.square().sum(-1), 2)(), Stationary())
    with posed.checks.together():
        twin = copy.deepcopy(posed)
        posed.checks.values("log rho", X, GOOD)
    assert torch.equal(twin.reward(X), posed.reward(X))
    with pytest.raises(Diverged):
        twin.checks.values("log rho", X, *bad(0, "value"))


def test_a_thread_waits_for_its_own():
    checks, errors = Checks(), []

    def other():
        try:
            checks.values("log rho", X, *bad(0, "value"))
        except Diverged as error:
            errors.append(error)

    with checks.together():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(errors) == 1
