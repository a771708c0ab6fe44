"""The gradient study: its split and intervals on known gradients, its calls, its thetas."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tiltbench.plan.spec import build_target, parse
from tiltbench.run.meter import Meter
from tiltbench.samplers.diffusion import Diffusion, Preset
from tiltbench.samplers.loss import Loss
from tiltbench.samplers.registry import SAMPLERS
from tiltbench.studies.gradient_variance import cases as sources
from tiltbench.studies.gradient_variance import measurements, study
from tiltbench.studies.gradient_variance.gradients import (
    against,
    gradients,
    quotient,
    relative,
    split,
)
from tiltbench.targets.problem import pose

STEPS, CALLS = 4, 512
CASES = {case.name: case for case in sources.cases(STEPS)}
GAUSSIAN = build_target(parse("gaussian[dim=2]"))


def known(batches, repeats, noise, seed=0, mean=1.0):
    """(repeats, batches, 20) gradients with |E g| = mean and tr Cov = noise, a decade of scales."""
    g = torch.Generator().manual_seed(seed)
    sd = torch.logspace(0, -1, 20, dtype=torch.float64)
    sd = sd * math.sqrt(noise) / sd.norm()
    xi = torch.randn(repeats, batches, 20, generator=g, dtype=torch.float64)
    return mean / math.sqrt(20) + sd * xi


def gram(x):
    return x @ x.T


def z(values, truth):
    values = np.asarray(values)
    return (values.mean() - truth) / (values.std(ddof=1) / math.sqrt(len(values)))


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_the_split_is_unbiased(mean):
    splits = [split(gram(x)) for x in known(8, 300, 2.0, mean=mean)]
    assert abs(z([one.noise for one in splits], 2.0)) < 4
    assert abs(z([one.signal for one in splits], mean**2)) < 4
    if mean == 0:
        assert min(one.signal for one in splits) < 0  # unbiased, so below zero as often as above


def test_bootstrap_draws_leave_out_pairs_of_copies():
    """With them |E g|^2 of the draws would be larger by E|g|^2 / M."""
    splits = [split(gram(x)) for x in known(16, 50, 4.0)]
    assert abs(z([one.signals.mean() - one.signal for one in splits], 0.0)) < 4
    assert abs(z([one.noises.mean() - one.noise for one in splits], 0.0)) < 4
    one = split(gram(known(3, 1, 4.0)[0]))  # three copies of one batch tell nothing of |E g|^2
    assert not np.isnan(one.signals).any() and len(one.signals) > 500


def test_draws_of_tr_Cov_know_nothing_of_the_mean():
    x = known(16, 1, 1.0)[0]
    here, there = split(gram(x)), split(gram(x + 100))
    assert np.allclose(here.noises, there.noises, rtol=1e-6)
    assert here.noise == pytest.approx(there.noise) and here.worst == pytest.approx(there.worst)
    assert there.signals.min() > 100 * here.signals.max() and 1 / 16 < here.worst < 0.5


@pytest.mark.parametrize("noise", [0.003, 0.3, 3.0])
def test_coverage_of_the_interval(noise):
    """95 % of the intervals hold the truth, within the binomial error of 200 repetitions."""
    intervals = [relative(split(gram(x))) for x in known(32, 200, noise, seed=3)]
    covered = sum(one.low <= noise <= one.high for one in intervals)
    assert abs(covered - 190) <= 3 * math.sqrt(200 * 0.95 * 0.05)


def test_no_ratio_where_no_signal_is_seen():
    ratios = [relative(split(gram(x))) for x in known(16, 40, 1.0, mean=0.0)]
    assert sum(not ratio.resolved for ratio in ratios) >= 36
    assert all(0 < ratio.low for ratio in ratios if not ratio.resolved)


def test_comparisons_of_known_gradients():
    one, four = (split(gram(known(32, 1, noise, seed=5)[0])) for noise in (1.0, 4.0))
    exact = quotient(four, one)  # the same dice and draws: four times, draw by draw
    close = 1 + 1e-12  # the interval is of no width but that of rounding
    assert exact.low < close * exact.value and exact.value < close * exact.high
    assert exact.value == pytest.approx(4)
    paired = quotient(split(gram(2 * known(32, 1, 1.0, seed=5)[0])), one)
    assert paired.low == pytest.approx(4) and paired.high == pytest.approx(4)
    other = split(gram(known(32, 1, 4.0, seed=6)[0]))
    interval = against(one, other)
    assert interval.low < 0.25 < interval.high < 1


def test_the_exponent_of_a_power_law():
    def cell(paths, noise):
        one = split(gram(known(32, 1, noise, seed=paths)[0]))
        return measurements.Measurement("t", 2, "mid", paths, "loss", "family", paths, paths, one)

    fit = measurements.fitted([cell(n, 8.0 / n) for n in (64, 256, 1024)])
    share = torch.logspace(0, -2, 20, dtype=torch.float64)  # of the eigenvalues in tr Cov
    each = math.sqrt(2 / 31 * share.square().sum()) / share.sum()  # sd of log tr Cov, Gaussian g
    expected = each / (math.sqrt(2) * math.log(4))
    assert abs(fit.slope + 1) < 3 * expected and 0.6 * expected < fit.se < 1.4 * expected
    assert math.isnan(measurements.fitted([cell(64, 1.0)]).slope)


def test_every_trained_loss_of_the_registry_is_there():
    methods = [SAMPLERS.load(name) for name in SAMPLERS.entries]
    losses = {m.name for m in methods if isinstance(m, Loss)}
    losses |= {m.sampler.loss.name for m in methods if isinstance(m, Preset)}
    assert {case.sampler.loss.name for case in CASES.values()} == losses
    twins = {"pis", "relative_trajectory_balance"}
    assert set(SAMPLERS.entries) - set(CASES) <= twins | {
        name
        for name, m in zip(SAMPLERS.entries, methods, strict=True)
        if not isinstance(m, Loss | Preset)
    }  # the same losses on the same base, under another name
    families = {name: case.family for name, case in CASES.items()}
    assert families["nets_action"] == families["cmcd_kl"] == sources.ESCORT
    assert families["dds"] == families["trajectory_balance"] == sources.PATH_SPACE
    assert families["adjoint_schroedinger_bridge"] == sources.ADJOINT
    apart = {name for name, case in CASES.items() if sources.apart(case)}
    flows = {"subtrajectory_balance", "detailed_balance"}
    staged = {"tilt_matching", "reward_weighted_regression"}
    assert apart - flows == staged | {"dds", "adjoint_schroedinger_bridge", "nets_action"}
    assert flows <= apart


@pytest.mark.parametrize("name", sorted(CASES))
def test_calls_are_equal_and_as_metered(name):
    case = CASES[name]
    meter = Meter(sources.PLENTY)
    paths = sources.paths_for(case, CALLS)
    sampler = replace(case.sampler, paths=paths)
    problem = pose(GAUSSIAN, sampler.reference, meter.watch)
    state = sources.begun(case, GAUSSIAN, "cpu")
    gradients(sampler, problem, state.model, 0.5, 2, seed=0)
    assert meter.spent.calls == 2 * paths * sources.price(case)
    assert CALLS - sources.price(case) < meter.spent.calls / 2 <= CALLS


def test_losses_are_compared_at_one_theta():
    """And the full adjoint is relative entropy's gradient, twice, on the same paths."""
    teacher = sources.halfway(CASES[sources.TEACHER], GAUSSIAN, 3, "cpu")
    weights = list(teacher.model.control_parameters())
    slopes = {}
    for name in ("relative_entropy", "adjoint_matching_full", "trajectory_balance"):
        case = CASES[name]
        state = sources.lent(case, GAUSSIAN, teacher, "cpu")
        state = sources.settled(case, GAUSSIAN, state, "cpu")
        same = list(state.model.control_parameters())
        assert all(torch.equal(a, b) for a, b in zip(same, weights, strict=True))
        assert (float(state.model.log_Z.detach()) != 0) == case.sampler.loss.learns_log_Z
        problem = pose(GAUSSIAN, case.sampler.reference)
        slopes[name] = gradients(case.sampler, problem, state.model, 0.5, 2, seed=7)
    assert torch.allclose(
        2 * slopes["relative_entropy"], slopes["adjoint_matching_full"], rtol=1e-3, atol=1e-4
    )


