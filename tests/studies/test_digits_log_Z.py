"""Digits without memoryless noise, and log Z by paths both ways: closed forms and identities."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from tests.tools.worlds import Tilted, rng, z_score
from tiltbench.samplers.redraw import by_ode
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.digits_log_Z import study as digits_log_Z
from tiltbench.studies.memoryless.noise import Bell, Integrated, Siblings, Silent, siblings
from tiltbench.studies.memoryless_digits.coupled import coupling, memory, shares, starved, tilted
from tiltbench.studies.memoryless_digits.study import Tuned
from tiltbench.targets.bases.interpolant import Constant
from tiltbench.targets.bases.mixture_flow import MixtureFlow
from tiltbench.targets.bases.process import Controlled, Uncontrolled, simulate
from tiltbench.targets.bases.references import Brownian
from tiltbench.targets.digits.digits import digits
from tiltbench.targets.problem import pose
from tiltbench.targets.target import Tilt, Truth


def family(rho, starts=1_000, each=50, dim=2):
    """X_1 = rho X_0 + sqrt(1 - rho^2) xi."""
    start = torch.randn(starts, dim, generator=rng(1))
    xi = torch.randn(each, starts, dim, generator=rng(2))
    return Siblings(start, rho * start + math.sqrt(1 - rho**2) * xi)


def above(mean):
    """P(N(mean, 1) > 0)."""
    return (1 + math.erf(mean / math.sqrt(2))) / 2


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_siblings_of_a_gaussian_have_closed_forms(rho):
    """r = x_1: Z(X_0) is log-normal; the optimum ends at the mean 1 - rho^2, the tilt at 1."""
    siblings_of_rho = family(rho)
    correlation, r = memory(siblings_of_rho), siblings_of_rho.ends[..., 0]
    assert correlation.linear == pytest.approx(rho, abs=0.03) == correlation.any
    ratio = coupling(r)
    assert abs(ratio.value - math.expm1(rho**2)) < 4 * ratio.se < 0.3
    positive = (r > 0)[..., None]
    both = shares(r, torch.cat([positive, ~positive], -1))
    assert float(both.optimum[0]) == pytest.approx(above(1 - rho**2), abs=0.02)
    assert float(both.tilt[0]) == pytest.approx(above(1.0), abs=0.02)
    assert abs(float(both.z[0])) < 4 if rho == 0 else float(both.z[0]) < -6
    assert abs(z_score(tilted(siblings_of_rho, r, 1_000, rng(3))[:, 0], 1.0)) < 4


def test_an_estimate_that_says_nothing_does_not_agree():
    def row(control, z, se):
        pool, estimates = Estimate(0.0, 0.0, 9), {"Crooks": Estimate(z * se, se, 9)}
        return SimpleNamespace(
            target="t", control=control, pool=pool, estimates=estimates, z={"Crooks": z}
        )

    rows = [row("sure", 2.0, 0.1), row("vague", 4.0, 1.5)]
    claim = digits_log_Z.agreement("Agrees", "Crooks", rows)
    assert str(claim.verdict) == "supported" and "(t, sure: +0.200 nats)" in claim.measured
    assert "1 of 2 have an error above 1 nat" in claim.measured
    assert str(digits_log_Z.agreement("Agrees", "Crooks", rows[1:]).verdict) == "open"


def test_starts_with_few_siblings_that_count_are_starved():
    """Weights of 4, of 6 and of 12 siblings alike: an ess of 4, 6 and 12."""
    r = torch.full((12, 3), -50.0)
    for start, alike in enumerate((4, 6, 12)):
        r[:alike, start] = 0.0
    assert starved(r) == pytest.approx(1 / 3)


def test_memory_that_no_line_sees():
    start = torch.randn(1_000, 2, generator=rng(4))
    correlation = memory(Siblings(start, start.abs().expand(3, -1, -1)))
    assert correlation.linear < 0.12 and correlation.any == pytest.approx(1, abs=1e-3)
    assert math.isnan(memory(Siblings(start, start[None])).any)


def test_the_error_of_shares_is_their_spread():
    z = []
    for seed in range(60):
        x = torch.randn(20, 100, generator=rng(seed))
        z.append(float(shares(x, (x > 0.3)[..., None]).z[0]))
    assert 0.7 < torch.tensor(z).std() < 1.4


def test_a_silent_network_is_its_ode_and_its_control_a_velocity():
    silent = Silent(digits(steps=7))
    x = simulate(silent, Uncontrolled(), (5, 64), rng(1)).x[-1]
    assert torch.allclose(x, by_ode(digits(steps=7), Uncontrolled(), (5, 64), rng(1)).x, atol=1e-4)
    model = Tuned().build(64, silent, rng(2))
    with torch.no_grad():
        model.network.tuned.out.bias += 0.1
        for t in silent.times[:-1]:
            u = model.control(torch.randn(5, 64, generator=rng(3)), torch.tensor(t))
            assert torch.allclose(u, torch.tensor(0.1), atol=1e-3)


@dataclass(frozen=True)
class Bowl(Tilt):
    name = "bowl"
    dim = 2
    base = Tilted(steps=3).base

    def reward(self, x):
        return -(x - 1).square().sum(-1) / 4

    def truth(self):
        return Truth("unknown")


class Swaying(Controlled):
    def control(self, x, t, hint=None):
        return 0.7 * torch.sin(2 * x)


def test_paths_of_the_tilted_chain_are_exact_and_noised_ones_are_not(monkeypatch):
    """E[exp -log_w] = 1 / Z at 3 steps, where the noising kernels are not the chain's reversal."""
    monkeypatch.setattr(digits_log_Z, "PATHS", 20_000)
    monkeypatch.setattr(digits_log_Z, "CHUNK", 40_000)
    target = Bowl()
    (back,) = digits_log_Z.accepted([target], [0.0], "cpu")
    assert 10_000 < back.x.shape[1] <= 20_000
    free = simulate(target.base, Uncontrolled(), (100_000, 2), rng(7)).x[-1]
    sides = digits_log_Z.sides(pose(target, Brownian()), Swaying(), back, back.x[-1], "cpu")
    Z = target.reward(free).double().exp().mean()
    assert abs(z_score(sides.forward.exp() / Z, 1)) < 4
    assert abs(z_score((-sides.back).exp() * Z, 1)) < 4
    ahead, behind = sides.forward.sigmoid() / Z, (-sides.back).sigmoid()  # Crooks, of the control
    assert abs(float(ahead.mean() - behind.mean())) < 4 * math.hypot(
        float(ahead.std()) / len(ahead) ** 0.5, float(behind.std()) / len(behind) ** 0.5
    )
    assert abs(z_score((-sides.noised).exp() * Z, 1)) > 4


def test_steps_exact_for_a_known_end_keep_the_base_where_eulers_leave_it():
    """With sigma = 1 a narrow law makes Euler's last steps unstable; a Gaussian's memory is math.md
    2's."""
    bell = siblings(Bell(Integrated(), steps=50).base, 2, 1_000, 10, "cpu")
    assert memory(bell).linear == pytest.approx(0.456, abs=0.03)
    assert float(bell.ends.var()) == pytest.approx(1, abs=0.02)
    stds = []
    for stepping in (Integrated(), Constant()):
        base = MixtureFlow((1.0,), ((0.0, 0.0),), (1e-4,), stepping=stepping, steps=50)
        stds.append(float(siblings(base, 2, 2_000, 1, "cpu").ends.std()))
    assert stds[0] == pytest.approx(0.01, rel=0.1) and stds[1] > 0.1
