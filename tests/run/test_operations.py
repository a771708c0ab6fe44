"""Floating-point operations: torch's own formulas for products, one an element for the rest."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tiltbench.plan.spec import build_target
from tiltbench.plan.text import parse
from tiltbench.run.operations import ComputeExceeded, Operations
from tiltbench.samplers.networks.perceptron import Mlp
from tiltbench.samplers.registry import NETWORKS, SAMPLERS
from tiltbench.targets.bases.references import Stationary
from tiltbench.targets.problem import pose

A, B, V = torch.randn(5, 7), torch.randn(7, 3), torch.randn(7)
PRODUCTS = {
    "mm": (lambda: A @ B, 2 * 5 * 7 * 3),
    "addmm": (lambda: torch.addmm(torch.randn(3), A, B), 2 * 5 * 7 * 3),
    "in place": (lambda: torch.zeros(5, 3).addmm_(A, B), 2 * 5 * 7 * 3),
    "out of place": (lambda: torch.mm(A, B, out=torch.empty(5, 3)), 2 * 5 * 7 * 3),
    "bmm": (lambda: torch.bmm(A.expand(4, 5, 7), B.expand(4, 7, 3)), 4 * 2 * 5 * 7 * 3),
    "baddbmm": (
        lambda: torch.zeros(4, 5, 3).baddbmm_(A.expand(4, 5, 7), B.expand(4, 7, 3)),
        4 * 2 * 5 * 7 * 3,
    ),
    "addbmm": (
        lambda: torch.addbmm(torch.zeros(5, 3), A.expand(4, 5, 7), B.expand(4, 7, 3)),
        4 * 2 * 5 * 7 * 3,
    ),
    "einsum": (lambda: torch.einsum("ij,jk->ik", A, B), 2 * 5 * 7 * 3),
    "matrix and vector": (lambda: A @ V, 2 * 5 * 7),
    "two vectors": (lambda: V @ V, 2 * 7),
    "linear": (lambda: nn.functional.linear(A, B.T), 2 * 5 * 7 * 3),
    "vmap": (lambda: torch.func.vmap(lambda a: a @ B)(A), 2 * 5 * 7 * 3),
    "distances": (lambda: torch.cdist(A, A, compute_mode="donot_use_mm_for_euclid_dist"), 3 * 175),
    "convolution": (
        lambda: nn.functional.conv1d(torch.randn(2, 3, 10), torch.randn(4, 3, 5)),
        2 * 2 * 6 * 4 * 3 * 5,
    ),
}


class Products(TorchDispatchMode):
    """What torch's own formulas say of the operations that they are for."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            formula = flop_registry[func.overloadpacket]
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def counted(work):
    with Operations() as counter:
        work()
    return counter.flops


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_costs_two_m_n_k(name):
    work, flops = PRODUCTS[name]
    inputs = 400 if name in ("addmm", "in place", "baddbmm", "addbmm", "convolution") else 60
    assert flops <= counted(work) <= flops + inputs  # the filling of zeros, a copy


ELEMENTS = {
    "a sum of two": (lambda: A + A, 35),
    "a reduction": (lambda: A.sum(), 35),
    "a broadcast": (lambda: A[:, None] * A, 5 * 35),
    "in place": (lambda: A.clone().add_(1), 70),
    "a list of tensors": (lambda: torch._foreach_mul([A, B], 2.0), 35 + 21),
    "views": (lambda: A.T.unsqueeze(0).expand(9, 7, 5).detach().permute(1, 0, 2), 0),
    "memory": (lambda: torch.empty(1000), 0),
    "a solver": (lambda: torch.linalg.solve(torch.eye(6), torch.randn(6, 1)), 6**3),
    "a tall decomposition": (lambda: torch.linalg.qr(torch.ones(100, 3)), 100 * 3 * 3),
    "a transform": (lambda: torch.fft.rfft(torch.ones(8)), 5 * 8 * 3),
}


@pytest.mark.parametrize("name", ELEMENTS)
def test_any_other_operation_costs_one_an_element(name):
    work, flops = ELEMENTS[name]
    slack = {"a solver": 6**3 + 60, "a tall decomposition": 300, "a transform": 8}.get(name, 0)
    assert flops <= counted(work) <= flops + slack


