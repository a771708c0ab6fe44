"""The posteriors: each density beside a plain loop over its data, log Z beside printed figures."""

import importlib.util
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.spatial
import scipy.special
import scipy.stats
import torch

from tiltbench.targets.constrained.parameters import constrain
from tiltbench.targets.constrained.posteriordb import Raw, Refused
from tiltbench.targets.densities.posteriors._database import MODELS
from tiltbench.targets.registry import TARGETS
from tiltbench.targets.target import DATA, table
from tiltbench.targets.truths.certified import reference_of

normal = scipy.stats.norm.logpdf


def load(name):
    return TARGETS.load(name)()


def stored(name):
    return table(name, torch.zeros((), dtype=torch.float64)).numpy()


def half_cauchy(x, scale):
    return scipy.stats.cauchy.logpdf(x, 0, scale)  # as Stan's `tau ~ cauchy(0, 5)`: no log 2


def lognormal(y, mean, sd):
    return normal(np.log(y), mean, sd) - np.log(y)


def eight_schools(p):
    y, s = [28, 8, -3, 7, -1, 1, 18, 12], [15, 10, 16, 11, 9, 11, 10, 18]
    log_p = normal(p["mu"], 0, 5) + half_cauchy(p["tau"], 5) + normal(p["t"]).sum()
    return log_p + sum(normal(y[j], p["mu"] + p["tau"] * p["t"][j], s[j]) for j in range(8))


def ark(p):
    y = stored("arK")
    log_p = normal(p["alpha"], 0, 10) + normal(p["beta"], 0, 10).sum()
    log_p += half_cauchy(p["sigma"], 2.5)
    for t in range(5, 200):
        mean = p["alpha"] + sum(p["beta"][k] * y[t - 1 - k] for k in range(5))
        log_p += normal(y[t], mean, p["sigma"])
    return log_p


def garch11(p):
    y, square, log_p = stored("garch11"), 0.25, 0.0
    alpha1, beta1 = p["persistence"]
    for t in range(200):
        if t:
            square = p["alpha0"] + alpha1 * (y[t - 1] - p["mu"]) ** 2 + beta1 * square
        log_p += normal(y[t], p["mu"], math.sqrt(square))
    return log_p


def mixture(p):
    y, w = stored("low_dim_gauss_mix"), p["theta"]
    log_p = normal(p["mu"], 0, 2).sum() + normal(p["sigma"], 0, 2).sum()
    log_p += scipy.stats.beta.logpdf(w, 5, 5)
    law = [np.exp(normal(y, p["mu"][k], p["sigma"][k])) for k in range(2)]
    return log_p + np.log(w * law[0] + (1 - w) * law[1]).sum()


def hmm(p):
    step, weight = np.stack([p["theta1"], p["theta2"]]), None
    log_p = normal(p["mu"], [3, 10]).sum()
    for y in stored("hmm_example"):
        law = np.exp(normal(y, p["mu"]))
        weight = law if weight is None else (weight @ step) * law
        log_p, weight = log_p + math.log(weight.sum()), weight / weight.sum()
    return log_p


def nes(p):
    rows = stored("nes1980")
    return normal(rows[:, -1], rows[:, :-1] @ p["beta"], p["sigma"]).sum()


def hudson(p):
    rates, pelts = p["theta"], load("hudson_lynx_hare").data()["pelts"].numpy()
    log_p = normal(rates, [1, 0.05, 1, 0.05], [0.5, 0.05, 0.5, 0.05]).sum()
    log_p += lognormal(p["z_init"], math.log(10), 1).sum() + lognormal(p["sigma"], -1, 1).sum()

    def slope(_, z):
        return [(rates[0] - rates[1] * z[1]) * z[0], (rates[3] * z[0] - rates[2]) * z[1]]

    z = scipy.integrate.solve_ivp(
        slope, (0, 20), p["z_init"], "DOP853", np.arange(21), rtol=1e-10, atol=1e-12
    ).y.T
    return log_p + lognormal(pelts, np.log(z), p["sigma"]).sum()


