"""References: what exact targets must pass, what must be refused, and what is stored."""

import json
import math
import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import norm, ttest_ind, ttest_rel

from tiltbench.cli.main import main
from tiltbench.plan.spec import build_target, parse
from tiltbench.reference import certify as reference
from tiltbench.reference import evidence
from tiltbench.reference import tests as judge
from tiltbench.reference.certify import conduct, examine
from tiltbench.reference.evidence import NOTHING, Effort, gather
from tiltbench.reference.resume import DiskKeeper
from tiltbench.rhat import rank_rhat
from tiltbench.samplers.sampler import Unsupported
from tiltbench.samplers.weights import Estimate
from tiltbench.targets.densities.aldp import Aldp
from tiltbench.targets.densities.gaussian import Gaussian
from tiltbench.targets.densities.ising_hs import IsingHS
from tiltbench.targets.densities.many_well import ManyWell
from tiltbench.targets.densities.phi4 import Phi4
from tiltbench.targets.densities.phi4_chain import Phi4Chain
from tiltbench.targets.reference import Basins, Referenced
from tiltbench.targets.target import DATA, Density, Modes, Observable, Truth
from tiltbench.targets.truths import stored


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def iid(chains: int, n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((chains, n), generator=seeded(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Springs(Referenced):
    """exp(-|x|^2 / 2) of three particles in the plane: Z = (2 pi)^2 without the centre of mass."""

    name: ClassVar[str] = "springs"
    dim: ClassVar[int] = 6
    particles = (3, 2)
    scale: float = 1.2
    share: float = 0.5  # of the first basin

    def log_rho(self, x):
        return -self.project(x).square().sum(-1) / 2

    def statistics(self):
        return {"square": lambda x: self.project(x).square().sum(-1)}

    def basins(self):
        first = self.share
        return Basins(2, lambda x: (x[..., 0] > x[..., 2]).long(), (first, 1 - first))


@dataclass(frozen=True)
class Far(Density):
    """Two Gaussians at -+5 in two dimensions, sd 0.3, weights 3/4 and 1/4."""

    name: ClassVar[str] = "far"
    dim: ClassVar[int] = 2
    scale: float = 5.0

    def log_rho(self, x):
        left, right = (-(x - m).square().sum(-1) / 0.2 for m in (-5.0, 5.0))
        return torch.logaddexp(left + math.log(3), right) - math.log(4 * 2 * math.pi * 0.1)

    def truth(self):
        weight = torch.tensor([0.75, 0.25], dtype=torch.float64)
        return Truth("closed form", 0.0, modes=Modes(weight, lambda x: (x[:, 0] > 0).long()))


class _Skewed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return -x.square().sum(-1) / 2

    @staticmethod
    def backward(ctx, grad):
        return -1.15 * grad[..., None] * ctx.saved_tensors[0]


@dataclass(frozen=True)
class WrongGradient(Density):
    name: ClassVar[str] = "wrong_gradient"
    dim: ClassVar[int] = 2

    def log_rho(self, x):
        return _Skewed.apply(x) if x.requires_grad else -x.square().sum(-1) / 2

    def truth(self):
        return Truth("unknown")


@dataclass(frozen=True)
class WrongTruth(Density):
    """A Gaussian that says its log Z is 0.2 too large and E |x|^2 is 5 % too large."""

    name: ClassVar[str] = "wrong_truth"
    dim: ClassVar[int] = 2
    log_Z: float = math.log(2 * math.pi) + 0.2
    square: float = 2.0

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def truth(self):
        square = Observable(lambda x: x.square().sum(-1), self.square, 2.0)
        return Truth("closed form", self.log_Z, observables={"square": square})


@pytest.fixture(scope="module", autouse=True)
def short_moves():
    """What these laws need; 8 leaps cost four times as much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "TEMPERING", replace(evidence.TEMPERING, leaps=2))
        yield


def failed(tests) -> str:
    return " | ".join(test.sentence for test in tests if not test.passed)


# --- the formulas -----------------------------------------------------------------------------


def test_r_hat_of_independent_draws_is_one():
    found = [rank_rhat(iid(8, 1_000, seed)) for seed in range(5)]
    assert max(abs(r - 1) for r in found) < 0.006
    # E B/W = 1 and sd sqrt(2/15): R^2 = 1 + (B/W - 1)/N with N = 500
    short = torch.tensor([rank_rhat(iid(8, 40, seed)) ** 2 for seed in range(40)])
    assert 0.99 < short.mean() < 1.04


def test_r_hat_of_normal_chains_with_shifts():
    """(2/3) of two chains a at +-m: the scores' R-hat is near that of the normals themselves."""
    shift = torch.tensor([-1.0, -1.0, 1.0, 1.0]).repeat(5)[:, None]
    for size in (0.1, 0.3):
        found = rank_rhat(iid(20, 2_000) + size * shift)
        assert found == pytest.approx(math.sqrt(1 + size**2 * 20 / 19), abs=0.006)
    assert rank_rhat(iid(4, 400) + torch.tensor([[0.0], [0.0], [0.0], [1.5]])) > 1.1


def test_r_hat_sees_scales_trends_and_heavy_tails():
    x = iid(8, 1_000)
    wide = x * torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 3])[:, None]
    assert rank_rhat(wide) > 1.05, "the folded half sees scales"
    assert rank_rhat(x + torch.linspace(-1, 1, 1_000)) > 1.1, "a trend that all chains share"
    assert rank_rhat(x.sinh().exp()) == pytest.approx(rank_rhat(x), abs=0.01), "ranks"


def test_r_hat_of_chains_that_do_not_move():
    each = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(4)[:, None].expand(16, 100)
    assert rank_rhat(each) == math.inf
    assert math.isnan(rank_rhat(torch.ones(8, 50)))
    stuck = judge.mixing({"left": each})
    assert not stuck.passed and "inf" in stuck.sentence
    never = judge.mixing({"basin_2": torch.zeros(8, 50)})
    assert not never.passed and "never visited" in never.sentence


def test_halves_see_a_drift_and_a_start():
    x = iid(32, 200)
    assert judge.halves({"a": x}).passed
    assert "a in time" in judge.halves({"a": x + torch.linspace(0, 0.3, 200)}).sentence
    late = judge.halves({"a": x + 0.3 * (torch.arange(32) < 16)[:, None]})
    assert not late.passed and "a by start" in late.sentence
    z = torch.tensor([judge.z_in_time(iid(32, 20, k)) for k in range(200)])
    y = torch.tensor([judge.z_of_starts(iid(32, 20, k)) for k in range(200)])
    for values in (z, y):
        assert values.mean().abs() * math.sqrt(200) < 4
        assert 0.85 < values.std() < 1.25


def test_few_chains_are_compared_by_student_and_by_welch():
    """Tails of the tests in scipy on the means of chains, as normal scores."""
    x = iid(9, 20, 1) + torch.linspace(0, 2, 9)[:, None] ** 2  # halves of unlike spread
    first, last = x[:, :10].mean(1), x[:, 10:].mean(1)
    pairs = {
        judge.z_in_time(x): ttest_rel(first, last).pvalue,
        judge.z_of_starts(x): ttest_ind(x[:4].mean(1), x[4:].mean(1), equal_var=False).pvalue,
    }
    for z, p in pairs.items():
        assert 2 * norm.sf(abs(z)) == pytest.approx(p, rel=1e-6)


def test_bound_grows_with_the_number_of_comparisons():
    assert judge.bound(1) == pytest.approx(3.0)
    assert judge.bound(20) == pytest.approx(3.817, abs=2e-3)  # 0.0027 / 20, two-sided


def test_two_log_Z_must_be_precise_and_agree():
    near, far = Estimate(1.0, 0.02, 9), Estimate(1.1, 0.02, 9)
    assert judge.two_ways(near, near).passed
    assert "must agree" in judge.two_ways(near, far).sentence
    assert not judge.two_ways(near, far).passed
    vague = judge.two_ways(near, Estimate(1.1, 0.06, 9))
    assert not vague.passed and "below 0.05" in vague.sentence
    assert not judge.two_ways(near, Estimate(math.nan, math.nan, 9)).passed
    value, se = judge.combined(Estimate(1.0, 0.03, 9), Estimate(1.4, 0.01, 9))
    assert value == pytest.approx(1.36) and se == pytest.approx(0.03 / math.sqrt(10))
    exact = Estimate(1.0, 0.0, 9)  # a constant reward: no two estimates differ but by rounding
    assert judge.two_ways(exact, exact._replace(value=1.0 + 1e-14)).passed
    assert judge.combined(exact, exact)[0] == pytest.approx(1.0)


# --- the machinery ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "points"),
    [
        (Gaussian(), 20_000),
        # phi4_chain has two modes as well
        pytest.param(ManyWell(dim=2), 130_000, marks=pytest.mark.slow),
        (Phi4Chain(side=4), 60_000),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_exact_targets_pass(target, points):
    tests = examine(target, gather(target, Effort(points, 16), 0))
    assert not failed(tests)
    assert "known truth is met" in tests[-1].sentence
    assert {"log_Z_tempering", "log_Z_smc"} < set(tests[-1].figures)


@pytest.fixture(scope="module")
def plane():
    """Of WrongTruth, whatever it says."""
    return gather(WrongTruth(), Effort(40_000, 32), 0)


@pytest.fixture(scope="module")
def springs():
    return gather(Springs(), Effort(30_000, 32), 0)


def test_particles_are_referred_to_the_subspace(springs):
    assert springs.x.unflatten(-1, (3, 2)).mean(-2).abs().max() < 1e-9
    tests = examine(Springs(), springs)
    assert not failed(tests)
    assert tests[1].figures["rank"] == 4
    for found in (springs.tempering, springs.smc):
        assert abs(found.value - 2 * math.log(2 * math.pi)) < 4 * found.se
        assert found.se < 0.03
    assert "4-dimensional subspace" in springs.notes["gauge"]


def test_starts_are_dispersed():
    target = Springs()
    problem = evidence.pose(target, evidence.TEMPERING.reference)
    widths = []

    def watch(x):
        widths.append(x.detach().square().mean(-1).sqrt())
        return problem.reward(x)

    spied = evidence.Problem(problem.dim, problem.base, watch)
    state = evidence.tempered(spied, Effort(20_000, 32), 4, seeded(0), NOTHING)
    start = next(w for w in widths if len(w) == 32 * state.levels).unflatten(0, (32, -1)).mean(1)
    ratio = start[-8:].mean() / start[:8].mean()
    assert 2 < ratio < 4.5  # of 4 ^ (6/7), the mean of two widths at either end


def test_a_wrong_gradient_is_refused():
    """The Metropolis test keeps the law; partial integration does not forgive."""
    tests = examine(WrongGradient(), gather(WrongGradient(), Effort(25_000, 32), 0))
    assert "E[x . grad log rho]" in failed(tests)
    assert "log Z is" not in failed(tests) and "R-hat" not in failed(tests)


@pytest.mark.parametrize(
    ("target", "said"),
    [(WrongTruth(), "log_Z_tempering"), (WrongTruth(math.log(2 * math.pi), 2.1), "square")],
    ids=["log Z", "moment"],
)
def test_a_wrong_truth_is_refused(target, said, plane):
    tests = examine(target, plane)
    assert "known truth is missed" in failed(tests) and said in failed(tests)


@pytest.mark.parametrize(
    ("log_Z", "said"),
    [
        (math.log(2 * math.pi), "agrees with the truth it has, closed form, and needs no other"),
        (None, "closed form (which has no log Z: those of the chains stand alone), and needs no"),
    ],
    ids=["log Z", "none"],
)
def test_a_target_that_has_a_truth_keeps_it(log_Z, said, plane, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "gather", lambda *_: plane)
    lines, target = [], WrongTruth(log_Z)
    assert conduct(target, Effort(1), 0, tmp_path, tmp_path / "store", "", lines.append).passed
    assert said in lines[-1] and not (tmp_path / "store").exists()


def test_shares_that_a_symmetry_decides_are_tried(springs):
    assert "known truth is met" in examine(Springs(), springs)[-1].sentence
    assert "known truth is missed" in failed(examine(Springs(share=0.6), springs))


def test_points_that_pay_for_too_few_ladders_are_refused():
    with pytest.raises(Unsupported, match="3000 points pay for . ladders .* more points"):
        gather(Far(), Effort(3_000, 16), 0)


def test_chains_that_lose_a_mode_are_refused():
    tests = examine(Far(), gather(Far(), Effort(16_000, 8), 0))
    assert "R-hat" in failed(tests) and "basin_0" in failed(tests)


def test_log_Z_that_disagree_are_refused_and_kept_out_of_the_package(
    tmp_path, monkeypatch, springs
):
    wrong = springs.smc._replace(value=springs.smc.value + 0.2)
    monkeypatch.setattr(reference, "gather", lambda *_: springs._replace(smc=wrong))
    out, store, said = tmp_path / "out", tmp_path / "store", []
    certificate = conduct(Springs(), Effort(1), 0, out, store, "command", said.append)
    assert not certificate.passed and not store.exists()
    assert "NOT certified" in said[-1] and any("must agree within 3 errors" in s for s in said)
    about = json.loads((out / "springs_reference.json").read_text())
    assert about["certified"] is False and [t["passed"] for t in about["tests"]].count(False) == 1


def test_what_is_stored_is_what_the_target_reads(tmp_path, monkeypatch, springs):
    monkeypatch.setattr(reference, "gather", lambda *_: springs)
    monkeypatch.setattr(Springs, "home", tmp_path)
    assert conduct(Springs(), Effort(7), 0, tmp_path / "out", tmp_path, "the command").passed
    truth = Springs().truth()
    about = json.loads((tmp_path / "springs_reference.json").read_text())
    assert truth.source.startswith("parallel tempering, 32 ladders")
    assert truth.log_Z == about["log_Z"] and 0 < truth.log_Z_se < 0.05
    assert truth.observables["square"].mean == pytest.approx(4, abs=0.3)
    assert truth.observables["square"].sd == pytest.approx(math.sqrt(8), rel=0.1)
    assert truth.modes.weight.tolist() == [0.5, 0.5] != [b["share"] for b in about["basins"]]
    x = truth.sample(100, seeded(0))
    assert x.shape == (100, 6) and Springs().project(x).allclose(x, atol=1e-6)
    assert about["command"] == "the command" and about["effort"]["points"] == 7
    assert about["count"] == len(np.load(tmp_path / "springs_reference.npz")["x"])


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda about: about[:200], "damaged"),
        (lambda about: about.replace('"sha256"', '"sum"'), "damaged"),
        (lambda about: re.sub('"sha256": "..', '"sha256": "__', about), "not as they were"),
        (lambda about: re.sub('"log_Z": .', '"log_Z": 9', about), "not as they were"),
        (lambda about: re.sub('"share": 0.', '"share": 0.1', about, count=1), "not as they were"),
        (lambda about: about.replace('"sd": ', '"sd": 1'), "not as they were"),
        (lambda about: about.replace('"certified": true', '"certified": false'), "not as they"),
    ],
)
def test_a_damaged_reference_is_refused_with_a_remedy(tmp_path, monkeypatch, springs, damage, said):
    monkeypatch.setattr(reference, "gather", lambda *_: springs)
    monkeypatch.setattr(Springs, "home", tmp_path)
    assert conduct(Springs(), Effort(7), 0, tmp_path / "out", tmp_path, "the command").passed
    page = tmp_path / "springs_reference.json"
    page.write_text(damage(page.read_text()))
    with pytest.raises(ValueError, match=f"{said}.*restore both files, or delete them"):
        Springs().truth()


