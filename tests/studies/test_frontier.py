"""The study of the digit frontier: closed forms of a Gaussian, and verdicts on made-up runs."""

import math

import matplotlib.image
import pytest
import torch

from tests.tools.result_sets import put
from tiltbench.plan.spec import build_target, parse, spec
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.common import stored as _stored
from tiltbench.studies.frontier import study as frontier
from tiltbench.studies.frontier.claims import judged
from tiltbench.studies.frontier.exact import exact, ladder, least_kl
from tiltbench.studies.frontier.hacking import hack
from tiltbench.studies.frontier.methods import MethodAtStrength, Truth, over_seeds
from tiltbench.targets.digits.digits import log_classes
from tiltbench.targets.digits.pool import draws

STRENGTHS = (0.3, 1.0)
FEW = 2_000  # draws of the base, for speed


def test_tilts_of_a_gaussian():
    """f ~ N(0, 1) tilted by exp(s f) is N(s, 1): log Z = s^2 / 2 = KL; a law with mean m has at
    least KL m^2 / 2, whose slope is m."""
    at = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    f = torch.special.ndtri(at)
    tilt = exact(f, 1.5)
    for got, true in ((tilt.mean.value, 1.5), (tilt.kl.value, 1.125), (tilt.log_Z, 1.125)):
        assert got == pytest.approx(true, abs=5e-3)
    assert exact(f, 0.5).ess == pytest.approx(math.exp(-(0.5**2)), rel=0.01)
    log_Z = ladder(f)
    assert least_kl(log_Z, 1.5) == pytest.approx((1.125, 1.5), abs=5e-3)
    assert least_kl(log_Z, -1.0) == pytest.approx((0.0, 0.0), abs=1e-6)  # of strengths above 0


def test_errors_of_an_exact_tilt_are_those_over_sets():
    g = torch.Generator().manual_seed(0)
    sets = [exact(torch.randn(500, generator=g, dtype=torch.float64), 0.7) for _ in range(400)]
    for name in ("mean", "kl"):
        estimates = [getattr(tilt, name) for tilt in sets]
        spread = torch.tensor([e.value for e in estimates]).std()
        assert sum(e.se for e in estimates) / len(estimates) == pytest.approx(
            float(spread), rel=0.12
        )


def test_an_error_over_seeds_is_no_smaller_than_that_of_the_draws():
    assert over_seeds([1.0, 3.0], [0.1, 0.1]) == pytest.approx((2.0, 1.0, 2))
    assert over_seeds([2.0, 2.0], [0.4, 0.3]) == pytest.approx((2.0, 0.25, 2))
    assert over_seeds([2.0], [0.4]) == pytest.approx((2.0, 0.4, 1))
    none = over_seeds([], [])
    assert math.isnan(none.value) and none.n == 0


@pytest.fixture(scope="module")
def world():
    """(log P(3|x) at a few draws of the base, targets, exact tilts), the latter two by strength."""
    base = draws(torch.empty(0))[:FEW]
    f = torch.cat([log_classes(part)[:, 3] for part in base.split(500)]).double()
    targets = {s: build_target(parse(f"digits_class[digit=3,strength={s}]")) for s in STRENGTHS}
    tilts = [Truth(s, exact(f, s), Estimate(9.0, 0.01, 40)) for s in STRENGTHS]
    return f, targets, tilts


def _result(truth, f, method="right"):
    """A method that has all of its exact tilt."""
    none, mean = Estimate(0.0, 0.01, 2), truth.exact.mean.value
    return MethodAtStrength(
        truth.strength,
        method,
        Estimate(mean, 0.002, 2),
        Estimate(truth.exact.kl.value, 0.01, 2),
        none,
        Estimate(truth.exact.kl.value, 0.01, 2),
        truth.diversity,
        none,
        (0.0, 0.01),
        none,
        0.5,
        least_kl(ladder(f), mean),
        (4_000, 1_000),
        method,
        None,
    )


def _changed(result, **by):
    """The result with other values and the same errors."""
    changes = {name: getattr(result, name)._replace(value=value) for name, value in by.items()}
    return result._replace(**changes)


