"""Every registered metric: exact draws at the floor, wrong laws above it, closed forms."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import pytest
import torch
from pandas import DataFrame

from tiltbench import estimators
from tiltbench.metric import KINDS, NOISED, Outcome, Unknown
from tiltbench.plan.spec import METRICS, build_target, spec
from tiltbench.report.compare import summarise
from tiltbench.samplers.sampler import Draws
from tiltbench.samplers.weights import Estimate, Unbounded
from tiltbench.score.floor import (
    SHIPPED,
    Floor,
    floors_key,
    known,
    measure,
    read_floors,
    sample_metrics,
)
from tiltbench.score.result import Score
from tiltbench.targets.target import Density, Modes, Observable, Truth

ALL = {name: METRICS.load(name) for name in METRICS.entries}
SAMPLE = sample_metrics()
LOG_Z = -1.3
N = 400


def source(seed):
    return torch.Generator().manual_seed(seed)


def normal(n, seed, dim=2):
    return torch.randn(n, dim, generator=source(seed), dtype=torch.float64)


def sign(x):
    return (x[:, 0] > 0).long()


@dataclass(frozen=True)
class Plain(Density):
    """N(0, I) in the plane."""

    name = "plain"
    dim = 2

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def truth(self):
        return truth()


class Everything(Plain):
    """Also two particles on a line, a lattice of two sites, and two torsions."""

    name = "everything"
    particles = (2, 1)
    lattice = (2,)

    def torsions(self):
        return {
            name: lambda x, i=i: torch.atan2(x[:, i].sin(), x[:, i].cos())
            for i, name in enumerate(("phi", "psi"))
        }

    def truth(self):
        phi = self.torsions()["phi"]
        p = NormalDist().cdf(2.1) - 0.5
        left = Observable(
            lambda x: ((phi(x) > 0) & (phi(x) < 2.1)).double(), p, math.sqrt(p * (1 - p))
        )
        return truth()._replace(observables={"left": left})


def target_for(name):
    """One of the kind that the metric asks for."""
    if "tilt" in ALL[name].needs:
        return build_target({"name": "tilt_linear"})
    return Everything() if ALL[name].needs & set(KINDS) else Plain()


def truth(dim=2):
    """N(0, I) with everything known."""
    return Truth(
        "closed form",
        log_Z=LOG_Z,
        sample=lambda n, g: torch.randn(n, dim, generator=g, dtype=torch.float64),
        modes=Modes(torch.tensor([0.5, 0.5]), sign),
        observables={
            "mean": Observable(lambda x: x[:, 0], 0.0, 1.0),
            "square": Observable(lambda x: x.square().mean(-1), 1.0, math.sqrt(2 / dim)),
        },
    )


def outcome(x, sd=0.4, seed=0):
    """Draws x with Gaussian weights that obey Crooks, an own estimate and gradients."""
    n, g = len(x), source(seed + 1)
    xi = torch.randn(2, n, generator=g, dtype=torch.float64)
    forward, backward = LOG_Z - sd**2 / 2 + sd * xi[0], LOG_Z + sd**2 / 2 + sd * xi[1]
    gradients = 1 + torch.randn(20, 10, generator=g, dtype=torch.float64)
    own = Estimate(LOG_Z + 0.02, 0.02, n)
    gap = (xi[0] * sd).square()  # int |u - u*|^2 is about the variance of the weights
    probes = {"gradient_gram": gradients @ gradients.T, "control_gap": gap}
    probes |= {"ode_log_q": -x.square().sum(-1) / 2, "ode_evaluations": torch.tensor(200)}
    probes |= {"ode_log_w": forward, "ode_log_w_exact": backward, "ode_noise": 0 * forward}
    return Outcome(Draws(x, forward, None, own), backward, probes)


def value(name, made, known_truth=None, seed=99):
    if "chains" in ALL[name].needs:
        group = torch.arange(len(made.draws.x)) * 8 // len(made.draws.x)
        made = made._replace(draws=made.draws._replace(group=group, log_w=None))
    target = target_for(name)
    if known_truth is None:
        known_truth = target.truth() if name == "left_err" else truth()
    return ALL[name].fn(target, known_truth, made, source(seed))


@pytest.mark.parametrize("name", ALL)
def test_declarations_are_complete(name):
    metric, entry = ALL[name], METRICS.entries[name]
    assert metric.name == name and entry.summary.endswith(entry.summary[-20:]) and entry.summary
    assert metric.better in ("lower", "higher")
    assert metric.unit in ("nats", "length", "length^2", "rad", "1")
    assert metric.perfect in ("0", "1", "floor", "")
    legal = {"sample", "log_Z", "modes", "observables", "log_w", "reverse", "own_log_Z"}
    legal |= {"chains", *KINDS}
    assert all(need in legal or need.startswith("probe.") for need in metric.needs)


@pytest.mark.parametrize("name", ALL)
def test_a_perfect_sampler_has_the_perfect_value(name):
    metric = ALL[name]
    sample = outcome(normal(N, 1), sd=0.01)
    estimate = value(name, sample)
    assert math.isfinite(estimate.value) and estimate.n > 0
    if name in SAMPLE:
        floor = measure_here(name, N)
        assert abs(estimate.value - floor.mean) < 4 * floor.sd
    elif metric.perfect == "0":
        assert abs(estimate.value) < 0.03
    elif metric.perfect == "1":
        assert estimate.value == pytest.approx(1, abs=0.01)


def measure_here(name, n):
    return measure(target_for(name), {name: ALL[name]}, n)[name]


@pytest.mark.parametrize("name", SAMPLE)
def test_scores_grow_with_the_error_of_the_law(name):
    """Shifted by 0.3, 1 and 3, or widened where a shift is no error: worse each time, and far above
    the floor in the end.  Histograms of 400 draws in 200 bins see nothing of 0.3: 0.7 instead."""
    least = 0.7 if name.endswith("_kl") else 0.3
    wider = 1.0 if ALL[name].needs & {"density", "particles", "tilt"} else 0.0
    further = 0.0 if ALL[name].needs & {"density", "particles"} else 1.0
    laws = [
        normal(N, 2) * (1 + wider * error) + further * error for error in (0.0, least, 1.0, 3.0)
    ]
    scores = [value(name, outcome(x)).value for x in laws]
    assert scores == sorted(scores) and len(set(scores)) == 4
    floor = measure_here(name, N)
    assert scores[2] > floor.mean + 4 * floor.sd


@pytest.mark.parametrize("name", ["energy_distance", "mmd", "w2", "obs_z", "obs_b2"])
def test_a_contracted_law_is_seen(name):
    floor = measure_here(name, N)
    assert value(name, outcome(0.5 * normal(N, 2))).value > floor.mean + 3 * floor.sd


UNBIASED = "log_Z_forward"  # its error, log_Z_err, is tried


@pytest.mark.parametrize(
    "name", [n for n, m in ALL.items() if "log_w" in m.needs and n != UNBIASED]
)
def test_forward_scores_worsen_with_the_spread_of_the_weights(name):
    scores = [value(name, outcome(normal(2000, 1), sd)).value for sd in (0.02, 0.5, 2.0)]
    if ALL[name].perfect == "0":
        scores = [abs(score) for score in scores]
    if ALL[name].better == "higher":
        scores.reverse()
    assert scores[0] < scores[1] < scores[2]


def test_signs_of_log_Z_errors():
    sample = outcome(normal(4000, 1), 0.8)
    shifted = Outcome(
        sample.draws._replace(log_w=sample.draws.log_w + 0.5), sample.log_w_reverse + 0.5, {}
    )
    for name in ("log_Z_err", "log_Z_rev_err", "log_Z_bar_err"):
        estimate = value(name, shifted)
        assert abs(estimate.value - 0.5) < 4 * estimate.se
    assert value("log_Z_own_err", sample).value == pytest.approx(0.02)
    assert value("elbo_gap", shifted).value == pytest.approx(0.8**2 / 2 - 0.5, abs=0.06)
    assert value("eubo_gap", shifted).value == pytest.approx(0.8**2 / 2 + 0.5, abs=0.06)


def test_uncertain_truth_widens_the_error():
    sample = outcome(normal(N, 1))
    sure = value("log_Z_err", sample)
    unsure = value("log_Z_err", sample, truth()._replace(log_Z_se=0.3))
    assert unsure.se == pytest.approx(math.hypot(sure.se, 0.3))


# --- closed forms ------------------------------------------------------------------------------


def mean_abs(mu, sd):
    """E|N(mu, sd^2)|."""
    return sd * math.sqrt(2 / math.pi) * math.exp(-(mu**2) / (2 * sd**2)) + mu * math.erf(
        mu / (sd * math.sqrt(2))
    )


@pytest.mark.parametrize("shift, width", [(0.0, 1.0), (0.7, 1.0), (0.0, 2.0), (1.5, 0.5)])
def test_energy_distance_of_two_gaussians_on_the_line(shift, width):
    between = mean_abs(shift, math.hypot(1, width))
    exact = 2 * between - mean_abs(0, math.sqrt(2)) - mean_abs(0, width * math.sqrt(2))
    x = shift + width * normal(2000, 4, dim=1)
    estimate = value("energy_distance", outcome(x), truth(1))
    assert abs(estimate.value - exact) < 4 * estimate.se
    assert estimate.se < 0.085


def test_mmd_of_two_gaussians_on_the_line():
    """With bandwidth h, E k over N(m, v) differences is h/sqrt(h^2+v) exp(-m^2/(2(h^2+v)))."""
    shift = 3.0
    estimate = value("mmd", outcome(shift + normal(3000, 4, dim=1)), truth(1))
    h = 0.67449 * math.sqrt(2)  # median of |N(0, 2)|
    v = h * h + 2
    exact = 2 * h / math.sqrt(v) * (1 - math.exp(-(shift**2) / (2 * v)))
    assert estimate.value == pytest.approx(exact, rel=0.05)


def test_the_width_of_mmd_is_that_of_the_exact_draws():
    """Pair by pair, on draws that lie wider than the exact ones."""
    x, y = 4 * normal(7, 12), normal(7, 13)
    sample = Outcome(Draws(x), None, {})
    h = torch.pdist(y).median()

    def mean(a, b, pairs):
        return float(torch.exp(-torch.cdist(a, b).square() / (2 * h * h)).sum()) / pairs

    within = (mean(x, x, 1) - 7 + mean(y, y, 1) - 7) / 42  # no point with itself
    estimate = value("mmd", sample, truth()._replace(sample=lambda n, g: y[:n]))
    assert estimate.value == pytest.approx(within - 2 * mean(x, y, 49), rel=1e-9)


def test_w2_between_shifted_sets_is_the_shift():
    y = normal(300, 8)
    known_truth = truth()._replace(sample=lambda n, g: y[:n])
    move = torch.tensor([0.3, -0.4], dtype=torch.float64)
    assert value("w2", outcome(y + move), known_truth).value == pytest.approx(0.5, abs=1e-9)
    shuffled = y[torch.randperm(300, generator=source(0))] + move
    assert value("w2", outcome(shuffled), known_truth).value == pytest.approx(0.5, abs=1e-9)


def test_w2_makes_the_iteration_warning_an_error(monkeypatch):
    import ot

    real = ot.emd2
    monkeypatch.setattr(ot, "emd2", lambda a, b, m, numItermax: real(a, b, m, numItermax=10))
    with pytest.raises(UserWarning):
        value("w2", outcome(normal(300, 1)))


@pytest.mark.parametrize("name", ["energy_distance", "mmd"])
def test_u_statistics_are_zero_on_average_between_exact_sets(name):
    runs = [value(name, outcome(normal(60, 500 + i)), seed=i) for i in range(300)]
    values = torch.tensor([run.value for run in runs])
    assert abs(values.mean() / (values.std() / math.sqrt(len(values)))) < 4
    assert (values < 0).any()
    # the stated errors are of the size of the real spread, and not below it
    stated = torch.tensor([run.se for run in runs]).square().mean().sqrt()
    assert 0.8 < stated / values.std() < 2.5


def test_stated_error_of_the_energy_distance_between_different_laws():
    runs = [
        value("energy_distance", outcome(0.6 + normal(100, 900 + i)), seed=i) for i in range(200)
    ]
    values = torch.tensor([run.value for run in runs])
    stated = torch.tensor([run.se for run in runs]).square().mean().sqrt()
    assert 0.85 < stated / values.std() < 1.3


def test_distances_do_not_change_far_from_the_origin():
    near = value("energy_distance", outcome(normal(N, 3)))
    far_truth = truth()._replace(sample=lambda n, g: truth().sample(n, g) + 1e6)
    far = value("energy_distance", outcome(normal(N, 3) + 1e6), far_truth)
    assert far.value == pytest.approx(near.value, abs=1e-6)


@pytest.mark.parametrize("name", ["energy_distance", "mmd"])
def test_blocks_do_not_change_the_value(name, monkeypatch):
    from tiltbench.metrics import _pairs

    whole = value(name, outcome(normal(137, 3)))
    monkeypatch.setattr(_pairs, "BLOCK", 1000)
    assert value(name, outcome(normal(137, 3))) == pytest.approx(whole, rel=1e-12)


def test_mode_tv_of_known_shares():
    x = torch.tensor([[1.0, 0.0]] * 30 + [[-1.0, 0.0]] * 10).double()
    assert value("mode_tv", outcome(x)).value == pytest.approx(0.25)
    assert value("mode_tv", outcome(x[:30])).value == pytest.approx(0.5)
    estimate = value("mode_tv", outcome(x))
    assert estimate.se == pytest.approx(math.sqrt(0.75 * 0.25 / 39), rel=1e-6)
    three = truth()._replace(modes=Modes(torch.tensor([0.2, 0.3, 0.5]), sign))
    assert value("mode_tv", outcome(x), three).value == pytest.approx(0.5)


def test_observables_count_chains_not_draws():
    """40 copies of each of 25 draws: the error is that of 25."""
    x = normal(25, 6).repeat_interleave(40, 0)
    group = torch.arange(25).repeat_interleave(40)
    blind = value("obs_z", Outcome(Draws(x), None, {}))
    grouped = value("obs_z", Outcome(Draws(x, None, group), None, {}))
    assert blind.value > 4 * grouped.value
    assert grouped.value < 4 and grouped.n == 25
    b2 = value("obs_b2", Outcome(Draws(x), None, {}))
    mean = float(x[:, 0].mean())
    assert b2.value >= mean**2 - 1e-12


def test_observables_of_a_set_without_spread_use_that_of_exact_draws():
    x = torch.ones(100, 2, dtype=torch.float64)
    assert value("obs_z", Outcome(Draws(x), None, {})).value == pytest.approx(10.0)
    assert value("obs_b2", Outcome(Draws(x), None, {})).value == pytest.approx(1.0)


def test_errors_of_few_draws_are_those_of_their_formulas():
    """Constants such as the 2 of a projection of pairs, or n and not the number of groups."""
    x, y, group = normal(6, 7), normal(6, 8) + 1, torch.tensor([0, 0, 1, 2, 2, 3])
    known_truth = truth()._replace(sample=lambda n, g: y[:n])
    sample = Outcome(Draws(x, None, group), None, {})
    across, of_x, of_y = torch.cdist(x, y), torch.cdist(x, x), torch.cdist(y, y)
    rows = 2 * (across.mean(1) - of_x.sum(1) / 5)
    columns = 2 * (across.mean(0) - of_y.sum(1) / 5)
    sums = torch.zeros(4, dtype=torch.float64).index_add(0, group, rows - rows.mean())
    se = math.sqrt(4 / 3 * float(sums.square().sum()) / 36 + float(columns.var()) / 6)
    estimate = value("energy_distance", sample, known_truth)
    assert estimate.se == pytest.approx(se, rel=1e-9) and estimate.n == 4
    # one observable far off, whose mean has the standard error of its groups
    far = Outcome(Draws(x + 3, None, group), None, {})
    mean = estimators.average(x[:, 0] + 3, group)
    estimate = value("obs_b2", far, truth()._replace(observables=first_coordinate(sd=2.0)))
    assert estimate.value == pytest.approx((mean.value / 2) ** 2)
    assert estimate.se == pytest.approx(2 * mean.value * mean.se / 4)
    # draws all alike in four groups: the error is that of six exact draws
    alike = Outcome(Draws(torch.ones(6, 2, dtype=torch.float64), None, group), None, {})
    estimate = value("obs_z", alike, truth()._replace(observables=first_coordinate(sd=2.0)))
    assert estimate.value == pytest.approx(math.sqrt(6) / 2) and estimate.n == 4


def first_coordinate(sd):
    return {"mean": Observable(lambda x: x[:, 0], 0.0, sd)}


@pytest.mark.parametrize("name", ["grad_cov", "grad_var"])
def test_errors_of_few_gradients_are_those_of_the_jackknife_by_hand(name):
    g = 1.5 + 0.3 * normal(4, 9, 10)

    def stated(g):
        spread, m = float(g.var(0).sum()), len(g)
        squared = float(g.mean(0).square().sum()) - spread / m
        return spread if name == "grad_cov" else spread / squared

    estimate = value(name, Outcome(Draws(normal(2, 0)), None, {"gradient_gram": g @ g.T}))
    left = [stated(torch.cat([g[:i], g[i + 1 :]])) for i in range(4)]
    se = math.sqrt(3 / 4 * sum((one - stated(g)) ** 2 for one in left))
    assert estimate.value == pytest.approx(stated(g)) and estimate.se == pytest.approx(se)


def test_gradient_variance_of_known_gradients():
    """g = m + L xi: tr Cov = sum of squares of L, |E g|^2 = |m|^2; ratio known."""
    runs, spreads = [], []
    for i in range(100):
        xi = torch.randn(30, 12, generator=source(i), dtype=torch.float64)
        g = 1.5 + xi * torch.linspace(0.5, 1.5, 12, dtype=torch.float64)
        sample = Outcome(Draws(normal(2, 0)), None, {"gradient_gram": g @ g.T})
        runs.append(value("grad_var", sample))
        spreads.append(value("grad_cov", sample))
    total = float((torch.linspace(0.5, 1.5, 12).double() ** 2).sum())
    found = torch.tensor([spread.value for spread in spreads])
    assert abs((found.mean() - total) / (found.std() / 10)) < 4
    error = torch.tensor([spread.se for spread in spreads]).square().mean().sqrt()
    assert 0.8 < error / found.std() < 1.25
    exact = float((torch.linspace(0.5, 1.5, 12).double() ** 2).sum() / (12 * 1.5**2))
    values = torch.tensor([run.value for run in runs])
    assert abs((values.mean() - exact) / (values.std() / 10)) < 4
    stated = torch.tensor([run.se for run in runs]).square().mean().sqrt()
    assert 0.8 < stated / values.std() < 1.25


def test_the_squared_mean_gradient_is_unbiased_with_few_batches():
    """In many dimensions tr Cov hardly varies, so E[1/ratio] = |E g|^2 / tr Cov; the square of the
    plain mean would be 20 % too large with 8 batches."""
    inverse = []
    for i in range(100):
        g = 0.8 + torch.randn(8, 200, generator=source(i), dtype=torch.float64)
        sample = Outcome(Draws(normal(2, 0)), None, {"gradient_gram": g @ g.T})
        inverse.append(1 / value("grad_var", sample).value)
    inverse = torch.tensor(inverse)
    assert abs((inverse.mean() - 0.64) / (inverse.std() / 10)) < 4


def test_gradient_variance_at_a_stationary_point_is_unknown():
    for i in range(10):
        g = torch.randn(30, 12, generator=source(i), dtype=torch.float64)
        sample = Outcome(Draws(normal(2, 0)), None, {"gradient_gram": g @ g.T})
        try:
            assert value("grad_var", sample).value > 5  # never a small or negative number
        except Unknown as error:
            assert "significantly from zero" in str(error)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_very_few_draws_give_a_number_or_a_sentence(name, n):
    try:
        estimate = value(name, Outcome(Draws(normal(n, 1)), None, {}))
        assert estimate.n <= 2 and (n > 0 or math.isnan(estimate.value))
    except Unknown as error:
        assert str(error)


@pytest.mark.parametrize("name", [n for n, m in ALL.items() if m.needs & {"log_w", "reverse"}])
def test_weights_that_are_all_zero_never_crash_nor_look_good(name):
    dead = torch.full((10,), -torch.inf)
    try:
        estimate = value(name, Outcome(Draws(normal(10, 1), dead), dead, {}))
        assert estimate.value == 0.0 and ALL[name].better == "higher"
    except Unknown as error:
        assert "zero" in str(error)


def test_fewer_draws_are_met_by_as_few_exact_ones():
    asked = []

    def sample(n, g):
        asked.append(n)
        return truth().sample(n, g)

    for name in ("energy_distance", "mmd", "w2"):
        value(name, outcome(normal(137, 1)), truth()._replace(sample=sample))
    assert asked == [137, 137, 137]


@pytest.mark.parametrize("name", SAMPLE)
def test_scores_repeat_under_the_same_generator(name):
    sample = outcome(normal(50, 1))
    assert value(name, sample, seed=3).value == value(name, sample, seed=3).value


# --- floors ------------------------------------------------------------------------------------


def test_floors_split_a_finite_reference_set():
    """A reference of 2 n points without replacement: the halves are disjoint, so W2 is not zero."""
    points = normal(60, 1)

    def sample(n, g):
        assert n <= 60
        return points[torch.randperm(60, generator=g)[:n]]

    finite = truth()._replace(sample=sample, held=60)
    target = type("Finite", (Plain,), {"truth": lambda self: finite})()
    floor = measure(target, {"w2": ALL["w2"]}, 30, repetitions=5)["w2"]
    assert floor.mean > 0.2


def test_a_target_without_exact_draws_has_no_floor():
    target = type("Unknown", (), {"truth": lambda self: Truth("unknown")})()
    assert measure(target, SAMPLE, 10) == dict.fromkeys(SAMPLE)


def test_heavy_tails_are_unfit_and_bounded_scores_are_not():
    noisy, mean_zero = Floor(30.0, 12.0, 1000), Floor(0.0, 0.1, 1000)
    assert noisy.unfit(ALL["w2"]) and not Floor(30.0, 9.0, 1000).unfit(ALL["w2"])
    assert not mean_zero.unfit(ALL["energy_distance"])
    assert not Floor(1.6, 0.7, 1000).unfit(ALL["obs_z"])


def shipped():
    import json

    return json.loads(SHIPPED.read_text(encoding="utf-8"))["floors"]


@pytest.mark.parametrize("entry", shipped(), ids=lambda e: f"{e['target']['name']}-{e['n']}")
def test_shipped_floors_belong_to_the_targets_as_they_are(entry):
    """Version and spec current; unbiased metrics about 0; fresh pairs agree (|z| < 4)."""
    target = build_target(entry["target"])
    assert spec(target) == entry["target"] and target.version == entry["version"]
    table = read_floors(SHIPPED)[floors_key(entry["target"], entry["version"], entry["n"])]
    assert set(table) == set(SAMPLE)
    truth = target.truth()  # once: that of a lattice is an enumeration
    for name, metric in SAMPLE.items():
        assert (table[name] is not None) == known(metric, target, truth)
    for name in ("energy_distance", "mmd"):  # unbiased
        assert abs(table[name].mean) < 4 * table[name].sd / math.sqrt(table[name].repetitions)
    if entry["n"] > 500:
        return
    few, names = 3, ("mode_tv", "obs_z", "w2")
    fresh = measure(target, {n: SAMPLE[n] for n in names if table[n]}, entry["n"], 1, few)
    for name, floor in fresh.items():
        stored = table[name]
        error = stored.sd * math.sqrt(1 / few + 1 / stored.repetitions)
        assert abs(floor.mean - stored.mean) < 4 * error, name


def test_weights_of_islands_are_not_taken_for_those_of_paths():
    """Every draw of an island that resampled carries its island's estimate of log Z."""
    x, log_w = normal(60, 0), LOG_Z + 0.1 * normal(6, 1, 1)[:, 0]
    group = torch.arange(6).repeat_interleave(10)
    island = Outcome(Draws(x, log_w[group], group), None, {})
    for name in ("ess_model", "elbo_gap"):
        with pytest.raises(Unknown, match="per island, not per path"):
            value(name, island)
    assert value("log_Z_err", island).n == 6
    paths = Outcome(Draws(x, log_w[group] + 0.01 * normal(60, 2, 1)[:, 0], group), None, {})
    alone = Outcome(Draws(x[:6], log_w, torch.arange(6)), None, {})
    for made, n in ((paths, 6), (alone, 6)):
        assert value("ess_model", made).n == n and value("elbo_gap", made).n == n


