"""Simulation-based calibration: ranks, moments by weights, and the study's verdicts."""

import math

import numpy as np
import pytest
import torch

from tests.tools.worlds import rng
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import expectation
from tiltbench.studies.calibration import inverse
from tiltbench.studies.calibration import study as calibration
from tiltbench.studies.calibration.ranks import band, excess, ranks, uniformity
from tiltbench.targets.digits.images import pooled


def gaussian(width, shift=0.0, n=400, draws=99):
    """Ranks of x ~ N(0, 1) seen as y = x + .8 xi among draws of N(mean + shift, width^2 variance),
    mean and variance those of the posterior."""
    source, seen = rng(3), 0.8**2
    x, xi = torch.randn(2, n, generator=source, dtype=torch.float64)
    mean, sd = (x + 0.8 * xi) / (1 + seen), math.sqrt(seen / (1 + seen))
    z = torch.randn(draws, n, generator=source, dtype=torch.float64)
    return ranks(x, mean + sd * (shift + width * z), source).numpy()


def test_ranks_are_uniform_for_the_posterior_of_a_gaussian():
    u = gaussian(1.0)
    assert uniformity(u) > 0.05
    assert (abs(u - 0.5) < 0.45).mean() == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / 400))


@pytest.mark.parametrize("width, shift", [(math.sqrt(0.5), 0.0), (math.sqrt(2), 0.0), (1.0, 0.3)])
def test_ranks_tell_a_wrong_variance_and_a_wrong_mean(width, shift):
    assert uniformity(gaussian(width, shift)) < 1e-3


def test_half_the_variance_covers_what_the_normal_law_says():
    """P(|Z| < sqrt(1/2) 1.645): the draws' central 90 % under the true posterior."""
    u = gaussian(math.sqrt(0.5), n=4_000)
    assert (abs(u - 0.5) < 0.45).mean() == pytest.approx(0.7553, abs=0.02)


def test_the_rank_counts_draws_below_and_shares_out_ties():
    draws = torch.tensor([0.0, 1.0, 1.0, 3.0])[:, None].expand(4, 20_000)
    for truth, low, high in ((-1, 0, 1), (0.5, 1, 2), (1, 1, 4), (3, 3, 5), (4, 4, 5)):
        u = ranks(torch.full((20_000,), float(truth)), draws, rng(0))
        assert low / 5 <= float(u.min()) < low / 5 + 1e-3
        assert high / 5 - 1e-3 < float(u.max()) <= high / 5
        assert float(u.mean()) == pytest.approx((low + high) / 10, abs=0.01)


def test_ranks_of_discrete_values_are_uniform():
    values = torch.randint(0, 3, (8, 1_000), generator=rng(1))
    assert uniformity(ranks(values[0], values[1:], rng(2)).numpy()) > 0.05


def test_test_and_band_of_one_rank_are_closed_form():
    """D = max(u, 1 - u) has P(D > d) = 2 (1 - d)."""
    assert uniformity(np.array([0.9])) == pytest.approx(0.2)
    assert band(1) == pytest.approx(0.975)
    assert excess(np.array([0.3]), np.array([0.2, 0.3, 0.5])) == pytest.approx([-0.2, 0.7, 0.5])


def test_the_band_is_the_test():
    """n ranks at i/n - D all stray by D from the diagonal."""
    n = 50
    u = np.clip(np.arange(1, n + 1) / n - band(n), 0, 1)
    assert uniformity(u) == pytest.approx(0.05)


def test_moments_are_those_of_the_weights():
    x = torch.randn(200, 3, generator=rng(0), dtype=torch.float64)
    log_w = x[:, 0] - x[:, 1] ** 2
    moments = inverse.moments(Draws(x, log_w))
    for i in range(3):
        one = expectation(log_w, x[:, i])
        square = expectation(log_w, x[:, i] ** 2)
        assert moments.mean[i] == pytest.approx(one.value)
        assert moments.sd[i] ** 2 == pytest.approx(square.value - one.value**2)
        assert moments.se[i] == pytest.approx(one.se, rel=0.01)  # n for n - 1
    plain = inverse.moments(Draws(x))
    assert torch.allclose(plain.mean, x.mean(0))
    assert torch.allclose(plain.se, x.std(0) / math.sqrt(200), rtol=0.01)


def test_draws_are_picked_by_weight():
    x = torch.tensor([[0.0], [1.0]])
    chosen = inverse.picked(Draws(x, torch.tensor([0.0, 1.0])), 10_000, rng(0))
    assert float(chosen.mean()) == pytest.approx(1 / (1 + math.exp(-1)), abs=0.015)
    assert inverse.picked(Draws(x), 1, rng(0)).tolist() == [[0.0]]


