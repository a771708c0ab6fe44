"""A target or loss that changes its argument is found where it is called."""

import pytest
import torch

from tiltbench.api import cell
from tiltbench.records.record import Status
from tiltbench.run.meter import Meter
from tiltbench.run.phases import run_cell
from tiltbench.samplers.loss import path_space
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.cost import Cost
from tiltbench.targets.functions import from_numpy, from_torch
from tiltbench.targets.gradient import value_and_grad
from tiltbench.targets.problem import checked, of_points
from tiltbench.targets.purity import Impure
from tiltbench.targets.registry import TARGETS


def doubled(x):
    x *= 2
    return x.sum(-1)


def shifted(x):
    x[..., 0] += 1
    return x.sum(-1)


def detached(x):
    x.detach().mul_(2)
    return x.sum(-1)


def data(x):
    x.data.mul_(2)
    return x.sum(-1)


def shared(x):
    x.detach().numpy()[...] = 3.0
    return x.sum(-1)


def honest(x):
    x = x.clone()
    x *= 2
    return x.sum(-1)


def leaf(f, x):
    f(x.requires_grad_()).sum().backward()


CALLS = {
    "plainly": lambda f, x: f(x),
    "with a gradient": leaf,
    "vmap": lambda f, x: torch.func.vmap(f)(x),
    "grad": lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
    "vmap(grad)": lambda f, x: torch.func.vmap(torch.func.grad(f))(x),
}
PLAIN = ("plainly", "with a gradient")  # PyTorch refuses the last two elsewhere, in its own words


@pytest.mark.parametrize("way", CALLS)
@pytest.mark.parametrize("f", [doubled, shifted, detached, data, shared, honest])
def test_a_change_of_the_argument_is_named(f, way):
    if f in (data, shared) and way not in PLAIN:
        pytest.skip("refused by PyTorch")
    watched = Meter(Cost(99, 99)).watch(checked(f, "log rho of odd", 2))
    if f is honest:
        CALLS[way](watched, torch.ones(5, 2))
        return
    with pytest.raises(Impure, match=r"log rho of odd changes .* `x = x.clone\(\)`"):
        CALLS[way](watched, torch.ones(5, 2))


@pytest.mark.parametrize("f", [doubled, shifted, detached, data, shared, honest])
def test_a_change_of_the_argument_is_named_with_its_gradient(f):
    both = of_points(lambda x: value_and_grad(f, x), f, "log rho of odd", 2)
    if f is honest:
        assert torch.equal(both(torch.ones(5, 2))[1], torch.full((5, 2), 2.0))
        return
    with pytest.raises(Impure, match="log rho of odd changes its argument x in place"):
        both(torch.ones(5, 2))


def test_a_rare_change_by_another_way_is_seen_later():
    def rare(x):
        x.data.clamp_(max=3.0)
        return x.sum(-1)

    f = checked(rare, "rare", 1)
    for _ in range(3):
        f(torch.ones(4, 1))
    with pytest.raises(Impure):
        f(torch.full((4, 1), 5.0))


def test_values_are_not_a_view_of_the_points():
    x = torch.ones(4, 1)
    y = checked(lambda x: x.squeeze(-1), "first", 1)(x)
    x += 1
    assert y.tolist() == [1.0] * 4


def test_a_numpy_function_may_do_as_it_likes():
    def f(x):
        x *= 2
        return -(x**2).sum(1)

    x = torch.ones(4, 2, dtype=torch.float64)
    assert from_numpy("numpy", f, 2)().log_rho(x).tolist() == [-8.0] * 4 and bool((x == 1).all())


@pytest.fixture
def session():
    yield
    for registry in (TARGETS, SAMPLERS):
        for entry in [e for e in registry.entries.values() if e.module == "tiltbench_session"]:
            registry.remove(entry)


@pytest.mark.parametrize("method", ["hmc", "log_variance"])
def test_a_run_fails_with_the_sentence(method, tmp_path, session):
    odd = from_torch("odd", lambda x: -doubled(x).square(), 2)
    record = run_cell(cell(odd, method, 400, draws=20), tmp_path, code={})
    assert record.status is Status.FAILED
    said = "log rho of odd changes its argument x in place; begin it with `x = x.clone()`"
    assert record.reason == said


def test_a_loss_may_not_change_its_batch(tmp_path, session):
    base = path_space("greedy", lambda log_w, model: log_w.var())

    def value(model, process, batch, generator):
        batch["r"] -= 1
        return base.value(model, process, batch, generator)

    greedy = base._replace(value=value)
    record = run_cell(cell("gaussian", greedy, 400, draws=20), tmp_path, code={})
    assert record.reason.startswith("the loss greedy changes its argument r in place")