def brownian(p):
    """As one Gaussian in 50 dimensions."""
    seen = np.eye(30)[[*range(10), *range(20, 30)]]
    path = p["innovation"] ** 2 * np.minimum(*np.ogrid[1:31, 1:31])
    noise = p["noise"] ** 2 * np.eye(20)
    both = np.block([[path, path @ seen.T], [seen @ path, seen @ path @ seen.T + noise]])
    y = np.concatenate([p["path"], stored("brownian_motion")])
    scales = lognormal(p["innovation"], 0, 2) + lognormal(p["noise"], 0, 2)
    return scales + scipy.stats.multivariate_normal.logpdf(y, np.zeros(50), both)


def item_response(p):
    right, log_p = stored("item_response"), normal(p["mean"], 0.75)
    log_p += normal(p["ability"]).sum() + normal(p["difficulty"]).sum()
    for k in range(10):
        asked = p["difficulty"][[(10 * k + j) % 100 for j in range(20)]]
        odds = p["mean"] + p["ability"][40 * k : 40 * (k + 1), None] - asked
        log_p += np.where(right[k] == 1, -np.logaddexp(0, -odds), -np.logaddexp(0, odds)).sum()
    return log_p


def cox_process(p):
    cells = np.array([(i / 40, j / 40) for i in range(40) for j in range(40)])
    apart = scipy.spatial.distance.cdist(cells, cells)
    root = np.linalg.cholesky(1.91 * np.exp(-33 * apart))
    rate = 126 * np.exp(root @ p["white"] - 1.91 / 2) / 1600
    log_p = scipy.stats.poisson.logpmf(stored("cox_process"), rate).sum()
    return log_p + normal(p["white"]).sum()