@pytest.mark.parametrize("name", sorted(NETWORKS.entries))
def test_products_are_those_of_torch(name):
    """Forward and backward through every network: what torch says of products, and little
    besides."""
    homes = {"Equivariant": "dw4", "EquivariantGuided": "dw4", "Adapter": "digits_even"}
    homes |= {"Atomic": "aldp", "AtomicGuided": "aldp"}
    homes |= {"Convolutional": "ising_hs[side=4]", "ConvolutionalGuided": "ising_hs[side=4]"}
    target = build_target(parse(homes.get(name, "gmm9")))
    problem = pose(target, Stationary(steps=8))
    source = torch.Generator().manual_seed(0)
    model = NETWORKS.load(name)().build(problem.dim, problem.base, source)
    x = torch.randn(64, problem.dim, generator=source)
    hint = torch.ones_like(x) if model.guided else None

    def work():
        model.zero_grad()
        model.control(x, torch.tensor(0.5), hint).square().sum().backward()

    work()  # what is made for the first time
    with Products() as torchs:
        work()
    products = torchs.flops
    narrow = ("Convolutional", "ConvolutionalGuided", "Coordinatewise", "CoordinatewiseGuided")
    small = 0.9 if name in (*narrow, "Adapter") else 0.25
    assert products <= counted(work) <= (1 + small) * products


def test_a_perceptron_in_closed_form():
    """Forward 2 sum_l m_l n_l a point; backward twice that, less what the input would get; the
    embedding once."""
    problem = pose(build_target(parse("gmm9")), Stationary(steps=8))
    model = Mlp(width=32, layers=3).build(2, problem.base, torch.Generator().manual_seed(0))
    x, points = torch.randn(500, 2), 500
    layers = [(2, 32), (32, 32), (32, 32), (32, 2)]
    weights, first = sum(m * n for m, n in layers), 2 * 32
    clock = 2 * (128 * 128 + 128 * 32)
    with torch.no_grad():
        forward = counted(lambda: model.control(x, torch.tensor(0.5)))
    both = counted(lambda: model.control(x, torch.tensor(0.5)).sum().backward())
    assert 0 <= forward - (2 * weights * points + clock) < 0.12 * forward
    exact = 2 * (3 * weights - first) * points + 3 * clock
    assert 0 <= both - exact < 0.12 * both


def test_the_count_does_not_depend_on_the_parts_that_paths_are_drawn_in(monkeypatch):
    target, sampler = build_target(parse("gmm9")), SAMPLERS.load("pis").sampler
    problem, seen = pose(target, sampler.reference), []
    source = torch.Generator().manual_seed(0)
    state = sampler.init(problem, (1000, 1000), source)
    for most in (2048, 100):
        monkeypatch.setattr("tiltbench.samplers.drawing.CHUNK", most)
        seen.append(counted(lambda: sampler.draw(problem, state, 400, source)))
    # the embedding of the grid, made anew for every part, is all that differs
    clock = 2 * 32 * (128 * 128 + 128 * 64)
    assert abs(seen[1] - seen[0] - 3 * clock) < 0.1 * seen[0]


def test_it_stops_at_the_first_operation_beyond():
    done = []

    def work():
        for _ in range(10):
            _ = A @ B
            done.append(1)

    with pytest.raises(ComputeExceeded, match="where 700 are left"), Operations(700):
        work()
    assert len(done) == 3  # 210 each


def test_backward_passes_and_graphs_are_seen_wherever_they_are_asked_for():
    w = torch.randn(7, 7, requires_grad=True)

    def twice():
        (g,) = torch.autograd.grad((A @ w).square().sum(), w, create_graph=True)
        g.square().sum().backward()

    once = counted(lambda: (A @ w).square().sum().backward())
    assert counted(twice) > 1.9 * once
    checkpointed = counted(
        lambda: torch.utils.checkpoint.checkpoint(
            lambda x: ((x @ w).sin() @ w).sum(), A, use_reentrant=False
        ).backward()
    )
    plain = counted(lambda: ((A @ w).sin() @ w).sum().backward())
    assert checkpointed >= plain + 2 * 5 * 7 * 7  # the forward pass made again