def test_equal_seeds_give_equal_gradients():
    case = CASES["conditional_score_matching_plain"]
    problem = pose(GAUSSIAN, case.sampler.reference)

    def from_seed(seed):
        torch.rand(1)  # the global generator plays no part
        state = sources.halfway(case, GAUSSIAN, 2, "cpu")
        return gradients(case.sampler, problem, state.model, 0.5, 3, seed)

    assert torch.equal(from_seed(4), from_seed(4)) and not torch.equal(from_seed(4), from_seed(5))
    assert torch.equal(from_seed(5)[0], from_seed(4)[1])  # batch i depends on seed + i alone
    fine = CASES["importance_fine_tuning"]
    again = gradients(
        fine.sampler, problem, sources.halfway(case, GAUSSIAN, 2, "cpu").model, 0.5, 3, 4
    )
    assert fine.sampler.paths == case.sampler.paths and torch.equal(again, from_seed(4))


def test_what_is_shown_of_an_interval():
    split_of = split(gram(known(16, 1, 1.0)[0]))
    assert "[" in measurements.shown(relative(split_of))
    lost = relative(split(gram(known(16, 1, 50.0, mean=0.0)[0])))
    assert measurements.shown(lost).startswith("> ")
    assert study.fit_text(measurements.Fit(math.nan, math.nan)) == "–"
    assert isinstance(CASES["dds"].sampler, Diffusion)
