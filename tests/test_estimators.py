"""log Z from weights: identities of Gaussian work, errors that cover, degenerate input."""

import math
import warnings

import pymbar
import pytest
import torch

from tiltbench.estimators import (
    NoOverlap,
    average,
    bar,
    elbo,
    ess_model,
    ess_target,
    eubo,
    jarzynski,
    k_hat,
    overlap,
    reverse,
    steepest,
    unseen,
)

LOG_Z = 0.7
INF = math.inf


def source(seed):
    return torch.Generator().manual_seed(seed)


def work(sd, n, seed, sign):
    """Gaussian log-weights that obey Crooks: forward (sign -1) N(log Z - sd^2/2, sd^2), reverse
    (sign 1) N(log Z + sd^2/2, sd^2)."""
    xi = torch.randn(n, generator=source(seed), dtype=torch.float64)
    return LOG_Z + sign * sd**2 / 2 + sd * xi


def z(estimate, truth):
    return (estimate.value - truth) / estimate.se


@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_gaussian_work_has_the_values_of_its_formulas(sd):
    forward, backward = work(sd, 4000, 1, -1), work(sd, 3000, 2, 1)
    assert abs(z(elbo(forward), LOG_Z - sd**2 / 2)) < 4
    assert abs(z(eubo(backward), LOG_Z + sd**2 / 2)) < 4
    assert abs(z(jarzynski(forward), LOG_Z)) < 4
    assert abs(z(reverse(backward), LOG_Z)) < 4
    assert abs(z(bar(forward, backward), LOG_Z)) < 4
    assert abs(z(ess_model(forward), math.exp(-(sd**2)))) < 4
    assert abs(z(ess_target(backward), math.exp(-(sd**2)))) < 4
    assert ess_target(backward).se < 0.05 > ess_model(forward).se


@pytest.mark.parametrize("method", ["jarzynski", "reverse", "bar", "elbo", "grouped"])
def test_two_standard_errors_cover_95_percent(method):
    covered = 0
    for seed in range(400):
        forward, backward = work(1.0, 300, 2 * seed, -1), work(1.0, 200, 2 * seed + 1, 1)
        truth = LOG_Z
        if method == "jarzynski":
            found = jarzynski(forward)
        elif method == "reverse":
            found = reverse(backward)
        elif method == "bar":
            found = bar(forward, backward)
        elif method == "elbo":
            found, truth = elbo(forward), LOG_Z - 0.5
        else:  # chains of five equal weights: only groups are independent
            group = torch.arange(60).repeat_interleave(5)
            found = jarzynski(forward[:60].repeat_interleave(5), group)
        covered += abs(z(found, truth)) < 1.96
    assert 0.89 < covered / 400 < 0.98


def test_groups_that_are_ignored_would_halve_the_error():
    copies = work(1.0, 100, 5, -1).repeat_interleave(4)
    group = torch.arange(100).repeat_interleave(4)
    for estimate in (elbo, jarzynski, ess_model):
        grouped, blind = estimate(copies, group), estimate(copies)
        assert grouped.value == pytest.approx(blind.value)
        assert grouped.se == pytest.approx(2 * blind.se, rel=0.2)
        assert grouped.n == 100
        alone = estimate(work(1.0, 100, 5, -1))
        assert grouped.se == pytest.approx(alone.se, rel=1e-6)


def test_group_labels_are_names_not_indices():
    values = work(1.0, 6, 3, -1)
    a = jarzynski(values, torch.tensor([7, 7, -2, -2, 90, 90]))
    b = jarzynski(values, torch.tensor([1, 1, 0, 0, 2, 2]))
    assert a == b


def test_bennett_agrees_with_pymbar():
    forward, backward = work(1.5, 500, 8, -1), work(1.5, 300, 9, 1)
    theirs = pymbar.bar(
        -forward.numpy(),
        backward.numpy(),
        uncertainty_method="MBAR",
        relative_tolerance=1e-15,
    )
    ours = bar(forward, backward)
    assert ours.value == pytest.approx(-theirs["Delta_f"], abs=1e-9)
    assert ours.se == pytest.approx(theirs["dDelta_f"], abs=1e-9)


@pytest.mark.parametrize("sd", [0.3, 1.5, 4.0])
def test_overlap_agrees_with_pymbar_and_with_the_error_bar(sd):
    forward, backward = work(sd, 500, 8, -1), work(sd, 300, 9, 1)
    theirs = pymbar.bar_overlap(-forward.numpy(), backward.numpy())
    ours = overlap(forward, backward).value
    assert ours == pytest.approx(theirs, abs=1e-6)
    se = math.sqrt((1 / 500 + 1 / 300) * (1 / ours - 1))
    assert bar(forward, backward).se == pytest.approx(se, rel=1e-9)


def test_one_law_on_both_sides_overlaps_entirely():
    assert overlap(torch.zeros(50), torch.zeros(70)).value == pytest.approx(1)


