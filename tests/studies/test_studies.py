"""Studies: their arithmetic on known data, their files, and a tiny run of each."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from pandas import DataFrame

from tests.tools.result_sets import FLOOR, put
from tiltbench.cli.main import main
from tiltbench.plan.spec import STUDIES
from tiltbench.report.pictures import style
from tiltbench.samplers.weights import Estimate
from tiltbench.studies.bias import study as bias
from tiltbench.studies.common import stored as _stored
from tiltbench.studies.conditional_variance import study as conditional_variance
from tiltbench.studies.convergence import study as convergence
from tiltbench.studies.fluctuation import study as fluctuation
from tiltbench.studies.integrated_variance import study as integrated_variance
from tiltbench.studies.oracle import study as oracle
from tiltbench.studies.physics import study as physics
from tiltbench.studies.rank_agreement import study as rank_agreement
from tiltbench.study import Answer, Claim, Study, conduct, verdict
from tiltbench.targets.bases.schedules import RectifiedFlow
from tiltbench.targets.precision import allowed, read

STORED = {"oracle", "physics", "rank_agreement"}  # these read what suites have left
# so do these, and have files of tests to themselves
ELSEWHERE = {"planted_failures", "frontier", "parity", "quality", "families", "hard"}


def test_a_study_writes_its_table_with_command_and_commit(tmp_path):
    table = DataFrame({"a": [1.23456, math.nan], "b": ["x", "y"]})
    claim = Claim("|a| is small", verdict(holds=False, fails=True), "1.2 ± 0.1")
    answer = Answer(table, "Two.", (claim,))
    page = conduct(Study("toy", "A question", lambda folder, device: answer), tmp_path, "cpu")
    text = page.read_text()
    assert r"| \|a\| is small | refuted | 1.2 ± 0.1 |" in text
    assert (tmp_path / "claims.csv").read_text().splitlines()[1] == "|a| is small,refuted,1.2 ± 0.1"
    assert "| 1.235 | x |" in text and "| – | y |" in text
    assert text.startswith("# A question") and "`tiltbench study toy`" in text
    assert re.search(r"commit [0-9a-f]{40}", text) and "torch" in text
    assert (tmp_path / "table.csv").read_text().splitlines()[1] == "1.23456,x"


def test_a_study_is_rounded_where_it_says_so_and_only_then(tmp_path, monkeypatch):
    """A GPU as far as a page asks for one."""
    monkeypatch.setattr("tiltbench.study.environment", lambda device: {"tf32": allowed()})
    table, before = DataFrame({"a": [1]}), read()
    for rounded in (True, False):
        study = Study("toy", "A question", lambda *_: Answer(table, f"Rounded: {allowed()}."))
        text = conduct(study, tmp_path, "cuda", rounded).read_text()
        assert f"Rounded: {rounded}." in text and f"tf32 {rounded}" in text
        assert ("`tiltbench study toy --tf32`" in text) == rounded
    assert read() == before


def test_studies_run_side_by_side(tmp_path, monkeypatch, capsys):
    """Two that read the scores of a suite, in processes."""
    monkeypatch.chdir(tmp_path)
    assert main(["study", "oracle", "--jobs", "2"]) == 2
    assert "run the suite first" in capsys.readouterr().err
    for i in range(rank_agreement.LEAST):
        scores = {"grad_cov": 1.0 + i, "log_Z_bar_err": 0.1 * i, "energy_distance": (0.1, FLOOR)}
        put(Path("results/oracle"), f"m{i}", 0, scores, target="tilt_linear")
    names = ["oracle", "rank_agreement"]
    assert main(["study", *names, "--jobs", "2", "--out", "out"]) == 0
    shown = capsys.readouterr().out.split()
    assert sorted(shown) == [f"out/{name}/table.md" for name in names]
    assert "| m0 | 1 |" in Path("out/oracle/table.md").read_text()
    for jobs in ("none", "0"):
        assert main(["study", "oracle", "--jobs", jobs]) == 2
        assert "--jobs" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["study", "rank_agreement", "--out", "file"]) == 2
    assert (
        "cannot be used (Not a directory); name another folder with --out"
        in capsys.readouterr().err
    )


def test_unknown_studies_are_refused(capsys):
    assert main(["study", "convergense"]) == 2
    assert "did you mean 'convergence'" in capsys.readouterr().err


def test_the_crossing_of_gaussian_work_is_log_Z():
    """N(log Z -+ sd^2/2, sd^2) obeys Crooks: log p_bwd / p_fwd = a - log Z."""
    g, sd, log_Z = torch.Generator().manual_seed(0), 1.2, 0.7
    xi = torch.randn(2, 400_000, generator=g, dtype=torch.float64) * sd
    sides = fluctuation.Sides(log_Z - sd**2 / 2 + xi[0], log_Z + sd**2 / 2 + xi[1], log_Z)
    slope, root = fluctuation.crossing_of(sides)
    assert slope == pytest.approx(1, abs=0.02) and root == pytest.approx(log_Z, abs=0.02)
    apart = sides._replace(backward=sides.backward + 50)
    assert all(math.isnan(v) for v in fluctuation.crossing_of(apart))


def test_the_fitted_slope_is_the_order():
    errors = [Estimate(-3.0 / k**2, 1e-3 / k**2, 10) for k in convergence.STEPS]
    slope, se = convergence.slope_of(errors)
    assert slope == pytest.approx(-2, abs=1e-6) and 0 < se < 1e-3
    assert math.isnan(convergence.slope_of([Estimate(0.0, 1.0, 10)] * 5)[0])


def test_a_verdict_is_open_unless_one_condition_holds():
    assert verdict(holds=True, fails=False) == "supported"
    assert verdict(holds=False, fails=True) == "refuted"
    assert verdict(holds=False, fails=False) == verdict(holds=True, fails=True) == "open"


WORLDS = bias.worlds()
SHRUNK = {
    "memory": {"STEPS": (2, 12), "PATHS": 48, "TIMED": 1},
    "truncation": {"STEPS": 4, "LAST": (2, 4), "PATHS": 16, "POINTS": 100, "DRAWS": 100},
    "discretisation": {"STEPS": (2, 4), "DRAWS": 100},
    "calibration": {
        "REPLICATES": 2,
        "RANKED": 19,
        "stored": lambda like: torch.randn(500, 64, generator=torch.Generator().manual_seed(0)).to(
            like
        ),
        "inverse.POINTS": 8,
        "inverse.PATHS": 20,
        "inverse.LEARNT": "adjoint_matching[model=Adapter,paths=8]",
    },
    "memoryless": {
        "POINTS": 200,
        "DRAWS": 100,
        "SIBLINGS": 4,
        "STEPS": 4,
        "METHOD": "adjoint_matching[paths=32]",
        "WORLDS": ("gaussian", "cross"),
        "PICTURED": ("cross",),
    },
    "memoryless_digits": {
        "POINTS": 16,
        "DRAWS": 50,
        "SIBLINGS": 2,
        "ALONE": 2,
        "STEPS": 3,
        "REPEATED": 2,
        "METHOD": "adjoint_matching[model=Adapter,paths=16]",
    },
    "digits_log_Z": {
        "TARGETS": ("digits_superresolution",),
        "METHOD": "adjoint_matching[model=Adapter,paths=16]",
        "POINTS": (16,),
        "PATHS": 20,
        "CHUNK": 500,
        "MOST": 500,
    },
    "fluctuation": {
        "CASES": {"tilt_linear": ("cmcd_lv[paths=8]", 2_000)},
        "PATHS": 500,
    },
    "convergence": {"PATHS": 200, "CHUNK": 100, "STEPS": (2, 4), "POINTS": 300},
    "gradient_variance": {
        "DIMS": (2, 3),
        "NEXT": 5,
        "STEPS": 2,
        "CALLS": 64,
        "OTHER_CALLS": (128,),
        "BATCHES": 3,
        "UPDATES": 1,
        "LONG": 1,
        "sources.FITTED": 1,
        "sources.PATHS": 8,
        "sources.NAMES": (
            "adjoint_matching",
            "adjoint_matching_full",
            "adjoint_sampling",
            "conditional_score_matching",
            "target_score_matching",
            "log_variance",
            "relative_entropy",
            "trajectory_balance",
            "tilt_matching",
            "cmcd_lv",
            "nets_pinn",
        ),
    },
    "estimators": {"CALLS": (64, 256), "REPETITIONS": 4, "TRAINING": 1000},
    "conditional_variance": {
        "TRAINED": {k: conditional_variance.TRAINED[k] for k in ("gaussian", "tilt_linear")},
        "SCHEDULES": (RectifiedFlow(),),
        "TIMES": (0.1, 0.5, 0.9),
        "STAGE_TIMES": (0.1, 0.5),
        "STEPS": 10,
        "FINE": 20,
        "COARSE": 10,
        "DRAWS": 200,
        "PAIRS": 50,
        "STAGES": {"init": 0, "mid": 1, "trained": 2},
        "METHOD": "adjoint_matching[paths=16,batches=2]",
    },
    "coverage": {
        "REPEATED": 2,
        "SHORT": 2,
        "PATHS": 30,
        "CHUNK": 30,
        "TILTS": {"tilt_linear": 300},
        "LOSSES": ("adjoint_matching[paths=8]",),
        "FEW_CALLS": 20,
        "POOL": 30,
        "OLD_POOL": 30,
        "HELD": 30,
        "DENSITIES": ("gmm9",),
        "RIVALS": ("log_variance[paths=8]",),
        "CALLS": 300,
        "ARRIVED": {},
    },
    "policy_gradient": {
        "TARGETS": {"tilt_linear, D = 2": "tilt_linear[steps=4]"},
        "STEPS": 4,
        "CALLS": 32,
        "BATCHES": 3,
        "UPDATES": 1,
        "LONG": 1,
        "sources.PATHS": 8,
        "FREE_PATHS": 8,
        "FREE_BATCHES": 10,
        "TRAINING": 2,
        "DRAWS": 200,
    },
    "adjoint_norms": {"PATHS": 20, "STEPS": 10, "SCHEDULES": {"rectified flow": RectifiedFlow()}},
    "bias": {
        "POINTS": 40,
        "CONTINUED": 10,
        "DRAWS": 2,
        "STEPS": 20,
        "STRENGTHS": (0.0, 0.5),
        "APART": (1.0, 2.0),
        "worlds": lambda: (WORLDS[0], WORLDS[3]),  # on a Gaussian base, and on a bimodal one
        "SCHEDULES": {"rectified flow": RectifiedFlow()},
    },
    "integrated_variance": {
        "PAIRS": 8,
        "PATHS": 4,
        "DRAWS": 20,
        "REPLICATES": 3,
        "ORDER": 2,
        "PATH_STEP": 1.0,
        "GRID_STEP": 2.0,
        "POINTS": 24,
        "IDENTITY_DRAWS": 50,
        "CURVE": 2,
        "PROBLEMS": integrated_variance.PROBLEMS[:2] + integrated_variance.PROBLEMS[-2:-1],
    },
}


RUN = sorted(set(STUDIES.entries) - STORED - ELSEWHERE)


def _page(name, folder, monkeypatch):
    for key, value in SHRUNK[name].items():
        monkeypatch.setattr(f"tiltbench.studies.{name}.study.{key}", value)
    return conduct(STUDIES.load(name), folder, "cpu").read_text()


@pytest.mark.parametrize("name", RUN)
def test_every_study_runs(name, tmp_path, monkeypatch):
    """All its pictures are made, and the first of them is drawn: drawing is what costs."""
    draw = style.save
    first = tmp_path / f"{name}.png"
    monkeypatch.setattr(style, "save", lambda figure, path: path == first and draw(figure, path))
    assert _page(name, tmp_path, monkeypatch).count("\n|") > 3
    assert first.stat().st_size > 2_000


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_every_study_draws_its_pictures(name, tmp_path, monkeypatch):
    _page(name, tmp_path, monkeypatch)
    assert all(path.stat().st_size > 2_000 for path in tmp_path.glob("*.png"))


def _store(rows, study, monkeypatch):
    """Scores of an oracle suite, in the place of those that a study would read."""
    monkeypatch.setattr(study, "oracle_scores", lambda: DataFrame(rows))


def test_the_oracle_judges_from_stored_scores(tmp_path, monkeypatch):
    rows = []
    for method, shift in {"good": 0.0, "off": 0.2, "a_unweighted": 0.5}.items():
        for seed in range(3):
            head = {"target": "tilt_linear", "budget": 1000, "sampler": method, "seed": seed}
            bar = {"metric": "log_Z_bar_err", "value": shift + 0.01 * seed, "se": 0.01}
            ed = {"metric": "energy_distance", "value": shift, "floor_mean": 0.0, "floor_sd": 0.01}
            rows += [{**head, **bar}, {**head, **ed}]
    bar = {"metric": "log_Z_bar_err", "value": 0.0, "se": math.inf}
    ed = {"metric": "energy_distance", "value": 0.0, "floor_mean": 0.0, "floor_sd": 0.01}
    for seed in range(3):  # an infinite error covers everything and proves nothing
        head = {"target": "tilt_linear", "budget": 1000, "sampler": "lost", "seed": seed}
        rows += [{**head, **bar}, {**head, **ed}]
    rows.append({**head, **ed, "target": "gmm9", "sampler": "elsewhere"})
    with monkeypatch.context() as patched:
        _store(rows, oracle, patched)
        answer = oracle.run(tmp_path, "cpu")
    verdict = answer.table.set_index("method")
    assert verdict.loc["good", ["log Z", "floor"]].tolist() == ["yes", "yes"]
    assert verdict.loc["off", ["log Z", "floor"]].tolist() == ["no", "no"]
    assert verdict.loc["lost", "log Z"] == "no"
    assert "1 of 3 methods" in answer.words and "`off`, `lost`" in answer.words
    assert "Not defined on this base: `elsewhere`" in answer.words
    assert np.isnan(verdict.loc["good", "control_err"])
    monkeypatch.setattr(_stored, "ROOTS", (tmp_path / "nowhere",))
    with pytest.raises(FileNotFoundError, match="run the suite first"):
        oracle.run(tmp_path, "cpu")


def _method(target, method, learned=True, cpu=100.0, **scores):
    """A method's scores on two seeds, alike unless a list has one for each; a pair is a value with
    its floor, of sd 0.1."""
    rows = []
    for metric, given in scores.items():
        value, floor = given if isinstance(given, tuple) else (given, math.nan)
        one = {"metric": metric, "floor_mean": floor, "floor_sd": 0.1, "se": 0.02}
        values = value if isinstance(value, list) else [value, value]
        rows += [{**one, "seed": seed, "value": v} for seed, v in enumerate(values)]
    return physics.MethodOnTarget(target, method, learned, 1000, cpu, DataFrame(rows))


@pytest.mark.parametrize("well", [(0.15, "supported"), (0.21, "refuted"), (0.19, "refuted")])
def test_physics_judges_what_was_wanted(monkeypatch, tmp_path, well):
    """0.19 is below 0.20, but not below twice a floor of 0.09."""
    value, expected = well
    floor = 0.09 if value == 0.19 else 0.12
    sets = {
        "physics_dw4": [
            _method("dw4", "long", energy_w2=(value, floor), config_w2=(0.2, 0.2), ess_model=0.5)
        ],
        "physics": [
            _method("lj13", "net", energy_w2=5.0, energy_w2_weighted=1.5),
            # lucky on the seed that chooses, and judged by the other
            _method("lj13", "lucky", energy_w2=[1.0, 9.0]),
            _method("lj13", "unlucky", energy_w2=[9.0, 1.0]),
            _method("lj13", "pt", learned=False, energy_w2=0.5),
            *(_method(at, "net", log_Z_bar_err=-0.05, energy_w2=1.0) for at in physics.PHASES),
            _method(physics.PHASES[0], "pt", learned=False, log_Z_own_err=0.02),
            _method(physics.PHASES[1], "pt", learned=False, log_Z_own_err=[0.01, 0.3]),
            _method(physics.PHASES[1], "smc", learned=False, log_Z_own_err=[0.2, 0.01]),
            _method(
                physics.BROKEN,
                "one",
                log_Z_err=-0.69,
                mode_tv=(0.5, 0.0),
                magnetisation_err=(1.0, 0.0),
                two_point_err=(0.1, 0.0),
            ),
            _method(physics.BROKEN, "both", log_Z_err=0.01, mode_tv=(0.0, 0.0)),
        ],
    }
    monkeypatch.setattr(physics, "folder_of", lambda suite: suite)
    monkeypatch.setattr(physics, "_methods", lambda suite: iter(sets[suite]))
    answer = physics.run(tmp_path, "cpu")
    verdicts = [str(claim.verdict) for claim in answer.claims]
    assert verdicts == [expected, "refuted", "supported", "refuted", "supported", "supported"]
    assert "on the others as drawn 9 (`lucky`" in answer.claims[1].measured
    assert "1 of 2 methods" in answer.claims[4].measured
    assert "`two_point_err` 0 of 1" in answer.claims[5].measured
    assert "dw4" in answer.table["target"].tolist()


@pytest.mark.parametrize("sign, expected", [(1, "supported"), (-1, "refuted")])
def test_rank_agreement_of_scores_that_agree(tmp_path, monkeypatch, sign, expected):
    """Eight methods on six targets; errors that rise (fall) with the gradient's variance, at scales
    of their own, with a path functional and a negative control that are not to be mixed in."""
    rows = []
    for target in range(6):
        for i in range(10):
            method = ("log_variance", "a_unweighted")[i - 8] if i > 7 else f"m{i}_matching"
            size = 1000.0 if i > 7 else 1.0 + i
            for metric, value in {
                "grad_cov": size * 10**target,
                "log_Z_bar_err": -(size**sign) * 7**target,  # errors have signs
                "control_err": size**sign,
            }.items():
                head = {"target": f"t{target}", "sampler": method, "seed": 0}
                rows.append({**head, "metric": metric, "value": value})
    _store(rows, rank_agreement, monkeypatch)
    answer = rank_agreement.run(tmp_path, "cpu")
    by = {claim.text.split("predicts a larger ")[1][:9]: claim.verdict for claim in answer.claims}
    assert by == {"|log Z er": expected, "log Z − E": "open", "control e": expected}
    table = rank_agreement.medians(DataFrame(rows))
    part = table[table["family"] == rank_agreement.REGRESSIONS]
    correlation = rank_agreement.pool(part, "grad_cov", "log_Z_bar_err")
    assert (
        correlation.rho == pytest.approx(sign)
        and correlation.p < 0.001
        and correlation.targets == 6
    )
    assert (tmp_path / "rank_agreement.png").stat().st_size > 2_000


def test_shuffles_find_no_agreement_in_noise():
    """p is uniform where there is nothing to find: a mean of 40 values of one half."""
    rng, p = np.random.default_rng(3), []
    for _ in range(40):
        noise = DataFrame(rng.normal(size=(24, 2)), columns=["grad_cov", "control_err"])
        noise["target"] = np.repeat(["a", "b", "c"], 8)
        p.append(rank_agreement.pool(noise, "grad_cov", "control_err").p)
    assert abs(np.mean(p) - 0.5) < 4 * math.sqrt(1 / 12 / 40)
