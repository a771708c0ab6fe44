"""Functions that know nothing of the suite: what they are given, what it costs, what goes wrong."""

import math
import re

import numpy as np
import pytest
import torch

from tests.tools.foreign import outcome
from tiltbench.api import cell
from tiltbench.records.record import Status, read_outcome
from tiltbench.run.meter import Meter
from tiltbench.run.phases import run_cell
from tiltbench.samplers.adapters.density import LogDensity
from tiltbench.samplers.adapters.functions import from_jax, from_numpy, from_torch
from tiltbench.samplers.sampler import Unsupported
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import BudgetExceeded, Cost
from tiltbench.targets.densities.dw4 import Dw4
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.problem import pose
from tiltbench.targets.tilts.digits_even import DigitsEven
from tiltbench.targets.tilts.tilt_linear import TiltLinear


def density(target, points=10_000):
    meter = Meter(Cost(points, points))
    problem = pose(target, Brownian(), meter.watch)
    g = torch.Generator().manual_seed(0)
    return LogDensity("mine", problem, Cost(points, points), g), meter


def points(n, dim, scale):
    g = torch.Generator().manual_seed(1)
    return scale * torch.randn(n, dim, generator=g, dtype=torch.float64)


def test_of_a_density_it_is_log_rho():
    target = Gaussian(dim=3)
    given, _ = density(target)
    x = points(7, 3, 1.0)
    y, g = given.both(x)
    torch.testing.assert_close(y, target.log_rho(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(given.value(x), y)
    torch.testing.assert_close(g, target.log_rho_and_grad(x)[1])


def test_of_a_tilt_it_is_base_and_reward():
    target = TiltLinear()
    given, _ = density(target)
    x = points(5, target.dim, 1.0).requires_grad_()
    whole = target.base.log_end(x) + target.reward(x)
    y, g = given.both(x)
    torch.testing.assert_close(y, whole.detach())
    torch.testing.assert_close(g, torch.autograd.grad(whole.sum(), x)[0], rtol=1e-6, atol=1e-9)


def test_without_a_known_base_there_is_no_density():
    target = DigitsEven()
    with pytest.raises(Unsupported, match="mine asks for a density, and .* through its paths"):
        density(target)


def test_of_particles_the_centre_has_a_normal_law_of_its_own():
    """log rho(Px) + log N(x - Px; 0, scale^2) in two dimensions, and its gradient."""
    target = Dw4()
    given, _ = density(target)
    x = points(6, target.dim, given.scale).requires_grad_()
    centre = (x - target.project(x)).square().sum(-1)
    s = given.scale
    whole = target.log_rho(target.project(x)) - centre / (2 * s * s) - math.log(2 * math.pi * s * s)
    y, g = given.both(x)
    torch.testing.assert_close(y, whole.detach())
    torch.testing.assert_close(given.value(x), whole)
    torch.testing.assert_close(g, torch.autograd.grad(whole.sum(), x)[0])


@pytest.mark.parametrize("far", [math.nan, math.inf, 1e300, 1e12])
def test_no_density_far_out_and_it_costs_the_same(far):
    given, meter = density(Gaussian())
    y, g = given.both(torch.tensor([[1.0, 1.0], [far, 0.0]], dtype=torch.float64))
    assert y[0] == 0 and y[1] == -torch.inf and (g == 0).all()
    assert meter.spent == Cost(2, 2)


ASKED = {
    "log_prob(x)": Cost(3, 0),
    "grad(x)": Cost(3, 3),
    "log_prob.and_grad(x)": Cost(3, 3),
    "log_prob(x.requires_grad_()).sum().backward()": Cost(3, 3),
    "log_prob(x); grad(x); log_prob.and_grad(x)": Cost(9, 6),
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_asked_is_what_is_paid(asked):
    """Autograd's gradients too, of functions in PyTorch."""

    def sample(log_prob, grad, dim, budget, rng):
        x = torch.zeros(3, dim)
        exec(asked, {"x": x, "log_prob": log_prob, "grad": grad})
        assert (budget, dim, rng.device.type) == (500, 2, "cpu")
        return torch.ones(5, dim)

    meter, draws = outcome(from_torch("mine", sample), 500)
    assert meter.spent == ASKED[asked]
    assert draws.x.shape == (5, 2) and draws.group is None and draws.log_w is None


def importance(log_prob, size, normal):
    """Draws of N(0, 2^2 I) in two dimensions and their weights."""
    x = 2 * normal((size, 2))
    log_q = -(x**2).sum(-1) / 8 - math.log(8 * math.pi)
    return x, log_prob(x) - log_q


def in_torch(log_prob, grad, dim, budget, rng):
    return importance(log_prob, budget, lambda shape: torch.randn(shape, generator=rng))


def in_numpy(log_prob, grad, dim, budget, rng):
    return importance(log_prob, budget, lambda shape: rng.normal(size=shape))


def in_jax(log_prob, grad, dim, budget, rng):
    import jax

    return importance(log_prob, budget, lambda shape: jax.random.normal(rng, shape))


@pytest.mark.parametrize(
    "wrap, sample", [(from_torch, in_torch), (from_numpy, in_numpy), (from_jax, in_jax)]
)
def test_weights_of_all_libraries_average_to_Z(wrap, sample):
    if wrap is from_jax:
        pytest.importorskip("jax", reason="needs the extra `jax`")
    meter, draws = outcome(wrap("mine", sample), 4000)
    assert meter.spent == Cost(4000, 0) and draws.log_w.dtype == torch.float64
    w = (draws.log_w - Gaussian().truth().log_Z).exp()
    assert abs(w.mean() - 1) < 5 * w.std() / math.sqrt(len(w))
    off = w * (draws.x[:, 0].double() - 1)
    assert abs(off.mean()) < 5 * off.std() / math.sqrt(len(w))


def test_chains_are_groups_and_are_thinned_evenly():
    def sample(log_prob, grad, dim, budget, rng):
        x = np.arange(4 * 100.0).reshape(4, 100, 1) + np.zeros(dim)
        return x, -x[..., 0]

    _, draws = outcome(from_numpy("mine", sample), 100, n=40)
    assert draws.x.shape == (40, 2) and draws.group.bincount().tolist() == [10] * 4
    assert (draws.x[:, 0] // 100 == draws.group).all() and (draws.log_w == -draws.x[:, 0]).all()


def test_what_it_yielded_last_is_drawn_when_the_budget_is_spent():
    def sample(log_prob, grad, dim, budget, rng):
        for i in range(1, 100):
            log_prob(np.zeros((30, dim)))
            yield np.full((3, dim), float(i))

    meter, draws = outcome(from_numpy("mine", sample), 100)
    assert meter.spent == Cost(90, 0) and (draws.x == 3).all()


def test_a_function_may_keep_the_refusal_to_itself():
    def sample(log_prob, grad, dim, budget, rng):
        try:
            while True:
                log_prob(np.zeros((30, dim)))
        except BudgetExceeded:
            return np.full((3, dim), 7.0)

    assert (outcome(from_numpy("mine", sample), 100)[1].x == 7).all()


def test_global_generators_are_the_run_s_own():
    def sample(log_prob, grad, dim, budget, rng):
        yield np.random.normal(size=(2, dim))
        yield torch.randn(2, dim).double().numpy() + np.random.normal(size=(2, dim))

    def draws(seed):
        return outcome(from_numpy("mine", sample), 100, seed=seed)[1].x

    np.random.seed(5)
    torch.manual_seed(5)
    first = np.random.normal(), torch.randn(())
    np.random.seed(5)
    torch.manual_seed(5)
    a, b, other = draws(1), draws(1), draws(2)
    assert torch.equal(a, b) and not torch.equal(a, other)
    assert (np.random.normal(), torch.randn(())) == first


def test_a_clock_stops_it_in_the_midst_of_a_step(tmp_path):
    def sample(log_prob, grad, dim, budget, rng):
        yield np.zeros((3, dim))
        while True:
            log_prob(np.zeros((1, dim)))

    ended, _ = outcome(from_numpy("mine", sample), 10_000, share=lambda spent: spent / 50)
    assert ended.spent.values == 50


FILE = '''
import numpy as np
from tiltbench.samplers.adapters.functions import from_numpy

def sample(log_prob, grad, dim, budget, rng, width=2.0, catch=False):
    """Importance sampling with a normal law of standard deviation `width`."""
    x = width * rng.normal(size=(budget - 10, dim))
    log_q = -(x**2).sum(-1) / (2 * width**2) - dim * np.log(width * np.sqrt(2 * np.pi))
    log_w = log_prob(x) - log_q
    if catch:
        try:
            log_prob(x)
        except Exception:
            pass
    return x, log_w

mine = from_numpy("mine", sample)
'''


@pytest.mark.parametrize("catch, ended", [(False, "steps"), (True, "calls")])
def test_it_is_a_row_like_any_other(tmp_path, catch, ended):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    word = "true" if catch else "false"
    planned = cell("gaussian", f"{file}[width=1.5,catch={word}]", budget=300, draws=50, curve=20)
    record = run_cell(planned, tmp_path)
    assert record.status is (Status.SPENT if catch else Status.DONE), record.reason
    assert record.cost["train"] == [290, 0] and record.cost["draw"] == [0, 0]
    assert record.cost["ended_by"] == ended
    assert not any("did not pay" in note for note in record.cost["notes"])
    result = read_outcome(tmp_path, record.id)
    assert result.draws.x.shape == (50, 2) and result.draws.log_w.shape == (50,)


X = "np.zeros((5, dim))"
T = "torch.zeros(5, dim)"

# the library, what the function does, and the status and the sentence that come of it
MISTAKES = {
    "points with too many coordinates": (
        from_numpy, "log_prob(np.zeros((5, 3)))", Status.FAILED,
        r"at x of shape \(5, 3\); it takes points of 2 coordinates",
    ),
    "a number for a point": (
        from_numpy, "log_prob(0.0)", Status.FAILED, r"at x of shape \(\); it takes points of 2",
    ),
    "a tensor for NumPy": (
        from_numpy, f"log_prob({T})", Status.FAILED, "torch.Tensor; from_numpy takes arrays: use "
        "from_torch",
    ),
    "words for points": (
        from_numpy, "log_prob([['a', 'b']])", Status.FAILED, "that is no array of numbers",
    ),
    "an array for PyTorch": (
        from_torch, f"log_prob({X})", Status.FAILED, "numpy.ndarray; from_torch takes tensors: use "
        "torch.as_tensor",
    ),
    "whole numbers for PyTorch": (
        from_torch, "grad(torch.zeros(5, dim, dtype=torch.long))", Status.FAILED,
        r"at x of torch.int64; take x.float\(\)",
    ),
    "no draws": (from_numpy, "return None", Status.FAILED, "handed over draws of type NoneType"),
    "a number": (from_numpy, "return 3", Status.FAILED, "draws of type int; return an array"),
    "three things": (
        from_numpy, f"return {X}, {X}, {X}", Status.FAILED, r"tuple of 3; it must be draws, or",
    ),
    "transposed draws": (
        from_numpy, f"return {X}.T", Status.FAILED, r"shape \(2, 5\).*transposed: return draws.T",
    ),
    "one draw without its row": (
        from_torch, "return torch.zeros(dim)", Status.FAILED, r"\(2,\); they must be \(n, 2\)",
    ),
    "no draw at all": (
        from_numpy, "return np.zeros((0, dim))", Status.FAILED, r"\(0, 2\); they must be \(n, 2\)",
    ),
    "ragged draws": (
        from_numpy, "return [[0.0, 1.0], [2.0]]", Status.FAILED, "that make no array",
    ),
    "whole numbers": (
        from_torch, f"return {T}.long()", Status.FAILED, "draws of torch.int64; return floating",
    ),
    "complex numbers": (
        from_numpy, f"return {X} + 1j", Status.FAILED, "draws of complex128; return floating",
    ),
    "NaN draws": (
        from_numpy, f"return {X} * np.nan", Status.DIVERGED, "5 of 5 draws are not finite",
    ),
    "an infinite draw": (
        from_torch, f"x = {T}; x[2] = torch.inf; return x", Status.DIVERGED, "1 of 5 draws are not",
    ),
    "log_w of other length": (
        from_numpy, f"return {X}, np.zeros(4)", Status.FAILED,
        r"log_w of shape \(4,\) with draws of shape \(5, 2\); it must be \(5,\)",
    ),
    "log_w with a dimension too many": (
        from_torch, f"return {T}, torch.zeros(5, 1)", Status.FAILED, r"\(5, 1\).*must be \(5,\)",
    ),
    "NaN among log_w": (
        from_numpy, f"return {X}, np.full(5, np.nan)", Status.DIVERGED, "5 of 5 log-weights are",
    ),
    "log_w all -inf": (
        from_numpy, f"return {X}, np.full(5, -np.inf)", Status.DIVERGED, "every log-weight is -inf",
    ),
    "the budget ignored": (
        from_numpy, f"while True: log_prob({X})", Status.FAILED,
        "had handed over no draws when its budget of 200 calls was spent.*spend no more",
    ),
    "an error of its own": (
        from_numpy, "raise KeyError('beta')", Status.FAILED, "KeyError: 'beta'",
    ),
    "a refusal in other words": (
        from_numpy,
        f"try:\n        while True: log_prob({X})\n    except Exception: raise SystemError('oops')",
        Status.FAILED, "had handed over no draws when its budget of 200 calls was spent",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_gets_one_sentence(what):
    wrap, body, status, sentence = MISTAKES[what]
    text = f"def sample(log_prob, grad, dim, budget, rng):\n    {body}"
    scope = {"np": np, "torch": torch}
    exec(text, scope)
    reported, message = outcome(wrap("mine", scope["sample"]), 200)
    assert reported is status and re.search(sentence, message), message
    assert "\n" not in message and ("mine" in message or what == "an error of its own")


def test_a_target_s_own_fault_is_named_whatever_the_function_makes_of_it():
    class Broken(Gaussian):
        def log_rho(self, x):
            return super().log_rho(x) * torch.nan

    def sample(log_prob, grad, dim, budget, rng):
        try:
            log_prob(np.zeros((5, dim)))
        except Exception:
            return np.zeros((5, dim))

    status, message = outcome(from_numpy("mine", sample), 200, target=Broken())
    assert status is Status.DIVERGED and "log rho of gaussian is nan" in message


def takes_too_few(log_prob, grad, dim, budget):
    pass


def has_no_default(log_prob, grad, dim, budget, rng, steps):
    pass


def has_a_list(log_prob, grad, dim, budget, rng, sizes=[1]):  # noqa: B006
    pass


def takes_a_name(log_prob, grad, dim, budget, rng, draw=3):
    pass


@pytest.mark.parametrize(
    "sample, sentence",
    [
        (takes_too_few, r"cannot be called as sample\(log_prob, grad, dim, budget, rng\)"),
        (has_no_default, "steps.*give further parameters defaults"),
        (has_a_list, r"sizes of mine has the default \[1\]; a parameter is a number"),
        (takes_a_name, "draw of mine is a name that samplers use; choose another"),
        (7, "mine is made from a int; give a function"),
    ],
)
def test_a_function_that_cannot_be_called_says_so_at_once(sample, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_numpy("mine", sample)


class TestJax:
    @pytest.fixture(autouse=True)
    def jax(self):
        return pytest.importorskip("jax", reason="needs the extra `jax`")

    def test_points_under_vmap_are_one_batch(self, jax):
        calls = []

        def sample(log_prob, grad, dim, budget, rng):
            x = jax.random.normal(rng, (6, dim))
            value, slope = jax.jit(jax.vmap(jax.value_and_grad(log_prob)))(x)
            np.testing.assert_allclose(value, -((x - 1) ** 2).sum(-1) * 2, rtol=1e-5)
            np.testing.assert_allclose(slope, -4 * (x - 1), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(jax.vmap(grad)(x), slope, rtol=1e-5)
            return x

        method = from_jax("mine", sample)
        before = LogDensity.both

        def counted(self, x):
            calls.append(tuple(x.shape))
            return before(self, x)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LogDensity, "both", counted)
            meter, draws = outcome(method, 100)
        assert calls == [(6, 2), (6, 2)] and meter.spent == Cost(12, 12)
        assert draws.x.dtype == torch.float32

    def test_the_budget_is_enforced_inside_jit(self, jax):
        def sample(log_prob, grad, dim, budget, rng):
            yield np.full((3, dim), 2.0)

            def body(i, x):
                return x + 0.01 * grad(x)

            yield jax.jit(lambda x: jax.lax.fori_loop(0, 1000, body, x))(np.zeros((3, dim)))

        meter, draws = outcome(from_jax("mine", sample), 100)
        assert meter.spent == Cost(99, 99) and (draws.x == 2).all()

    @pytest.mark.parametrize(
        "body, sentence",
        [
            ("log_prob(torch.zeros(5, dim))", "torch.Tensor; from_jax takes arrays"),
            ("log_prob(np.zeros((5, dim), int))", "at x of int.*floating-point"),
            ("jax.vmap(log_prob)(np.zeros((5, 3)))", r"of shape \(3,\); it takes points of 2"),
        ],
    )
    def test_mistakes(self, jax, body, sentence):
        scope = {"jax": jax, "np": np, "torch": torch}
        exec(f"def sample(log_prob, grad, dim, budget, rng):\n    {body}", scope)
        status, message = outcome(from_jax("mine", scope["sample"]), 100)
        assert status is Status.FAILED and re.search(sentence, message), message
