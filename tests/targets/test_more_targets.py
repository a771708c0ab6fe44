"""student_mixture, rings, gmm40_d50, logistic_cancer: what test_targets.py does not ask of all."""

import importlib.util
import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from tests.tools.laplace import laplace
from tests.tools.worlds import rng, z_score
from tiltbench.estimators import bar, overlap
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.targets.cost import Cost
from tiltbench.targets.problem import pose
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.target import DATA, table

EVIDENCE, EVIDENCE_SE = -55.2248, 0.0036  # Bennett from Laplace, 512 chains of HMC x 200 states


def load(name):
    return TARGETS.load(name)()


def stored(name):
    return table(name, torch.zeros((), dtype=torch.float64))


def maker(name):
    spec = importlib.util.spec_from_file_location(f"make_{name}", DATA / f"make_{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# frozen data


@pytest.mark.parametrize("name", ["gmm40_d50", "student_mixture"])
def test_frozen_means_are_those_of_the_stated_command(name):
    assert torch.equal(maker(name).means(), stored(name))


def test_frozen_cells_are_those_of_the_stated_command():
    cells = maker("student_mixture").cells(stored("student_mixture"))
    assert torch.allclose(cells, stored("student_mixture_cells"), rtol=0, atol=1e-11)


def test_rows_of_the_cancer_data():
    """357 benign and 212 malignant, then standardised features in 30 columns."""
    rows = stored("logistic_cancer")
    label = rows[:, 0]
    assert rows.shape == (569, 31)
    assert (int((label == 1).sum()), int((label == -1).sum())) == (357, 212)
    features = label[:, None] * rows[:, 1:]
    assert features.mean(0).abs().max() < 1e-12
    assert (features.square().mean(0) - 1).abs().max() < 1e-12
    # radius and area, of which the malignant have more
    assert (features[:, [0, 3]] * label[:, None]).mean() < -0.5


def test_rows_of_the_cancer_data_are_those_of_scikit_learn():
    pytest.importorskip("sklearn")
    rows = torch.from_numpy(maker("logistic_cancer").signed_rows())
    assert torch.allclose(rows, stored("logistic_cancer"), rtol=0, atol=1e-12)


# the laws


def test_means_of_gmm40_d50_are_far_apart():
    """Half the distance is 75 sds: what a cell lacks of 1/40 is below e^-2800."""
    assert torch.pdist(stored("gmm40_d50")).min() > 150


def test_rings_hold_tenths_and_log_Z_as_computed_elsewhere():
    """30-digit quadrature gives log Z 3.16228070772 and the first ring 0.0999966377."""
    truth = load("rings").truth()
    assert truth.log_Z == pytest.approx(3.16228070772, abs=1e-10)
    assert truth.modes.weight[0] == pytest.approx(0.0999966376635, abs=1e-8)
    assert torch.allclose(truth.modes.weight, torch.arange(1, 5).double() / 10, atol=1e-5)


def test_the_rings_gradient_at_the_cone():
    x = torch.zeros(3, 2, requires_grad=True)
    (g,) = torch.autograd.grad(load("rings").log_rho(x).sum(), x)
    assert torch.equal(g, torch.zeros(3, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_student_tails(dtype):
    """p falls like |x|^-4 along each axis: x^4 y^4 p -> (6 sqrt 3 / pi)^2, far outside."""
    x = torch.tensor([[1e7, -1e7], [1e6, 1e6]], dtype=dtype, requires_grad=True)
    log_p = load("student_mixture").log_rho(x)
    tail = log_p.detach().double() + 4 * x.detach().double().abs().log().sum(-1)
    expected = 2 * math.log(6 * math.sqrt(3) / math.pi)
    assert (tail - expected).abs().max() < (1e-4 if dtype == torch.float32 else 2e-5)
    (g,) = torch.autograd.grad(log_p.sum(), x)
    assert torch.allclose(x.detach() * g, torch.full_like(x, -4.0), rtol=1e-4)


# the evidence of logistic_cancer


def test_laplace_is_exact_for_a_gaussian():
    root = torch.randn(5, 5, generator=rng(0), dtype=torch.float64)
    mean = torch.arange(5).double()

    def log_rho(x):
        return 0.7 - ((x - mean) @ root).square().sum(-1) / 2

    near = laplace(log_rho, torch.zeros(5))
    _, log_det = torch.linalg.slogdet(root)
    assert torch.allclose(near.mode, mean)
    assert near.log_Z == pytest.approx(0.7 + 2.5 * math.log(2 * math.pi) - float(log_det))
    x = near.sample(20_000, rng(1))
    assert torch.allclose(near.log_density(x) + near.log_Z, log_rho(x))
    moved = (x - mean) @ root  # standard normal
    second = moved[:, :, None] * moved[:, None] - torch.eye(5)
    assert (second.mean(0) / (second.std(0) / math.sqrt(20_000))).abs().max() < 4


def test_laplace_needs_a_mode():
    with pytest.raises(ValueError, match="no mode"):
        laplace(lambda x: x.square().sum(-1), torch.ones(2))


def score(x):
    """grad log rho of logistic_cancer, by hand."""
    rows = stored("logistic_cancer")
    return torch.sigmoid(-x @ rows.T) @ rows - x


def chains(target, near, n, moves, generator, size=0.28, leaps=6):
    """HMC from wide draws around the mode, in units of the Laplace approximation: the last states,
    every tenth move after 60, (kept, n, D)."""
    back = torch.linalg.inv(near.factor)  # x = mode + q back

    def slope(q):
        return score(near.mode + q @ back) @ back.T

    def height(q):
        return target.log_rho(near.mode + q @ back)

    q, states = 1.5 * torch.randn(n, target.dim, generator=generator, dtype=torch.float64), []
    for move in range(moves):
        p = torch.randn(q.shape, generator=generator, dtype=torch.float64)
        step = size * (0.8 + 0.4 * torch.rand((), generator=generator, dtype=torch.float64))
        new, v = q, p + step / 2 * slope(q)
        for leap in range(leaps):
            new = new + step * v
            v = v + (step if leap < leaps - 1 else step / 2) * slope(new)
        rise = height(new) - height(q) - (v.square() - p.square()).sum(-1) / 2
        coin = torch.rand(n, generator=generator, dtype=torch.float64)
        q = torch.where((coin.log() < rise)[:, None], new, q)
        if move >= 60 and move % 10 == 0:
            states.append(near.mode + q @ back)
    return torch.stack(states)


def test_evidence_by_bennett_from_laplace():
    """Both sides, against the figure of a long run and the stored reference where there is one."""
    target, n = load("logistic_cancer"), 128
    near = laplace(target.log_rho, torch.zeros(target.dim))
    assert near.log_Z == pytest.approx(-55.63197, abs=1e-4)
    x = chains(target, near, n, 130, rng(2))
    y = near.sample(x.shape[0] * n, rng(3))
    forward = target.log_rho(y) - near.log_density(y)
    reverse = target.log_rho(x) - near.log_density(x)
    assert overlap(forward, reverse.flatten()).value > 0.4
    groups = [
        bar(f.flatten(), r.flatten()).value
        for f, r in zip(forward.reshape(-1, n).chunk(8, 1), reverse.chunk(8, 1), strict=True)
    ]
    estimates = torch.tensor(groups)
    se = float(estimates.std()) / math.sqrt(8)
    assert se < 0.05
    assert abs(float(estimates.mean()) - EVIDENCE) < 4 * math.hypot(se, EVIDENCE_SE)
    truth = target.truth()
    if truth.log_Z is not None:
        assert abs(truth.log_Z - EVIDENCE) < 4 * math.hypot(truth.log_Z_se, EVIDENCE_SE)
        likelihood = logsigmoid(x @ stored("logistic_cancer").T).sum(-1).mean(0)
        assert abs(z_score(likelihood, truth.observables["log_likelihood"].mean)) < 4


@pytest.mark.slow
def test_evidence_by_smc():
    """The second method: annealing from the prior-wide base knows nothing of Laplace's Gaussian."""
    target, sampler, errors = load("logistic_cancer"), SAMPLERS.load("smc")(), []
    points = Cost(100_000, 100_000)
    for seed in range(10):
        problem, generator = pose(target, sampler.reference), rng(seed)
        state = sampler.init(problem, points, generator)
        while not sampler.done(state):
            state = sampler.step(problem, state, generator)
        errors.append(sampler.draw(problem, state, 500, rng(seed)).log_Z.value - EVIDENCE)
    assert abs(z_score(torch.tensor(errors).exp(), 1.0)) < 4


def test_the_score_by_hand_is_that_of_autograd():
    x = torch.randn(20, 31, generator=rng(0), dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(load("logistic_cancer").log_rho(x).sum(), x)
    assert torch.allclose(g, score(x))