def test_a_reference_that_failed_is_refused_where_it_lies(tmp_path, monkeypatch, springs):
    wrong = springs.smc._replace(value=springs.smc.value + 0.2)
    monkeypatch.setattr(reference, "gather", lambda *_: springs._replace(smc=wrong))
    monkeypatch.setattr(Springs, "home", tmp_path)
    assert not conduct(Springs(), Effort(7), 0, tmp_path, None, "the command").passed
    with pytest.raises(ValueError, match="failed its tests"):
        Springs().truth()


def test_a_stored_reference_gives_way_to_no_weaker_one(tmp_path, monkeypatch, springs):
    monkeypatch.setattr(reference, "gather", lambda *_: springs)
    monkeypatch.setattr(Springs, "home", tmp_path)
    assert reference.outdone(Springs(), Effort(1, 4)) == ""
    assert conduct(Springs(), Effort(7, 6), 0, tmp_path / "out", tmp_path, "the command").passed
    for effort in (Effort(6, 6), Effort(7, 5), Effort(9, 5)):
        said = reference.outdone(Springs(), effort)
        assert "took 7 points and 6 ladders" in said and "--out, or delete" in said
    assert reference.outdone(Springs(), Effort(7, 6)) == ""
    monkeypatch.setattr(Springs, "version", 2)  # of a law that is no more
    assert reference.outdone(Springs(), Effort(1, 4)) == ""


