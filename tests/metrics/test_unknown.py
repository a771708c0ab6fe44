"""Scores of targets whose truth is unknown."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from tiltbench.metric import KINDS, Outcome, Unknown
from tiltbench.metrics.chains import ess_chains, r_hat
from tiltbench.metrics.estimates import elbo, log_Z_forward, log_Z_own
from tiltbench.metrics.ksd import ksd, stein
from tiltbench.metrics.log_Z import log_Z_err
from tiltbench.plan.spec import METRICS
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate
from tiltbench.score.evaluate import _missing
from tiltbench.targets.target import Density, Truth

HERE = ("ksd", "r_hat", "ess_chains", "log_Z_forward", "log_Z_own", "elbo")
NOTHING = Truth("unknown")


@dataclass(frozen=True)
class Wide(Density):
    """N(mean, sd^2 I) in three dimensions."""

    name = "wide"
    dim = 3
    sd: float = 2.0
    mean: float = 0.0

    @property
    def scale(self):
        return self.sd

    def log_rho(self, x):
        return -((x - self.mean) / self.sd).square().sum(-1) / 2

    def truth(self):
        return NOTHING


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scored(metric, x, group=None, target=None, **draws):
    outcome = Outcome(Draws(x, group=group, **draws), None, {})
    return metric.fn(target or Wide(), NOTHING, outcome, torch.Generator())


def chains(number, states):
    return torch.arange(number).repeat_interleave(states)


# --- kernel Stein discrepancy -------------------------------------------------------------------


def test_the_stein_kernel_is_that_of_its_definition():
    """s.t k + s.grad_y k + t.grad_x k + div_x grad_y k, by autograd."""
    x, y, s, t = normal(4, 3)
    length = 1.7

    def k(a, b):
        return (1 + (a - b).square().sum() / length**2) ** -0.5

    jacobian = torch.func.jacrev(torch.func.grad(k, argnums=1), argnums=0)(x, y)
    slopes = torch.func.grad(k, argnums=(0, 1))(x, y)
    wanted = s @ t * k(x, y) + s @ slopes[1] + t @ slopes[0] + jacobian.trace()
    found = stein(x[None], s[None], y[None], t[None], length, 3)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)


def test_exact_draws_score_zero_within_their_error_and_others_do_not():
    z = torch.tensor(
        [
            (estimate := scored(ksd, 2 * normal(150, 3, seed=seed))).value / estimate.se
            for seed in range(30)
        ]
    )
    assert abs(z.mean()) < 0.6 and 0.5 < z.std() < 1.5  # the law is skewed, its sd is 1
    for wrong in (2 * normal(150, 3) + 1, normal(150, 3), 3 * normal(150, 3)):
        estimate = scored(ksd, wrong)
        assert estimate.value > 3 * estimate.se


def test_it_has_no_unit():
    x = normal(60, 3)
    one = scored(ksd, 2.5 * x)
    ten = scored(ksd, 25 * x, target=Wide(sd=20.0))
    assert ten.value == pytest.approx(one.value, rel=1e-9) and ten.se == pytest.approx(one.se)


@dataclass(frozen=True)
class Chain(Density):
    """Springs between three particles on the line, whose centre of mass does not count."""

    name = "chain"
    dim = 3
    particles = (3, 1)

    def log_rho(self, x):
        return -self.project(x).square().sum(-1) / 2

    def truth(self):
        return NOTHING


def test_it_counts_the_dimensions_of_the_subspace():
    """Without its centre of mass a law of three coordinates is one of two, draw by draw."""
    axes = torch.linalg.svd(torch.ones(1, 3, dtype=torch.float64)).Vh[1:]
    y = 1.3 * normal(40, 2)
    plane = Wide(sd=1.0)
    object.__setattr__(plane, "dim", 2)
    one, other = scored(ksd, y @ axes, target=Chain()), scored(ksd, y, target=plane)
    assert Chain().rank == 2 and one.n == other.n
    assert one.value == pytest.approx(other.value, rel=1e-9)
    assert one.se == pytest.approx(other.se, rel=1e-9)


@pytest.mark.parametrize(
    ("sizes", "shift", "by_draws"),
    [
        ([1] * 5, 0.0, True),
        ([1] * 5, 4.0, False),
        ([1, 3, 2], 0.0, False),
        ([3, 1, 1, 1, 1, 1], 1.0, True),
    ],
)
def test_value_and_error_of_few_draws_by_hand(sizes, shift, by_draws):
    """Pair by pair: the mean of h over pairs of other groups; twice the error of a draw's mean, or
    the root of twice the sum of squares over pairs of groups, whichever is larger."""
    group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    n = len(group)
    x = 2 * normal(n, 3, seed=1) + shift
    score = -x / 4
    h = stein(x, score, x, score, 2 * math.sqrt(6), 3)
    apart = group[:, None] != group
    pairs = int(apart.sum())
    value = float(h[apart].mean())
    each = torch.stack([h[i, apart[i]].mean() for i in range(n)])
    sums = [float((each - each.mean())[group == g].sum()) for g in range(len(sizes))]
    m = len(sizes)
    projected = 2 * math.sqrt(m / (m - 1) * sum(s * s for s in sums)) / n
    blocks = [h[group == a][:, group == b].sum() for a in range(m) for b in range(m) if a != b]
    exact = math.sqrt(2 * sum(float(b) ** 2 for b in blocks)) / pairs
    estimate = scored(ksd, x, group)
    assert estimate.value == pytest.approx(4 * value, rel=1e-9)
    assert estimate.se == pytest.approx(4 * max(projected, exact), rel=1e-9)
    assert (projected > exact) == by_draws  # both kinds of error are met


def test_draws_of_one_chain_are_not_compared_with_each_other():
    """Ten copies of each draw, a chain each, are the draws themselves."""
    x = 2 * normal(40, 3)
    copies = scored(ksd, x.repeat_interleave(10, 0), chains(40, 10))
    alone = scored(ksd, x)
    assert copies.value == pytest.approx(alone.value, rel=1e-9)
    assert copies.se == pytest.approx(alone.se, rel=1e-9) and copies.n == alone.n == 40


def test_many_draws_are_thinned_and_one_chain_is_told():
    estimate = scored(ksd, 2 * normal(2500, 3))
    assert estimate.n == 1000
    with pytest.raises(Unknown, match="1 independent draw"):
        scored(ksd, normal(50, 3), chains(1, 50))


# --- chains -------------------------------------------------------------------------------------


def test_independent_states_have_mixed_and_count_in_full():
    x, group = normal(2000, 3), chains(8, 250)
    assert 0.99 < scored(r_hat, x, group).value < 1.01
    assert 1500 < scored(ess_chains, x, group).value < 2600
    assert scored(r_hat, x, group).n == 8


def test_the_worst_statistic_counts():
    x, group = normal(2000, 3), chains(8, 250)
    x[:, 1] += 3 * (group % 2)  # two laws of one coordinate
    assert scored(r_hat, x, group).value > 1.3
    assert scored(ess_chains, x, group).value < 50


def test_chains_that_never_move_have_no_score():
    x = normal(8, 3).repeat_interleave(50, 0)
    for metric in (r_hat, ess_chains):
        with pytest.raises(Unknown, match="8 of 8 chains never move"):
            scored(metric, x, chains(8, 50))
    x[:50] = normal(50, 3)
    with pytest.raises(Unknown, match="7 of 8 chains never move"):
        scored(r_hat, x, chains(8, 50))


def test_too_few_states_are_told_with_the_remedy():
    with pytest.raises(Unknown, match="8 chains of 5 states: at least 2 of 10 .* more draws"):
        scored(ess_chains, normal(40, 3), chains(8, 5))
    with pytest.raises(Unknown, match="1 chains of 40 states"):
        scored(r_hat, normal(40, 3), chains(1, 40))


# --- estimates of log Z -------------------------------------------------------------------------


def test_an_estimate_is_its_error_plus_the_truth():
    log_w = -1.3 + 0.4 * normal(500)
    outcome = Outcome(Draws(normal(500, 3), log_w, None, Estimate(-1.2, 0.1, 5)), None, {})
    truth, g = Truth("closed form", log_Z=-1.3), torch.Generator()
    forward = log_Z_forward.fn(Wide(), NOTHING, outcome, g)
    error = log_Z_err.fn(Wide(), truth, outcome, g)
    assert forward.value == pytest.approx(error.value - 1.3) and forward.se == error.se
    below = elbo.fn(Wide(), NOTHING, outcome, g)
    assert below.value == pytest.approx(float(log_w.mean())) and below.value < forward.value
    assert log_Z_own.fn(Wide(), NOTHING, outcome, g) == (-1.2, 0.1, 5)


def test_heavy_weights_have_no_error_bar_and_a_zero_weight_no_elbo():
    heavy = scored(log_Z_forward, normal(400, 3), log_w=20 * normal(400))
    assert math.isnan(heavy.se) and "k_hat" in heavy.why
    log_w = normal(400)
    log_w[3] = -torch.inf
    with pytest.raises(Unknown, match="-inf"):
        scored(elbo, normal(400, 3), log_w=log_w)


# --- where they are -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", HERE)
def test_they_are_scored_of_unknown_truths_only(name):
    metric = METRICS.load(name)
    draws = Draws(normal(8, 3), None, chains(2, 4), Estimate(0.0, 0.1, 2))
    if "log_w" in metric.needs:
        draws = draws._replace(log_w=normal(8))
    outcome = Outcome(draws, None, {})
    assert _missing(metric, Wide(), NOTHING, outcome) == ""
    known = Truth("closed form", log_Z=0.0, sample=lambda n, g: normal(n, 3))
    assert _missing(metric, Wide(), known, outcome) in KINDS.values()  # no dash in the table


def test_weighted_draws_are_no_chains():
    outcome = Outcome(Draws(normal(8, 3), normal(8), chains(2, 4)), None, {})
    assert _missing(r_hat, Wide(), NOTHING, outcome) == "the draws are no chains"
    far = replace(Wide(), mean=3.0)
    assert far.truth() is NOTHING