def test_bennett_is_given_each_side_in_its_own_place():
    """Work whose two laws are no mirror images: -A ~ Gamma(3) forward, Gamma(3) / 2 in reverse,
    Z = 2^-3; and with other numbers of paths on the two sides."""
    gamma = torch.distributions.Gamma(torch.tensor(3.0, dtype=torch.float64), 1.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        forward, reverse = -gamma.sample((6_000,)), -gamma.sample((2_000,)) / 2
    known = Truth("closed form", log_Z=-3 * math.log(2))
    outcome = Outcome(Draws(torch.zeros(6_000, 2), forward), reverse, {})
    estimate = ALL["log_Z_bar_err"].fn(Plain(), known, outcome, source(0))
    assert abs(estimate.value) < 4 * estimate.se < 0.2
    swapped = Outcome(Draws(torch.zeros(2_000, 2), reverse), forward, {})
    wrong = ALL["log_Z_bar_err"].fn(Plain(), known, swapped, source(0))
    assert abs(wrong.value) > 0.3  # the test has power
    for name, side in (("log_Z_err", forward), ("log_Z_rev_err", reverse)):
        one = ALL[name].fn(Plain(), known, outcome, source(0))
        assert one.n == len(side) and abs(one.value) < 0.2  # too heavy a tail for an error


def test_every_metric_of_weights_is_given_each_side_in_its_own_place():
    """Sides that are no mirror images of each other and differ in size, beside the estimators."""
    forward, reverse = 0.8 * normal(300, 3, 1)[:, 0], 0.3 + 0.5 * normal(200, 4, 1)[:, 0].exp()
    outcome = Outcome(Draws(normal(300, 5), forward), reverse, {})
    alone = Truth("closed form", log_Z=0.0)
    expected = {
        "overlap": estimators.overlap(forward, reverse),
        "unseen": estimators.unseen(forward, reverse),
        "unseen_rev": estimators.unseen(-reverse, -forward),
        "k_hat": Estimate(estimators.k_hat(forward), math.nan, 300),
        "k_hat_rev": Estimate(estimators.k_hat(-reverse), math.nan, 200),
        "log_Z_err": estimators.jarzynski(forward),
        "log_Z_rev_err": estimators.reverse(reverse),
        "log_Z_bar_err": estimators.bar(forward, reverse),
        "ess_model": estimators.ess_model(forward),
        "ess_target": estimators.ess_target(reverse),
        "elbo_gap": estimators.elbo(forward)._replace(value=-float(forward.mean())),
        "eubo_gap": estimators.eubo(reverse),
    }
    for name, known_value in expected.items():
        estimate = ALL[name].fn(Plain(), alone, outcome, source(0))
        assert estimate.value == pytest.approx(known_value.value, rel=1e-12), name
        assert estimate.n == known_value.n, name
    sided = {name for name, metric in ALL.items() if metric.needs & {"reverse", "log_w"}}
    assert sided - set(expected) == {"path_kl", "tilt_kl", "log_Z_forward", "elbo"}


def test_the_spread_of_a_floor_is_that_of_a_sample():
    """The standard deviation over repetitions is divided by their number less one."""
    values = iter(range(1, 1000))

    def counted(target, truth, outcome, generator):
        return Estimate(float(next(values)), math.nan, 1)

    metric = ALL["energy_distance"]._replace(name="counted", fn=counted)
    floor = measure(Plain(), {"counted": metric}, 20)["counted"]
    assert floor.repetitions == 20 and floor.mean == 10.5
    assert floor.sd == pytest.approx(math.sqrt(35))  # of 1 to 20


def test_an_error_of_log_Z_is_stated_where_the_weights_tell_it():
    """Light tails; a tail without variance; a mode that the paths have lost, from either side."""
    fine = outcome(normal(2_000, 1), 0.4)
    for name in ("log_Z_err", "log_Z_rev_err"):
        assert 0 < value(name, fine).se < 0.1
    heavy = -0.9 * torch.rand(2_000, generator=source(1), dtype=torch.float64).log()
    x = normal(2_000, 1)
    lost = torch.cat([fine.log_w_reverse[:1_000], fine.log_w_reverse[1_000:] + 20])
    cases = {
        "log_Z_err": [(Outcome(Draws(x, heavy), None, {}), "k_hat is 0")]
        + [(Outcome(Draws(x, fine.draws.log_w), lost, {}), "unseen is 0.5")],
        "log_Z_rev_err": [(Outcome(Draws(x), -heavy, {}), "k_hat_rev is 0")]
        + [(Outcome(Draws(x, -lost), -fine.draws.log_w, {}), "unseen_rev is 0.5")],
    }
    for name, made in cases.items():
        for one, why in made:
            estimate = value(name, one)
            assert (
                isinstance(estimate, Unbounded) and math.isnan(estimate.se) and estimate.n == 2_000
            )
            assert estimate.why.startswith("no error bar") and why in estimate.why
    for name in ("log_Z_rev_err", "log_Z_bar_err"):
        noised = fine._replace(probes={NOISED: torch.ones(1)})
        assert "noising" in value(name, noised).why and value("log_Z_err", noised).se > 0
    both = Outcome(Draws(x, fine.draws.log_w), lost, {})
    assert value("log_Z_bar_err", both).se > 0  # its overlap is what tells of it


def test_a_value_without_an_error_says_why():
    score = Score(0.3, None, 5, no_error="no error bar, for k_hat is 0.9")
    assert score.json() == {"value": 0.3, "se": None, "n": 5, "no_error": score.no_error}
    rows = DataFrame(
        [
            {"seed": 0, "value": 0.3, "se": None, "floor_mean": math.nan, "floor_sd": math.nan,
             "floor_n": math.nan, "unfit": False, "reason": score.no_error},
            {"seed": 1, "value": 0.1, "se": 0.2, "floor_mean": math.nan, "floor_sd": math.nan,
             "floor_n": math.nan, "unfit": False, "reason": ""},
        ]
    )  # fmt: skip
    assert summarise(rows, ALL["log_Z_err"]).barless
    assert not summarise(rows[1:], ALL["log_Z_err"]).barless