def test_equal_seeds_make_equal_files(tmp_path):
    def certified(seed: int, folder: str) -> tuple[bytes, dict]:
        effort = Effort(3_000, 4)
        certificate = conduct(
            Gaussian(), effort, seed, tmp_path / folder, None, "", lambda line: None
        )
        rows, about = (path.read_bytes() for path in certificate.files)
        facts = json.loads(about)
        assert stored.checksum(rows, facts) == facts["sha256"] != stored.checksum(b"", facts)
        return rows, {key: facts[key] for key in ("log_Z", "statistics", "tests", "notes")}

    assert certified(0, "a") == certified(0, "b") != certified(1, "c")


@pytest.mark.parametrize("part", ["tempering", "SMC"])
def test_chains_that_were_stopped_go_on_and_end_as_if_they_had_not_been(tmp_path, part):
    said, seen = [], []

    class Stopped(DiskKeeper):
        def watch(self, name, state, source):
            self.save(name, state, source)
            seen.append(name)
            if seen.count(part) == 9:
                raise KeyboardInterrupt

    def kept(cls, seed=0):
        return cls(tmp_path / "x", {"seed": seed}, said.append, every=0.0)

    effort = Effort(3_000, 4)
    whole = gather(Gaussian(), effort, 0)
    with pytest.raises(KeyboardInterrupt):
        gather(Gaussian(), effort, 0, kept(Stopped))
    other = kept(DiskKeeper, seed=1)
    state = other.begun(part, (1,), seeded(0))
    assert state == (1,) and not said  # of other chains
    again = kept(DiskKeeper)
    found = gather(Gaussian(), effort, 0, again)
    assert f"{part}: goes on where it was stopped" in " ".join(said)
    assert torch.equal(found.x, whole.x) and torch.equal(found.virial, whole.virial)
    assert (found.tempering, found.smc) == (whole.tempering, whole.smc)
    again.done()
    assert not list(tmp_path.iterdir())
    (tmp_path / "x.SMC").write_bytes(b"damaged")
    assert kept(DiskKeeper).begun("SMC", (2,), seeded(0)) == (2,)