LOOPS = {
    "cox_process": cox_process,
    "eight_schools_noncentered": eight_schools,
    "arK": ark,
    "garch11": garch11,
    "low_dim_gauss_mix": mixture,
    "hmm_example": hmm,
    "nes1980": nes,
    "hudson_lynx_hare": hudson,
    "brownian_motion": brownian,
    "item_response": item_response,
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_density_is_that_of_a_plain_loop(name):
    target = load(name)
    x = torch.randn(2, target.dim, generator=torch.Generator().manual_seed(0)).double()
    theta = constrain(target.parameters, x).theta
    value = target.log_joint(theta)
    for i in range(2):
        alone = LOOPS[name]({key: part[i].numpy() for key, part in theta.items()})
        tolerance = 1e-4 if name == "hudson_lynx_hare" else 1e-9  # steps of a twentieth of a year
        assert float(value[i]) == pytest.approx(alone, rel=1e-10, abs=tolerance)


def test_diamonds_is_that_of_the_rows():
    """On rows of its own, through what a reader's checkout would be read by."""
    g = np.random.default_rng(0)
    x, y = g.standard_normal((30, 4)), 8 + g.standard_normal(30)
    x[:, 0] = 1
    target = load("diamonds")
    data = MODELS["diamonds"].read(
        Raw({"N": 30, "K": 4, "X": x.tolist(), "Y": y.tolist()}, "d.json")
    )
    b, first, sigma = np.array([0.3, -0.2, 0.1]), 7.5, 0.8
    theta = {"b": b, "Intercept": np.array(first), "sigma": np.array(sigma)}
    value = target.log_density({k: torch.as_tensor(v) for k, v in theta.items()}, data)
    t = scipy.stats.t.logpdf
    plain = normal(b).sum() + t(first, 3, 8, 10) + t(sigma, 3, 0, 10) + math.log(2)
    plain += normal(y, first + (x[:, 1:] - x[:, 1:].mean(0)) @ b, sigma).sum()
    assert float(value) == pytest.approx(plain, rel=1e-12)
    assert [p.size for p in target.table(data)] == [0, 3, 0]


MAKE = importlib.util.spec_from_file_location("make_posteriors", DATA / "make_posteriors.py")
MAKER = importlib.util.module_from_spec(MAKE)
MAKE.loader.exec_module(MAKER)


@pytest.mark.parametrize("name", sorted(MAKER.MAKERS))
def test_frozen_data_are_those_of_the_stated_command(name):
    assert np.allclose(MAKER.generate(name), np.load(DATA / f"{name}.npy"), rtol=1e-12, atol=1e-12)


def by_importance(target, n, spread=1.3, freedom=6):
    """log Z and its error, proposing Student's t of independent coordinates, then of the mean and
    covariance that those have found."""
    g, estimate = np.random.default_rng(1), None
    loc, root = np.zeros(target.dim), spread * np.eye(target.dim)
    for _ in range(3):
        law = scipy.stats.multivariate_t(loc, root @ root.T, df=freedom, seed=g)
        x = law.rvs(n)
        with torch.no_grad():
            log_w = target.log_rho(torch.as_tensor(x)).numpy() - law.logpdf(x)
        w = np.exp(log_w - log_w.max())
        estimate = log_w.max() + math.log(w.mean()), float(w.std() / w.mean() / math.sqrt(n))
        loc = w @ x / w.sum()
        root = np.linalg.cholesky(1.1 * ((x - loc) * w[:, None]).T @ (x - loc) / w.sum())
    return estimate


def eight_schools_by_quadrature():
    """Effects and mu integrated out in closed form, tau numerically."""
    y, s = np.array([28, 8, -3, 7, -1, 1, 18, 12]), np.array([15, 10, 16, 11, 9, 11, 10, 18])

    def f(tau):
        cover = np.diag(s**2 + tau**2) + 25.0
        law = scipy.stats.multivariate_normal.logpdf(y, np.zeros(8), cover)
        return math.exp(law + half_cauchy(tau, 5) + 32)

    return math.log(scipy.integrate.quad(f, 0, np.inf, epsabs=1e-12, limit=200)[0]) - 32


def test_log_Z_of_eight_schools_three_ways():
    value, se = by_importance(load("eight_schools_noncentered"), 40_000)
    exact = eight_schools_by_quadrature()
    assert abs(exact + 32.000) < 3 * 0.004  # bridge sampling of stored reference draws
    assert se < 0.01 and abs(value - exact) < 4 * se


def regression_by_quadrature(rows, prior, law_of_sigma, around, count=None):
    """log of the integral over coefficients of prior N(0, prior^2), or flat ones where that is
    infinite, in closed form, and over log sigma numerically; `count` where rows are a triangle."""
    x, y = rows[:, :-1], rows[:, -1]
    n, k = count or len(x), x.shape[1]
    prior = np.broadcast_to(prior, k)
    held = np.isfinite(prior)
    log_sigma = np.linspace(around - 0.6, around + 0.6, 401)
    log_p = []
    for sigma in np.exp(log_sigma):
        precision = x.T @ x / sigma**2 + np.diag(1 / prior**2)
        shift = x.T @ y / sigma**2
        quadratic = y @ y / sigma**2 - shift @ np.linalg.solve(precision, shift)
        value = -quadratic / 2 - n * math.log(sigma) - n / 2 * math.log(2 * math.pi)
        value += k / 2 * math.log(2 * math.pi) - np.linalg.slogdet(precision)[1] / 2
        value -= np.log(prior[held]).sum() + held.sum() / 2 * math.log(2 * math.pi)
        log_p.append(value + law_of_sigma(sigma) + math.log(sigma))
    top = max(log_p)
    return top + math.log(np.exp(np.array(log_p) - top).sum() * (log_sigma[1] - log_sigma[0]))


def regressions():
    """log Z of the three, by quadrature; the wide prior of diamonds' intercept is flat there."""
    y = stored("arK")
    lags = [y[5 - k : 200 - k] for k in range(1, 6)]
    rows = np.column_stack([np.ones(195), *lags, y[5:]])
    t = scipy.stats.t.logpdf

    def wide(sigma):
        return t(sigma, 3, 0, 10) + math.log(2) + t(8, 3, 8, 10)

    free = np.array([math.inf, *np.ones(24)])
    return {
        "arK": regression_by_quadrature(rows, 10.0, lambda s: half_cauchy(s, 2.5), -1.6),
        "nes1980": regression_by_quadrature(stored("nes1980"), math.inf, lambda s: 0.0, 0.65),
        "diamonds": regression_by_quadrature(stored("diamonds"), free, wide, -2.04, 5000),
    }


def test_log_Z_of_the_regressions_by_quadrature():
    exact = regressions()
    for name in ("arK", "nes1980"):
        value, se = by_importance(load(name), 10_000)
        assert se < 0.02 and abs(value - exact[name]) < 4 * se, name


def test_regressions_are_placed_by_their_own_fit():
    rows, target = stored("nes1980"), load("nes1980")
    x, y = rows[:, :-1], rows[:, -1]
    fit, rest = np.linalg.lstsq(x, y)[:2]
    sd = math.sqrt(rest[0] / 600)
    beta, sigma = target.parameters
    assert beta.centre == pytest.approx(fit) and sigma.centre[0] == pytest.approx(math.log(sd))
    widths = sd * np.sqrt(np.diag(np.linalg.inv(x.T @ x)))
    assert beta.width == pytest.approx(widths) and sigma.width[0] == pytest.approx(1200**-0.5)


def brownian_by_quadrature():
    """The path integrated out in closed form, both scales numerically."""
    y, seen = stored("brownian_motion"), np.r_[1:11, 21:31]
    least = np.minimum(*np.meshgrid(seen, seen))
    logs, step = np.linspace(-9, 4, 131, retstep=True)
    values = np.empty((131, 131))
    for i, innovation in enumerate(logs):
        shares, axes = np.linalg.eigh(math.exp(2 * innovation) * least)
        across = (axes.T @ y) ** 2
        variance = shares + np.exp(2 * logs)[:, None]
        law = -(across / variance + np.log(2 * math.pi * variance)).sum(1) / 2
        values[i] = law + normal(innovation, 0, 2) + normal(logs, 0, 2)
    return float(scipy.special.logsumexp(values)) + 2 * math.log(step)


def test_the_truth_of_the_path_is_exact():
    """log Z by two grids; Stein's identities at its draws."""
    target = load("brownian_motion")
    truth = target.truth()
    assert truth.log_Z == pytest.approx(brownian_by_quadrature(), abs=1e-3)
    x = truth.sample(4_000, torch.Generator().manual_seed(0))
    value, slope = target.log_rho_and_grad(x)
    identities = [*slope.T, *(x * slope + 1).T, (x * slope).sum(-1) + 32]
    identities += [f(x) - mean for f, mean, _, _ in truth.observables.values()]
    assert value.isfinite().all() and len(identities) == 67
    assert all(abs(f.mean()) < 4 * f.std() / len(x) ** 0.5 for f in identities)
    assert torch.equal(x, truth.sample(4_000, torch.Generator().manual_seed(0)))


REFERENCES = (
    "diamonds",
    "hmm_example",
    "arK",
    "eight_schools_noncentered",
    "garch11",
    "low_dim_gauss_mix",
    "nes1980",
)  # whose certified reference is stored
SMALL = ("garch11", "low_dim_gauss_mix", "hmm_example")  # within reach of importance sampling


@pytest.mark.parametrize("name", REFERENCES)
def test_the_two_log_Z_of_a_reference_agree(name):
    target = load(name)
    tests = {tuple(test["figures"]): test for test in reference_of(target).facts["tests"]}
    figures = tests["tempering", "smc", "z"]["figures"]
    assert abs(figures["tempering"]["value"] - figures["smc"]["value"]) < 0.05
    assert max(figures["tempering"]["se"], figures["smc"]["se"]) < 0.05
    assert target.truth().log_Z is not None and target.truth().held > 1_000


def log_Z_by_other_means(name):
    """Value and error: quadrature, importance sampling, or bridge sampling of stored reference
    draws of posteriordb (design notes)."""
    if name in SMALL:
        return by_importance(load(name), 10_000)
    exact = {"eight_schools_noncentered": eight_schools_by_quadrature(), **regressions()}
    return {"hudson_lynx_hare": (-147.080, 0.003)}.get(name) or (exact[name], 0.0)


@pytest.mark.parametrize("name", sorted({*REFERENCES} - {"item_response", "cox_process"}))
def test_log_Z_of_a_reference_is_that_of_other_means(name):
    truth, (value, se) = load(name).truth(), log_Z_by_other_means(name)
    assert abs(truth.log_Z - value) < 3 * math.hypot(truth.log_Z_se, se)


def test_log_Z_of_the_hares_and_lynxes():
    """-147.080 +- .003 by warp bridge sampling of stored reference draws."""
    value, se = by_importance(load("hudson_lynx_hare"), 2_000)
    assert se < 0.05 and abs(value + 147.080) < 4 * math.hypot(se, 0.003)


def test_observables_are_the_models_own():
    statistics = load("eight_schools_noncentered").statistics()
    assert list(statistics) == ["mu", "tau", *(f"theta[{j}]" for j in range(1, 9))]
    x = torch.zeros(3, 10, dtype=torch.float64)
    x[1, -1] = 2.0
    assert statistics["tau"](x).tolist() == pytest.approx(
        [math.exp(0.81), math.exp(0.81 + 2.4), math.exp(0.81)], rel=2e-2
    )
    assert statistics["theta[1]"](x).shape == (3,)
    assert list(load("garch11").statistics()) == ["mu", "alpha0", "alpha1", "beta1"]
    assert len(load("item_response").statistics()) == 32
    assert list(load("cox_process").statistics())[:3] == ["points", "mean", "field[1]"]


def test_trajectories_that_leave_all_bounds_have_no_density_and_no_nan():
    target = load("hudson_lynx_hare")
    x = 60 * torch.randn(50, 8, generator=torch.Generator().manual_seed(3)).double()
    value, grad = target.log_rho_and_grad(x)
    assert not value.isnan().any() and (value == -torch.inf).any()
    assert grad[value.isfinite()].isfinite().all()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"J": 2, "y": [1.0, 2.0]}, "sigma in s.json is not data of this model: it is missing"),
        ({"J": 2, "y": [1.0], "sigma": [1, 1]}, r"it has shape \(1,\), and must have \(2,\)"),
        ({"J": 2, "y": [1, [2]], "sigma": [1, 1]}, "no even shape of numbers"),
        ({"J": 2, "y": [1, 2], "sigma": [1, -1]}, "sigma .* it must be positive"),
        ({"J": 2.5, "y": [1, 2], "sigma": [1, 1]}, "J .* it must be a positive number"),
        ({"J": True, "y": [1], "sigma": [1]}, "J .* it must be a positive number"),
        ({"J": 10**9, "y": [1], "sigma": [1]}, "J .* it must be a positive number"),
        ({"J": 2, "y": ["1", "2"], "sigma": [1, 1]}, "no even shape of numbers"),
        ({"J": 1, "y": [10**400], "sigma": [1]}, "no even shape of numbers"),
    ],
)
def test_data_that_are_not_the_models_get_one_sentence(values, message):
    with pytest.raises(Refused, match=message):
        MODELS["eight_schools_noncentered"].read(Raw(values, "s.json"))