CASES = {
    # reached .3, reached 1, frontier, equality, hacking, by weight, diversity, weights
    "nothing": ({}, "supported supported supported supported supported open open supported"),
    "far": ({"distance": 0.5}, "refuted refuted supported open supported open open supported"),
    "wasteful": (
        {"path_kl": 9.0},
        "supported supported supported refuted supported open open supported",
    ),
    "too good": (
        {"path_kl": 0.01},
        "supported supported refuted open supported open open supported",
    ),
    "hacking": (
        {"log_p": -0.001, "diversity": 5.0, "path_kl": 9.0},
        "refuted refuted supported open refuted open supported supported",
    ),
    "diverse": (
        {"log_p": -0.001, "path_kl": 9.0},
        "refuted refuted supported open refuted open refuted supported",
    ),
    "misled": (
        {"tilt_kl": 9.0},
        "supported supported supported supported supported open open refuted",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_verdicts(case, world):
    changes, expected = CASES[case]
    f, _, truths = world
    results = [_result(truth, f) for truth in truths]
    claims = judged([_changed(result, **changes) for result in results], truths)
    assert " ".join(str(claim.verdict) for claim in claims) == expected


def test_reward_beyond_the_tilt_is_hacking_at_a_larger_kl(world):
    """A law with the mean of the tilt of strength 1 hacks at .3, for the KL between the two."""
    f, _, (weak, strong) = world
    result = _result(strong, f)._replace(strength=weak.strength, floor=(0.0, 0.01))
    hacking = hack((_changed(result, distance=0.05), weak))
    assert hacking.reward == pytest.approx(strong.exact.mean.value - weak.exact.mean.value)
    assert hacking.kl == pytest.approx(strong.exact.kl.value - weak.exact.kl.value, abs=1e-3)
    assert hacking.off == pytest.approx(5)
    assert hack((_result(weak, f), weak)) is None
    assert hack((_result(weak, f)._replace(strength=strong.strength), strong)) is None  # less of it


@pytest.mark.parametrize("hacked, expected", [(0.1, "supported"), (0.5, "refuted"), (None, "open")])
def test_what_a_kl_weight_does(hacked, expected, world):
    """Of the weights .1 and .5 one hacks."""
    f, _, truths = world
    results = [
        _changed(result, log_p=-0.001) if kl == hacked else result
        for truth in truths
        for kl in (0.1, 0.5)
        for result in [_result(truth, f)._replace(kl=kl, method=f"kl {kl}")]
    ]
    (claim,) = (c for c in judged(results, truths) if "KL weight" in c.text)
    assert claim.verdict == expected
    alone = [result._replace(sampler=f"{result.sampler} {result.kl}") for result in results]
    (claim,) = (c for c in judged(alone, truths) if "KL weight" in c.text)
    assert claim.verdict == "open"


def test_the_study_reads_stored_runs(world, tmp_path, monkeypatch):
    f, targets, truths = world
    suite = tmp_path / "finetune_digits"
    for truth in truths:
        of = spec(targets[truth.strength])
        here = {"target": f"threes at {truth.strength:g}", "of": of}
        for seed, shift in enumerate((-0.1, 0.0, 0.1)):
            scores = {
                "expected_reward": truth.strength * (truth.exact.mean.value + shift),
                "path_kl": truth.exact.kl.value,
                "energy_distance": (
                    (0.02, 0.03, 0.07)[seed],
                    {"mean": 0.0, "sd": 0.01, "n": 40, "unfit": False},
                ),
                "diversity": 9.0,
                "log_Z_err": 0.3,
                "log_Z_own_err": 0.7,
            }
            put(suite, "right", seed, scores, **here)
        put(suite, "baseline", 0, {"expected_reward": -5.0, "log_Z_own_err": 0.1}, **here)
    put(suite, "right", 0, {"expected_reward": -5.0})  # another target
    few = draws(torch.empty(0, dtype=torch.float64))[:FEW]
    made_up = targets[1.0].truth()._replace(sample=lambda n, generator: few[:n])
    monkeypatch.setattr(_stored, "ROOTS", (tmp_path,))
    monkeypatch.setattr(type(targets[1.0]), "truth", lambda self: made_up)
    monkeypatch.setattr(frontier, "draws", lambda like: few.to(like))
    monkeypatch.setattr(frontier, "COMPARED", 100)
    monkeypatch.setattr(frontier, "COLUMNS", 10)
    answer = frontier.run(tmp_path, "cpu")
    table = answer.table
    assert table["method"].tolist() == ["exact tilt", "baseline", "right"] * 2
    one = table[table["strength"] == 1.0].set_index("method")
    mean = truths[1].exact.mean.value
    assert one.loc["right", "E log P"] == f"{mean:.3f} ± 0.058"
    assert one.loc["right", ["calls", "energy distance"]].tolist() == [
        "1,000 + 40",
        "0.0300 ± 0.0153",
    ]
    assert one.loc["exact tilt", "E log P"].split()[0] == f"{mean:.3f}"
    assert one.loc["baseline", ["path KL", "energy distance"]].tolist() == ["–", "–"]
    assert one.loc[["right", "baseline"], "log Z error"].tolist() == ["0.30 ± 0.01", "0.10 ± 0.01"]
    assert "base, exact tilt, baseline, right." in answer.words
    assert matplotlib.image.imread(tmp_path / "sheet.png").shape[:2] == (4 * 50, 10 * 50)
    assert (tmp_path / "frontier.png").stat().st_size > 2_000


def test_results_without_the_strength_of_the_sheet_name_the_remedy(world):
    _, targets, _ = world
    weaker = {"a label": targets[0.3]}
    with pytest.raises(FileNotFoundError, match="digit 3 at strength 1: run the whole suite"):
        frontier.shown_row(weaker)


def test_without_the_suite_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(_stored, "ROOTS", (tmp_path,))
    with pytest.raises(FileNotFoundError, match="tiltbench run --suite finetune_digits"):
        frontier.run(tmp_path, "cpu")