def test_chains_may_run_in_other_coordinates_than_the_target():
    target = Aldp(solvent="vacuum")
    certified = target.certified_as
    assert (certified.coordinates, certified.certified_as) == ("internal", certified)
    assert Gaussian().certified_as == Gaussian()


def test_rows_fit_into_four_megabytes():
    x = torch.randn((4, 4_000, 165), generator=seeded(0))
    raw = reference._packed(reference._rows(x, 0))
    assert 2_000_000 < len(raw) < 4_000_000


# --- the command ------------------------------------------------------------------------------


def test_command_refuses_too_little_with_code_one(tmp_path, capsys):
    words = ["reference", "ising_hs", "--set", "ising_hs.side=3", "--points", "3e4", "--seed", "5"]
    code = main([*words, "--out", str(tmp_path), "--ladders", "4", "--jobs", "1"])
    output = capsys.readouterr().out
    assert code == 1 and "NOT certified" in output and "BAD" in output
    about = json.loads((tmp_path / "ising_hs_reference.json").read_text())
    assert about["target"]["params"]["side"] == 3 and about["effort"]["ladders"] == 4
    assert about["command"].startswith("tiltbench reference ising_hs --set") and about["seed"] == 5
    assert {"energy", "magnetisation"} < set(about["statistics"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tilt_linear"], "is no density"),
        (["gaussian", "--set", "gmm9.dim=3"], "a target that is named"),
        (["gaussian", "--points", "none"], "not a whole number"),
        (["phi4", "--set", "phi4.side=4"], "--out"),
        (["gaussian", "--ladders", "3"], "write 4 or more"),
        (["dw4", "--points", "1e6"], "ask for as many, name another folder with --out, or delete"),
        (["gausian"], "did you mean"),
    ],
)
def test_wrong_words(words, said, capsys):
    assert main(["reference", *words]) == 2
    assert said in capsys.readouterr().err


