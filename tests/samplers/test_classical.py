"""The classical samplers against closed forms; every test runs over whatever the folder holds."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Generator, Tensor

from tiltbench.run.meter import BudgetExceeded, Meter
from tiltbench.samplers.classical import _leapfrog, rwm
from tiltbench.samplers.classical._anneal import Schedule, log_mean_weight, refined
from tiltbench.samplers.classical._chains import rescued
from tiltbench.samplers.classical._leapfrog import evaluate, move, move_each, score, spread_out
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.samplers.sampler import Draws, Unsupported
from tiltbench.samplers.weights import log_mean_exp
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.cost import Cost
from tiltbench.targets.densities.dw4 import Dw4
from tiltbench.targets.problem import Problem, pose
from tiltbench.targets.target import Density, Truth
from tiltbench.targets.tilts.tilt_linear import TiltLinear

NAMES = sorted(n for n, e in SAMPLERS.entries.items() if e.path.parent.name == "classical")
BLIND = ("rwm",)  # without a gradient
EVERYTHING = 10**6  # draws asked for: all there are


@dataclass(frozen=True)
class Oval(Density):
    """exp(1.3) N(x; mean, diag sd^2)."""

    name: ClassVar[str] = "oval"
    dim: int = 3
    scale: float = 1.2
    mean: ClassVar = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)
    sd: ClassVar = torch.tensor([0.5, 1.0, 0.7], dtype=torch.float64)
    log_Z: ClassVar[float] = 1.3

    def log_rho(self, x):
        z = (x - self.mean.to(x)) / self.sd.to(x)
        constant = self.sd.log().sum().item() + self.dim * math.log(math.sqrt(2 * math.pi))
        return self.log_Z - z.square().sum(-1) / 2 - constant

    def sample(self, n: int, generator: Generator) -> Tensor:
        z = torch.randn((n, self.dim), generator=generator, dtype=torch.float64)
        return self.mean + self.sd * z

    def truth(self):
        return Truth("closed form", self.log_Z)

    @property
    def moments(self) -> Tensor:
        return torch.cat([self.mean, self.mean.square() + self.sd.square()])


@dataclass(frozen=True)
class Half(Density):
    """exp(-|x|^2/2) for x_1 > 0 and no density elsewhere, in two dimensions."""

    name: ClassVar[str] = "half"
    dim: int = 2
    scale: float = 1.0
    log_Z: ClassVar[float] = math.log(math.pi)

    def log_rho(self, x):
        return torch.where(x[..., 0] > 0, -x.square().sum(-1) / 2, -torch.inf)

    def sample(self, n: int, generator: Generator) -> Tensor:
        z = torch.randn((n, self.dim), generator=generator, dtype=torch.float64)
        return torch.stack([z[:, 0].abs(), z[:, 1]], 1)

    def truth(self):
        return Truth("closed form", self.log_Z)

    @property
    def moments(self) -> Tensor:
        return torch.tensor([math.sqrt(2 / math.pi), 0.0, 1.0, 1.0], dtype=torch.float64)


@dataclass(frozen=True)
class Pair(Density):
    """2/3 N((-2, 0), .3 I) + 1/3 N((2, 0), .3 I)."""

    name: ClassVar[str] = "pair"
    dim: int = 2
    scale: float = 1.5
    log_Z: ClassVar[float] = 0.0

    def log_rho(self, x):
        left, right = (
            -(x - torch.tensor([m, 0.0]).to(x)).square().sum(-1) / 0.6 for m in (-2.0, 2.0)
        )
        both = torch.logaddexp(left + math.log(2), right)
        return both - math.log(3) - math.log(2 * math.pi * 0.3)

    def sample(self, n: int, generator: Generator) -> Tensor:
        x = math.sqrt(0.3) * torch.randn((n, 2), generator=generator, dtype=torch.float64)
        x[:, 0] += torch.where(torch.arange(n) * 3 < 2 * n, -2.0, 2.0)
        return x

    def truth(self):
        return Truth("closed form", self.log_Z)

    @property
    def moments(self) -> Tensor:
        return torch.tensor([-2 / 3, 0.0, 4.3, 0.3], dtype=torch.float64)


@dataclass(frozen=True)
class Steep(Density):
    """The quartic double well, started far outside: a leapfrog step too long overflows at once."""

    name: ClassVar[str] = "steep"
    dim: int = 4
    scale: float = 10.0

    def log_rho(self, x):
        return (-(x**4) + 6 * x**2).sum(-1)

    def truth(self):
        return Truth("unknown")


class Leaning(TiltLinear):
    """r = c.x on two Gaussians near enough for chains to mix: a base that is no reference."""

    base = MixtureFlow((0.4, 0.6), ((-0.6, 0.0), (0.6, 0.5)), (0.3, 0.2))
    log_Z = property(lambda self: self.truth().log_Z)
    log_rho = TiltLinear.reward

    def sample(self, n: int, generator: Generator) -> Tensor:
        return self.truth().sample(n, generator)

    @property
    def moments(self) -> Tensor:
        law = self._tilted[1]
        square = law.mean.square() + law.var[:, None]
        return law.weight @ torch.cat([law.mean, square], -1)


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def play(sampler, target: Density, points: int, seed: int):
    """As the harness does: init, then step until the budget is spent or the sampler is done."""
    meter = Meter(Cost(points, points))
    problem = pose(target, sampler.reference, meter.watch)
    generator = seeded(seed)
    state = sampler.init(problem, Cost(points, points), generator)
    try:
        while not sampler.done(state):
            state = sampler.step(problem, state, generator)
    except BudgetExceeded:
        pass
    return problem, state, meter


def short(name: str, islands: int = 6):
    """With trajectories of two leaps where it has any: five cost twice as much, and
    `test_exact_draws_stay_exact` makes them.  With fewer temperatures and more particles at each,
    for equal points: a temperature costs the same time for any number of particles."""
    sampler = SAMPLERS.load(name)()
    if hasattr(sampler, "islands"):
        return replace(sampler, islands=islands, particles_per_beta=40.0)
    return replace(sampler, leaps=2) if hasattr(sampler, "leaps") else sampler


def by_group(draws: Draws, values: Tensor) -> Tensor:
    """The means of groups, which are independent: a row each."""
    return torch.stack([values[draws.group == k].mean(0) for k in draws.group.unique()])


def draws_of(
    name: str, target: Density, points: int, seed: int, n: int = EVERYTHING, islands: int = 2
) -> Draws:
    sampler = short(name, islands)
    problem, state, _ = play(sampler, target, points, seed)
    return sampler.draw(problem, state, n, seeded(seed + 10_000))


def weighted(name: str) -> bool:
    sampler = SAMPLERS.load(name)()
    problem = pose(Oval(), sampler.reference)
    state = sampler.init(problem, Cost(1_000, 1_000), seeded(0))
    return sampler.draw(problem, state, 1, seeded(0)).log_w is not None


WEIGHTED = [name for name in NAMES if weighted(name)]


def moments(x: Tensor) -> Tensor:
    return torch.cat([x, x.square()], -1)


def z_scores(values: Tensor, truth: Tensor | float) -> Tensor:
    """Over the first dimension of independent values."""
    se = values.std(0) / math.sqrt(len(values))
    return (values.mean(0) - truth) / se


# --- the laws ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(name, target, marks=marks, id=f"{name}-{target.name}")
        for name in NAMES
        for target in (Oval(), Half(), Leaning())
        # where Z and Z times every moment are unbiased, so is their ratio
        for marks in (pytest.mark.slow if name in WEIGHTED and target != Oval() else (),)
    ],
)
def test_moments_match_the_closed_form(name, target):
    runs = []
    seeds, points = (8, 2_000) if name in WEIGHTED else (2, 4_000)
    for seed in range(seeds):
        draws = draws_of(name, target, points, seed, n=1_500)
        inside = draws.log_w > -torch.inf if name in WEIGHTED else slice(None)
        assert target.log_rho(draws.x[inside]).isfinite().all()
        if name in WEIGHTED:
            runs.append((torch.softmax(draws.log_w.double(), 0) @ moments(draws.x))[None])
        else:
            runs.append(by_group(draws, moments(draws.x)))
    values = torch.cat(runs)
    assert len(values) >= 8 and z_scores(values, target.moments).abs().max() < 4


@pytest.mark.parametrize("target", [Half(), Pair(), Leaning()], ids=["half", "pair", "tilt"])
@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_are_unbiased_for_Z_and_for_Z_times_any_mean(name, target):
    runs = []
    for seed in range(14):
        draws = draws_of(name, target, 1_000, seed, n=60)
        w = (draws.log_w - target.log_Z).exp()
        runs.append(torch.cat([w.mean()[None], (w[:, None] * moments(draws.x)).mean(0)]))
    truth = torch.cat([torch.ones(1, dtype=torch.float64), target.moments])
    z = z_scores(torch.stack(runs), truth)
    assert z.abs().max() < 4
    spread = torch.stack(runs)[:, 0].std()
    assert spread < 1.0, "weights so wild that the test says nothing"


@pytest.mark.parametrize("name", WEIGHTED)
def test_own_log_Z_has_an_honest_error(name):
    z = []
    for seed in range(12):
        estimate = draws_of(name, Oval(), 1_500, seed, islands=6).log_Z
        z.append((estimate.value - Oval.log_Z) / estimate.se)
    rms = torch.tensor(z).square().mean().sqrt()
    assert 0.6 < rms < 1.9  # six islands: Student's t with 5 degrees of freedom has rms 1.3


@pytest.mark.parametrize("name", WEIGHTED)
def test_draws_of_one_group_share_its_estimate_of_Z(name):
    draws = draws_of(name, Pair(), 3_000, 0, islands=6)
    group = torch.arange(len(draws.x)) if draws.group is None else draws.group
    each = torch.stack([draws.log_w[group == k][0] for k in group.unique()])
    assert torch.equal(draws.log_w, each[group])
    assert draws.log_Z.n == len(each)
    assert draws.log_Z.value == pytest.approx(log_mean_exp(each))


@pytest.mark.parametrize("rungs", [1, 2, 5, 7, 8, 40])
def test_a_refined_ladder_rises_to_one(rungs):
    coarse = Schedule(*torch.tensor([[0.1, 0.2, 0.4, 0.7, 1.0], [0.0, -1.0, -2.0, -3.0, -4.0]]))
    coarse = Schedule(coarse.betas.double(), coarse.log_sizes.double())
    fine = refined(coarse, rungs)
    assert len(fine.betas) == len(fine.log_sizes) == rungs
    assert fine.betas[-1] == 1.0 and fine.log_sizes[-1] == -4.0
    assert (fine.betas.diff() > 0).all() and fine.betas[0] > 0
    if rungs == len(coarse.betas):
        assert torch.allclose(fine.betas, coarse.betas)
        assert torch.allclose(fine.log_sizes, coarse.log_sizes)


def test_error_of_log_mean_weight():
    log_w = 0.7 * torch.randn((400, 500), generator=seeded(3), dtype=torch.float64)
    estimates = [log_mean_weight(row) for row in log_w]
    spread = torch.tensor([e.value for e in estimates]).std().item()
    assert sum(e.se for e in estimates) / len(estimates) == pytest.approx(spread, rel=0.12)
    few = log_mean_weight(torch.tensor([1.0, 3.0]).log())  # mean 2 with sd sqrt(2), of a sample
    assert few.value == pytest.approx(math.log(2)) and few.se == pytest.approx(0.5)
    assert log_mean_weight(log_w[0, :1]).se == math.inf
    assert log_mean_weight(torch.full((5,), -torch.inf)) == (-math.inf, math.inf, 5)


# --- the kernel -------------------------------------------------------------------------------


def posed(target: Density) -> Problem:
    return pose(target, Brownian())


@pytest.mark.parametrize("size", [0.6, 1.1])
@pytest.mark.parametrize("leaps", [1, 5])
@pytest.mark.parametrize(
    "target", [Oval(), Half(), Pair(), Leaning()], ids=["oval", "half", "pair", "tilt"]
)
def test_exact_draws_stay_exact(target, leaps, size):
    problem, generator = posed(target), seeded(1)
    at = evaluate(problem, target.sample(4_000, generator))
    for _ in range(20 // leaps):
        at, chance = move(problem, at, 1.0, size, leaps, generator)
    assert 0.1 < chance < 0.95
    assert z_scores(moments(at.x), target.moments).abs().max() < 4


@pytest.mark.parametrize("target", [Oval(), Leaning()], ids=["oval", "tilt"])
def test_score_is_the_gradient_of_the_tempered_law(target):
    """A wrong one is mended by the Metropolis test, at the cost of speed: no other test sees it."""
    problem = posed(target)
    at = evaluate(problem, target.sample(20, seeded(6)))
    x = at.x.clone().requires_grad_()
    log_p = problem.base.log_end(x) + 0.4 * problem.reward(x)
    (expected,) = torch.autograd.grad(log_p.sum(), x)
    assert torch.allclose(score(problem.base, at, 0.4), expected)


def test_tempered_law_is_the_geometric_mixture():
    """p_base^(1-beta) rho^beta of two Gaussians is a Gaussian."""
    target, beta, generator = Oval(), 0.4, seeded(2)
    problem = posed(target)
    precision = (1 - beta) / target.scale**2 + beta / target.sd**2
    mean = beta * target.mean / target.sd**2 / precision
    x = mean + torch.randn((6_000, 3), generator=generator, dtype=torch.float64) / precision.sqrt()
    at = evaluate(problem, x)
    for _ in range(30):
        at, _ = move(problem, at, beta, 0.9, 1, generator)
    truth = torch.cat([mean, mean.square() + 1 / precision])
    assert z_scores(moments(at.x), truth).abs().max() < 4


@pytest.mark.parametrize(
    ("leaps", "order"),
    [((1, 1, 1), 3), ((8, 16, 32), 2)],
    ids=["one leap errs by h^3", "a trajectory of given length by h^2"],
)
def test_orders_of_the_leapfrog(leaps, order):
    target = Pair()
    at = evaluate(posed(target), target.sample(4_000, seeded(0)))
    sizes = [0.06, 0.03, 0.015] if leaps[0] == 1 else [0.6 / n for n in leaps]
    rejected = [
        1 - move(posed(target), at, 1.0, size, n, seeded(5))[1]
        for size, n in zip(sizes, leaps, strict=True)
    ]
    slope = torch.tensor(rejected).log().diff() / torch.tensor(sizes).log().diff()
    assert slope == pytest.approx([order, order], abs=0.15)


def test_a_trajectory_that_overflows_is_refused():
    generator = seeded(0)
    problem = posed(Steep())
    at = evaluate(problem, problem.base.end((64, 4), generator, torch.float64))
    after, chance = move(problem, at, 1.0, 1e3, 12, generator)
    assert chance == 0
    assert torch.equal(after.x, at.x) and torch.equal(after.g, at.g)


def test_moves_keep_the_centre_of_mass():
    """Momenta and proposals are drawn on the subspace of the particles."""
    problem = pose(Dw4(), Brownian())
    start = problem.base.end((30, 8), seeded(0), torch.float64)
    for after in (
        move_each(problem, evaluate(problem, start), 1.0, 0.05, 3, seeded(1))[0],
        rwm.moved(problem, evaluate(problem, start), torch.tensor(0.05), seeded(1))[0],
    ):
        assert (after.x != start).any(-1).double().mean() > 0.5
        assert after.x.unflatten(-1, (4, 2)).mean(-2).abs().max() < 1e-12


def test_the_ball_of_trajectories_is_one_of_rms_coordinates(monkeypatch):
    """A coordinate beyond its radius is still inside where the others are short."""
    monkeypatch.setattr(_leapfrog, "FAR", 1.0)
    problem = posed(Oval())
    inside = torch.tensor([[1.4, 0.1, 0.0], [1.0, -1.0, 0.9]]) * problem.base.spread
    outside = torch.tensor([[1.9, 0.0, 0.0], [1.1, -1.1, 1.0]]) * problem.base.spread
    for x, lost in ((inside, False), (outside, True)):
        at = evaluate(problem, x.double())
        chance = move_each(problem, at, 1.0, 1e-9, 1, seeded(3))[1]
        assert ((chance == 0) == lost).all()


def test_a_trajectory_that_leaves_is_lost_though_it_comes_back(monkeypatch):
    """Or the kernel would not be reversible: the way back leaves the ball as well."""
    monkeypatch.setattr(_leapfrog, "FAR", 1.0)
    problem = posed(Oval())
    base, x = problem.base, Oval().sample(400, seeded(1))
    x = x[x.square().mean(-1) < base.spread**2]
    at = here = evaluate(problem, x)
    after, chance = move_each(problem, at, 1.0, 0.5, 8, seeded(2))
    generator = seeded(2)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    h = 0.5 * (2 * torch.rand((len(x), 1), generator=generator, dtype=x.dtype) - 1).exp()
    left = torch.zeros(len(x), dtype=torch.bool)
    for _ in range(8):  # as if there were no ball
        v = v + h / 2 * score(base, here, 1.0)
        here = evaluate(problem, here.x + h * v)
        v = v + h / 2 * score(base, here, 1.0)
        out = here.x.square().mean(-1) >= base.spread**2
        left |= out
    assert (left & ~out).sum() > 20 and (left & out).sum() > 20 and (~left).sum() > 20
    assert not chance[left].any() and (chance[~left] > 0).all()
    assert torch.equal(after.x[left], x[left])


def test_lost_points_find_the_support():
    problem, generator = posed(Half()), seeded(0)
    at = evaluate(problem, -6 * torch.ones((50, 2), dtype=torch.float64))
    assert (at.r == -torch.inf).all()
    for _ in range(200):
        at, _ = move(problem, at, 1.0, 0.5, 1, generator)
    assert (at.x[:, 0] > 0).all() and at.r.isfinite().all()


def test_lost_chains_go_on_from_where_others_are():
    x = torch.linspace(-3, 1, 40, dtype=torch.float64)[:, None].expand(40, 2)
    at = evaluate(posed(Half()), x)
    after = rescued(at, seeded(0))
    inside = x[:, 0] > 0
    assert after.r.isfinite().all()
    assert torch.equal(after.x[inside], x[inside])
    assert torch.isin(after.x[~inside], x[inside]).all()
    with pytest.raises(Unsupported, match="none of 40 chains"):
        rescued(evaluate(posed(Half()), -x.abs() - 1), seeded(0))


def test_spread_out_takes_all_times_even_at_one_a_chain():
    index = spread_out(50, 10, 50, seeded(0))
    assert len((index % 10).unique()) > 5


@pytest.mark.parametrize("n", [1, 7, 40, 59, 60, 100])
def test_spread_out_is_even_and_without_replacement(n):
    counts = torch.zeros(60)
    for seed in range(200):
        index = spread_out(6, 10, n, seeded(seed))
        assert len(index.unique()) == len(index) == min(n, 60)
        each = torch.bincount(index // 10, minlength=6)
        assert each.max() - each.min() <= 1
        counts += torch.bincount(index, minlength=60)
    share = min(n / 60, 1.0)
    deviation = (counts / 200 - share) / math.sqrt(max(share * (1 - share) / 200, 1e-9))
    assert deviation.abs().max() < 4


# --- the contract -----------------------------------------------------------------------------


@pytest.mark.parametrize("points", [1_000, 12_000])
@pytest.mark.parametrize("name", NAMES)
def test_spends_the_budget_and_no_more(name, points):
    sampler = short(name)
    problem, state, meter = play(sampler, Oval(), points, 0)
    assert meter.budget.covers(meter.spent)
    assert meter.spent.share(meter.budget) > 0.85
    assert meter.spent.grads == (0 if name in BLIND else meter.spent.values)
    if name in WEIGHTED:
        assert sampler.done(state), "the plan fits the budget: no island is cut short"
    before = meter.spent
    draws = sampler.draw(problem, state, 100, seeded(1))
    assert meter.spent == before, "drawing is free"
    assert 0 < len(draws.x) <= 100 and draws.x.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_too_small_a_budget_is_refused_with_the_least(name):
    sampler = SAMPLERS.load(name)()
    problem = pose(Oval(), sampler.reference)
    with pytest.raises(Unsupported, match="least is") as caught:
        sampler.init(problem, Cost(20, 20), seeded(0))
    least = int(str(caught.value).rsplit(maxsplit=1)[-1])
    with pytest.raises(Unsupported):
        sampler.init(problem, Cost(least, least - 1), seeded(0))
    problem, state, meter = play(sampler, Oval(), least, 0)
    assert meter.spent.values <= least
    assert sampler.draw(problem, state, 50, seeded(0)).x.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_base_without_density_is_refused(name):
    sampler = SAMPLERS.load(name)()
    problem = Problem(2, object(), lambda x: -x.square().sum(-1))  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="known density"):
        sampler.init(problem, Cost(10_000, 10_000), seeded(0))


def leaves(tree) -> list:
    if isinstance(tree, tuple):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree.clone() if isinstance(tree, Tensor) else tree]


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_step_leaves_the_state_it_was_given(name):
    """Also where the meter stops it half-way."""
    sampler = short(name)
    meter = Meter(Cost(5_000, 5_000))
    problem, generator = pose(Oval(), sampler.reference, meter.watch), seeded(0)
    state = sampler.init(problem, Cost(6_000, 6_000), generator)  # promised more than there is
    with pytest.raises(BudgetExceeded):
        while True:
            copy = leaves(state)
            new = sampler.step(problem, state, generator)
            assert same(copy, leaves(state))
            state = new
    assert same(copy, leaves(state))


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_draws(name):
    """After the first steps, of every kind: what follows repeats them."""

    def draws_with(seed):
        sampler = short(name, islands=2)
        problem, generator = pose(Oval(), sampler.reference), seeded(seed)
        state = sampler.init(problem, Cost(1_000, 1_000), generator)
        for _ in range(12):
            if sampler.done(state):
                break
            state = sampler.step(problem, state, generator)
        return sampler.draw(problem, state, 100, seeded(seed)).x

    one, two, other = draws_with(4), draws_with(4), draws_with(5)
    assert torch.equal(one, two)
    assert not torch.equal(one[:3], other[:3])


@pytest.mark.parametrize("name", NAMES)
def test_draws_at_any_moment_are_sane(name):
    """From the first moment on; before there is an island, weighted draws of the base."""
    sampler = SAMPLERS.load(name)()
    problem, generator = pose(Oval(), sampler.reference), seeded(0)
    state = sampler.init(problem, Cost(5_000, 5_000), generator)
    for _ in range(3):
        draws = sampler.draw(problem, state, 40, seeded(1))
        assert 0 < len(draws.x) <= 40 and draws.x.isfinite().all()
        if draws.log_w is not None:
            assert draws.log_w.shape == draws.x.shape[:1]
            assert abs(log_mean_exp(draws.log_w) - Oval.log_Z) < 1.0
        state = sampler.step(problem, state, generator)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(WEIGHTED)))
def test_the_warm_up_finds_the_wanted_acceptance(name):
    sampler = SAMPLERS.load(name)()
    _, state, _ = play(sampler, Oval(), 10_000, 0)
    size = sampler.tensors(state)["log_size"].exp()
    problem, generator = posed(Oval()), seeded(3)
    at = evaluate(problem, Oval().sample(4_000, generator))
    leaps = getattr(sampler, "leaps", 1)
    if name in BLIND:
        _, chance = rwm.moved(problem, at, size, generator)
    else:
        _, chance = move(problem, at, 1.0, size, leaps, generator)
    assert chance == pytest.approx(sampler.acceptance, abs=0.12)


def test_a_random_walk_keeps_the_step_it_is_given():
    """A part of the warm-up tunes it, or none; without a gradient its chains stay exact."""
    given = rwm.Rwm(step_size=0.7, tuned=0.0)
    _, state, _ = play(given, Oval(), 4_000, 0)
    assert float(state.log_size) == pytest.approx(math.log(0.7))
    _, half, _ = play(replace(given, tuned=0.5), Oval(), 4_000, 0)
    assert half.stored and float(half.log_size) != pytest.approx(math.log(0.7))
    problem, generator = posed(Half()), seeded(1)
    at = rwm.valued(problem, Half().sample(4_000, generator))
    for _ in range(20):
        at, chance = rwm.moved(problem, at, torch.tensor(1.0), generator)
    assert 0.3 < chance < 0.8 and not at.g.any()
    assert z_scores(moments(at.x), Half().moments).abs().max() < 4


@pytest.mark.parametrize("name", NAMES)
def test_a_far_start_does_not_diverge(name):
    draws = draws_of(name, Steep(), 12_000 if name in BLIND else 4_000, 0, n=500)
    log_w = torch.zeros(len(draws.x)) if draws.log_w is None else draws.log_w
    x = draws.x[log_w > log_w.max() - 20]
    assert (x.square().mean(-1).sqrt() < 2.5).double().mean() > 0.6