def test_pairs_are_seen_with_the_noise_stated():
    pairs = inverse.pairs(12, "cpu")
    far = torch.stack([torch.tensor(p.seen.y) - pooled(p.x) for p in pairs]) / inverse.NOISE
    assert float(far.square().sum()) == pytest.approx(far.numel(), abs=4 * math.sqrt(2 * 12 * 16))
    seen, x = pairs[0].seen, pairs[0].x
    law = torch.distributions.Normal(pooled(x), inverse.NOISE)
    log_p = law.log_prob(torch.tensor(seen.y, dtype=torch.float64)).sum()
    assert seen.reward(x) == pytest.approx(float(log_p))


def test_y_does_not_see_the_contrast():
    x = torch.randn(2, 64, generator=rng(0), dtype=torch.float64)
    moved = x.clone()
    moved[:, 27] += 0.7
    moved[:, 18] -= 0.7
    assert torch.allclose(pooled(moved), pooled(x))
    f = inverse.STATISTICS["contrast"]
    seen = inverse.Seen(y=(0.0,) * 16)
    assert torch.allclose(f(moved, seen) - f(x, seen), torch.full((2,), 1.4, dtype=torch.float64))


def test_an_enlarge_has_the_blocks_of_what_was_seen():
    y = torch.randn(3, 16, generator=rng(0))
    large = calibration.enlarge(y)
    assert torch.allclose(pooled(large), y)
    assert (large.reshape(3, 8, 8)[:, 2, 4:6] == y[:, 6:7]).all()


def method_result(method="a", width=1.0, mean=0.0, n=60):
    """Ranks of a method whose draws are `width` times as wide as they should be."""
    f = len(inverse.STATISTICS)
    z = torch.randn(n, 64 + f, generator=rng(8), dtype=torch.float64)
    u = torch.distributions.Normal(0, width).cdf(z)
    flat = torch.ones(n, 64, dtype=torch.float64)
    return calibration.MethodResult(
        method, u[:, :f], u[:, f:], flat[:, 0] * 100, mean * flat, flat, flat / 10, flat[:, None]
    )


def test_verdicts_on_calibration():
    for width, due in ((1.0, "supported"), (0.5, "refuted"), (2.0, "refuted")):
        results = [method_result(width=width)]
        assert (
            calibration.is_calibrated(results[0], calibration.uniformity_tests(results)).verdict
            == due
        )
    # right intervals, wrong statistics
    results = [method_result()._replace(ranks=method_result(width=0.5).ranks)]
    assert (
        calibration.is_calibrated(results[0], calibration.uniformity_tests(results)).verdict
        == "refuted"
    )
    few = [method_result(n=6)]  # nothing is rejected, and nothing shown
    assert calibration.is_calibrated(few[0], calibration.uniformity_tests(few)).verdict == "open"


def test_coverage_is_the_part_of_ranks_within():
    result = method_result(width=0.5, n=2_000)
    assert result.coverage(0.9).value == pytest.approx(0.5892, abs=0.01)  # P(|Z| < 1.645 / 2)
    assert result.coverage(0.9).se == pytest.approx(math.sqrt(0.242 / 64 / 2_000), rel=0.1)


def test_distances_are_in_posterior_sds():
    exact = method_result()._replace(sd=2 * torch.ones(60, 64, dtype=torch.float64))
    assert torch.allclose(
        method_result(mean=3.0).off(exact), torch.full((60,), 1.5, dtype=torch.float64)
    )
    assert torch.allclose(
        method_result().noise(exact), torch.full((60,), 0.05, dtype=torch.float64)
    )


def test_verdicts_on_means():
    source = rng(7)
    truth = torch.randn(60, 64, generator=source, dtype=torch.float64)
    exact = method_result("exact")  # N(0, 1) pixels: mean 0, sd 1
    square, nearest = calibration.square_errors(exact, truth, {"off": truth * 0 + 0.5})
    assert square.verdict == "supported" and nearest.verdict == "supported"
    wide = exact._replace(sd=1.5 * exact.sd)
    square, nearest = calibration.square_errors(
        wide, truth, {"off": truth * 0 + 0.5, "oracle": truth / 2}
    )
    assert square.verdict == "refuted" and nearest.verdict == "refuted"
    shaken = torch.rand(60, 1, generator=source, dtype=torch.float64)
    plain = method_result("a")._replace(mean=0.5 + 0.1 * shaken.expand(60, 64))
    assert calibration.repaired(plain, method_result("a, weighted"), exact).verdict == "supported"
    assert calibration.repaired(method_result("a"), plain, exact).verdict == "refuted"