BOWL = """
from dataclasses import dataclass
from tiltbench.targets.reference import Referenced

@dataclass(frozen=True)
class Bowl(Referenced):
    name = "bowl"
    dim = 1

    def log_rho(self, x):
        return -x.square().sum(-1) / 2

    def statistics(self):
        return {"square": lambda x: x.square().sum(-1)}
"""


def _conduct_here(targets, efforts, stores, seed, out, command, jobs):
    """`conduct_all` in this process: starting others takes seconds."""
    rows = zip(targets, efforts, stores, strict=True)
    return [conduct(build_target(t), e, seed, out, store, command) for t, e, store in rows]


def test_the_reference_of_a_file_lies_beside_it(tmp_path, monkeypatch, capsys):
    """Stored, read, not overwritten, and asked before a run whether it holds enough."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bowl.py").write_text(BOWL)
    assert "no reference" in build_target(parse("mine/bowl.py")).truth().source
    monkeypatch.setattr(reference, "conduct_all", _conduct_here)
    words = ["reference", "mine/bowl.py", "--ladders", "16", "--seed", "1", "--points"]
    assert main([*words, "2e4"]) == 0
    files = sorted(path.name for path in (tmp_path / "mine").glob("bowl_*"))
    assert files == ["bowl_reference.json", "bowl_reference.npz"]
    truth = build_target(parse("mine/bowl.py")).truth()
    assert truth.log_Z == pytest.approx(math.log(2 * math.pi) / 2, abs=1e-6)
    assert main([*words, "1e4"]) == 2
    assert "took 20000 points" in capsys.readouterr().err
    count = json.loads((tmp_path / "mine" / "bowl_reference.json").read_text())["count"]
    run = ["run", "--targets", "mine/bowl.py", "--samplers", "mala", "--dry-run", "--draws"]
    assert main([*run, str(count)]) == 0
    assert main([*run, str(count + 1)]) == 2
    assert f"holds {count} draws, not {count + 1}: ask for no" in capsys.readouterr().err


def test_a_target_of_the_package_has_its_reference_there():
    assert Phi4().home == DATA and Phi4().stored() is not None
    assert Phi4().truth().modes.weight.tolist() == [0.5, 0.5]  # phi -> -phi
    assert Phi4(side=4).truth().source.startswith("unknown: the reference is of phi4(side=8")


@pytest.mark.slow
def test_ising_chains_meet_the_exact_free_energy():
    target = IsingHS(side=4)
    tests = examine(target, gather(target, Effort(6_000_000, 16), 0))
    assert not failed(tests)
    assert {"energy", "magnetisation"} < set(tests[-1].figures)