def test_sides_that_do_not_meet_are_a_warning():
    with pytest.warns(NoOverlap, match="hardly meet"):
        bar(work(1.0, 200, 1, -1) - 10, work(1.0, 200, 2, 1) + 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bar(work(1.0, 200, 1, -1), work(1.0, 200, 2, 1))


def test_bennett_lies_between_the_bounds_and_is_the_least_uncertain():
    forward, backward = work(1.5, 2000, 10, -1), work(1.5, 2000, 11, 1)
    found = bar(forward, backward)
    assert elbo(forward).value < found.value < eubo(backward).value
    assert found.se < min(jarzynski(forward).se, reverse(backward).se)


@pytest.mark.filterwarnings("ignore::tiltbench.estimators.NoOverlap")
def test_bennett_says_when_the_sides_do_not_overlap():
    near, far = bar(work(1.0, 200, 1, -1), work(1.0, 200, 2, 1)), None
    for gap in (20.0, 80.0, 3000.0):
        far = bar(work(1.0, 200, 1, -1) - gap, work(1.0, 200, 2, 1) + gap)
        assert far.se > gap / 2 > near.se
    assert far.se == INF and math.isfinite(far.value)


@pytest.mark.filterwarnings("ignore::tiltbench.estimators.NoOverlap")
def test_infinite_work_has_fermi_weight_zero():
    forward, backward = work(1.0, 200, 1, -1), work(1.0, 300, 2, 1)
    n = 50
    holes = torch.cat([forward, torch.full((n,), -INF)])
    share = math.log(200 / (200 + n))
    assert jarzynski(holes).value == pytest.approx(jarzynski(forward).value + share)
    assert math.isfinite(bar(holes, backward).se)
    huge = torch.cat([forward, torch.full((n,), -1e6, dtype=torch.float64)])
    assert bar(huge, backward).value == pytest.approx(bar(holes, backward).value, abs=1e-9)
    assert bar(torch.full((3,), -INF), backward) == (-INF, INF, 303)


def test_weights_far_from_zero_keep_their_digits():
    for shift in (-1e4, 1e4):
        moved = jarzynski(work(1.0, 100, 4, -1) + shift)
        still = jarzynski(work(1.0, 100, 4, -1))
        assert moved.value - shift == pytest.approx(still.value, abs=1e-9)
        assert moved.se == pytest.approx(still.se, rel=1e-9)


def test_one_weight_that_carries_everything_has_a_large_error():
    lone = torch.cat([torch.zeros(99, dtype=torch.float64), torch.tensor([60.0]).double()])
    assert 50 < jarzynski(lone).se < 60  # without it log Z would fall by 55 nats
    assert jarzynski(torch.tensor([0.0, -INF])).se == INF


@pytest.mark.parametrize("estimate", [elbo, jarzynski, ess_model, eubo, reverse, ess_target])
def test_degenerate_weights_have_clear_answers(estimate):
    one = estimate(torch.tensor([0.3], dtype=torch.float64))
    assert one.value == pytest.approx(1.0 if "ess" in estimate.__name__ else 0.3)
    assert math.isnan(one.se) and one.n == 1
    none = estimate(torch.full((4,), -INF))
    assert none.value == (0.0 if "ess" in estimate.__name__ else -INF)
    assert math.isnan(none.se)
    assert estimate(torch.empty(0)).n == 0
    assert math.isnan(estimate(torch.tensor([0.0, math.nan, 1.0])).value)


def test_a_mean_of_one_group_has_no_error():
    found = average(torch.arange(5.0), torch.zeros(5, dtype=torch.int64))
    assert found.value == 2.0 and math.isnan(found.se) and found.n == 1
    grouped = average(torch.tensor([0.0, 0.0, 4.0, 4.0]), torch.tensor([0, 0, 1, 1]))
    assert grouped == (2.0, 2.0, 2)  # two values, 0 and 4: sd sqrt(8), se 2


def test_float32_weights_are_summed_in_float64():
    single = work(1.0, 5000, 3, -1).float()
    assert jarzynski(single) == jarzynski(single.double())
    assert elbo(single) == elbo(single.double())


SMALL = torch.tensor([0.3, -1.2, 0.8, 0.1, -0.5], dtype=torch.float64)
IN_GROUPS = torch.tensor([0, 0, 1, 2, 2])
BY_HAND = {  # without independent groups of few: constants such as n - 1 are large there
    "jarzynski": (jarzynski, lambda w: math.log(w.exp().mean()), None),
    "reverse": (reverse, lambda w: -math.log((-w).exp().mean()), None),
    "ess_model": (
        ess_model,
        lambda w: float(w.exp().sum() ** 2 / w.mul(2).exp().sum() / len(w)),
        None,
    ),
    "ess_target": (
        ess_target,
        lambda w: float(1 / (w.exp().mean() * (-w).exp().mean())),
        None,
    ),
    "jarzynski, grouped": (
        jarzynski,
        lambda w: math.log(w.exp().mean()),
        IN_GROUPS,
    ),
    "ess_model, grouped": (
        ess_model,
        lambda w: float(w.exp().sum() ** 2 / w.mul(2).exp().sum() / len(w)),
        IN_GROUPS,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_errors_of_few_weights_are_those_of_the_jackknife_by_hand(name):
    estimate, value, group = BY_HAND[name]
    found = estimate(SMALL) if group is None else estimate(SMALL, group)
    index = torch.arange(5) if group is None else group
    left = [value(SMALL[index != g]) for g in index.unique()]
    n = len(left)
    se = math.sqrt((n - 1) / n * sum((v - value(SMALL)) ** 2 for v in left))
    assert found.value == pytest.approx(value(SMALL), abs=1e-12)
    assert found.se == pytest.approx(se, rel=1e-9) and found.n == n


def test_the_error_of_a_mean_of_few_is_that_of_a_sample():
    found = average(SMALL)
    assert found.se == pytest.approx(float(SMALL.std()) / math.sqrt(5))
    grouped = average(SMALL, IN_GROUPS)
    sums = [float((SMALL[IN_GROUPS == g] - SMALL.mean()).sum()) for g in range(3)]
    assert grouped.se == pytest.approx(math.sqrt(3 / 2 * sum(s * s for s in sums)) / 5)


def pareto(k, n, seed):
    """log w of P(w > a) = a^(-1/k), a > 1: Z = 1 / (1 - k)."""
    return -k * torch.rand(n, generator=source(seed), dtype=torch.float64).log()


@pytest.mark.parametrize("k", [0.3, 0.5, 0.9])
def test_k_hat_is_the_shape_of_the_tail(k):
    """The fit's prior draws it to 1/2 with the strength of ten points of the 3 sqrt(n)."""
    many = [k_hat(pareto(k, 20_000, seed)) for seed in range(12)]
    assert sum(many) / 12 == pytest.approx(k, abs=0.06)
    assert k_hat(pareto(k, 20_000, 0) + 300) == pytest.approx(many[0])  # no scale
    assert k_hat(-pareto(k, 20_000, 0)) < 0  # 1/w is bounded
    groups = torch.arange(40_000) % 20_000  # each weight and one that is nothing beside it
    both = torch.cat([pareto(k, 20_000, 0), torch.full((20_000,), -50.0)])
    assert k_hat(both, groups) == pytest.approx(many[0], abs=1e-6)


def test_k_hat_of_weights_without_a_tail_or_beyond_all_bounds():
    assert math.isnan(k_hat(torch.zeros(1_000)))
    assert math.isnan(k_hat(torch.arange(20.0)))  # a fifth of them is no tail
    assert math.isnan(k_hat(torch.full((50,), -INF)))
    assert k_hat(1e4 * work(1.0, 1_000, 1, 1)) == INF
    assert k_hat(torch.cat([torch.zeros(99), torch.tensor([INF])])) == INF  # without a warning
    tied = torch.cat([torch.zeros(80), torch.ones(15), torch.full((5,), 3.0)])
    assert 0 < k_hat(tied) < 1  # ties within the tail: excesses are over the largest outside of it
    assert k_hat(torch.cat([torch.full((500,), -INF), work(0.3, 500, 2, 1)])) < 0.5
    assert steepest(1_000) == pytest.approx(2 / 3) and steepest(10**6) == 0.7 and steepest(5) == 0


@pytest.mark.parametrize("k", [0.3, 0.5, 0.7])
def test_what_is_lacking_beyond_the_largest_weight_of_a_pareto_tail(k):
    """With P(w > a) = a^(-1/k) and `other` of shape k / (1 - k): a^(1 - 1/k) less a^(-1/k) times
    the mean of the weights that were seen over their Z."""
    own, other = pareto(k, 50, 1), pareto(k / (1 - k), 20_000, 2)
    a, seen = float(own.max()), float(own.exp().mean()) * (1 - k)
    assert abs(z(unseen(own, other), math.exp(a * (1 - 1 / k)) - seen * math.exp(-a / k))) < 4


def test_a_lost_mode_is_unseen_and_weights_that_are_alike_hide_nothing():
    own, half = work(0.1, 1_000, 1, -1), work(0.1, 500, 2, 1)
    assert unseen(own, torch.cat([half, half + 20])).value == pytest.approx(0.5, abs=0.01)
    assert k_hat(own) < 0.5  # which cannot know
    assert unseen(own, work(0.1, 1_000, 3, 1)).value < jarzynski(own).se
    assert unseen(torch.full((9,), -INF), half).value == 1
    assert math.isnan(unseen(own, torch.empty(0)).value)
    lost = torch.tensor([math.nan, 0.0])  # of which nothing can be said, not that nothing lacks
    assert math.isnan(unseen(lost, half).value) and math.isnan(unseen(own, lost).value)
