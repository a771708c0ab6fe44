"""Families of methods: the paired test, who stands for whom, and the page."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import permutation_test

from tiltbench.plan.spec import build_sampler, spec
from tiltbench.plan.toml import load_suite
from tiltbench.report.frame import collect
from tiltbench.studies.common.stored import folder_of
from tiltbench.studies.families import stands as families
from tiltbench.studies.families import study
from tiltbench.studies.families.conclusions import conclusions
from tiltbench.studies.families.paired import paired
from tiltbench.studies.families.stands import (
    Stand,
    capped,
    family_of,
    paired_tests,
    read,
    standing_for,
)
from tiltbench.study import conduct


@pytest.mark.parametrize("n", [1, 5, 9])
def test_the_sign_flip_test_is_the_exact_one(n):
    gaps = np.random.default_rng(n).normal(0.5, 1, n)
    pair = paired(gaps)
    flips = np.array([np.dot(signs, gaps) for signs in product((1, -1), repeat=n)])
    assert pair.p == pytest.approx((np.abs(flips) >= abs(gaps.sum()) - 1e-12).mean())
    if n > 1:
        other = permutation_test(
            (gaps,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        )
        assert pair.p == pytest.approx(other.pvalue)
        assert pair.se == pytest.approx(gaps.std(ddof=1) / math.sqrt(n))
    assert (pair.mean, pair.targets) == (pytest.approx(gaps.mean()), n)
    assert (pair.ahead, pair.behind) == ((gaps < 0).sum(), (gaps > 0).sum())


def test_the_sign_flip_test_has_its_level():
    """Under symmetry about 0 p < .1 comes about one time in ten: 2^8 signs can say so exactly."""
    rng = np.random.default_rng(0)
    share = np.mean([paired(rng.normal(0, 1, 8)).p < 0.1 for _ in range(2_000)])
    assert abs(share - 25 / 256) < 4 * math.sqrt(0.1 * 0.9 / 2_000)


def test_every_method_of_the_suite_has_a_family():
    families_by_label = {
        c.label: family_of(spec(build_sampler(c.spec))) for c in load_suite("standard").samplers
    }
    assert None not in families_by_label.values() and set(families_by_label.values()) == set(
        families.FAMILIES
    )
    annealed = {m for m, family in families_by_label.items() if family == "learned annealed chains"}
    assert annealed == {"cmcd_lv", "scld"}


def _stand(target, method, off, family="values"):
    return Stand(target, method, family, {"calls": (off,), "compute": (off,)})


def test_nobody_is_chosen_where_it_is_judged():
    """Of two methods each is lucky on one target: what stands there is the other."""
    stands = [_stand(t, m, float(t != m)) for t in "ab" for m in "ab"]
    stands += [_stand(t, "smc", 0.5, "classical") for t in "ab"]
    for target in "ab":
        assert standing_for(stands, target, "values", "calls").method != target
    tests = {(t.a, t.b): t for t in paired_tests(stands, "calls")}
    pair = tests["values", "classical"].pair
    assert (pair.mean, pair.ahead, pair.targets) == (0.5, 0, 2)
    unknown = tests["values", "learned annealed chains"]
    assert str(unknown) == "–" and math.isnan(unknown.pair.p)


def test_what_is_not_known_is_no_failure():
    """A method without a curve has no score at equal compute: it stands for nobody there, and does
    not count as the worst that can be."""
    curve, none = _stand("a", "log_variance", 3.0), _stand("a", "pis", 1.0)
    none.off["compute"] = (math.nan, math.nan)
    none.off["calls"] = (1.0, math.nan)
    assert standing_for([curve, none], "a", "values", "compute") is curve
    assert standing_for([none], "a", "values", "compute") is None
    assert none.mean("calls") == 1.0 and math.isnan(none.mean("compute"))
    assert math.isnan(capped(math.nan)) and capped(math.inf) == families.MOST


def test_families_differ_significantly_on_enough_targets():
    """2 / 2^n is the least p of n targets, and ten pairs ask for a tenth of 5 %: nine will do."""
    for n, significant in ((8, False), (9, True)):
        stands = [_stand(f"t{i}", "tilt_matching", 1.0 + i) for i in range(n)]
        for family in set(families.FAMILIES) - {"values"}:
            stands += [_stand(f"t{i}", family, 9.0 + 2 * i, family) for i in range(n)]
        tests = [t for t in paired_tests(stands, "calls") if "values" in (t.a, t.b)]
        assert [t.nearer for t in tests] == ["values" if significant else None] * 4


def test_conclusions_are_computed():
    stands = [_stand(f"t{i}", "smc", 0.0, "classical") for i in range(9)]
    stands += [_stand(f"t{i}", "pis", 2.0 * (i > 0), "path weights") for i in range(9)]
    stands += [_stand(f"t{i}", "tilt_matching", 4.0 + i, "values") for i in range(9)]
    stands += [_stand("t0", "adjoint_sampling", 0.0, "gradients")]  # there on one target only
    text = conclusions(stands, paired_tests(stands, "compute"))
    first, second, third = text.splitlines()
    assert "over 9 targets (1 seed)" in first and "`smc` is 1.0 times" in first
    assert "`pis`, the best of 2 learned methods there, 3.4 times" in first  # 2^(16/9)
    assert "draws than values (`tilt_matching`): path weights by a factor of 74.7 (p" in second
    assert "no other two differ significantly" in second and "classical" not in second
    assert (
        "On 1 of 9 targets (t0) some learned method is as good as exact draws" in third
        and "1 seed" in third
    )
    alone = conclusions([s for s in stands if s.family == "classical"], [])
    assert alone.splitlines()[0].endswith("no two differ significantly.") and "On 0 of 9" in alone


def test_pairs_without_a_record_are_left_out():
    frames = collect(folder_of("quick"))
    planned = {(t.label, s.label) for t, s in load_suite("quick").pairs}
    whole, unready = read(frames, planned)
    assert unready == 0 and {len(stand.off["calls"]) for stand in whole} == {3}
    runs = frames.runs
    gone = (runs["sampler"] == "smc") & (runs["target"] == "gmm9") & (runs["seed"] == 1)
    part, unready = read(frames._replace(runs=runs[~gone]), planned)
    seeds = {(s.target, s.method): len(s.off["calls"]) for s in part}
    assert unready == 1 and seeds["gmm9", "log_variance"] == 2
    assert seeds["many_well_mdelta", "log_variance"] == 3
    # a method that has no record of any seed is missed as well
    nowhere = (runs["sampler"] == "smc") & (runs["target"] == "gmm9")
    part, unready = read(frames._replace(runs=runs[~nowhere]), planned)
    assert unready == 3 and "gmm9" not in {stand.target for stand in part}


def test_the_page_of_stored_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "SUITE", "quick")
    text = conduct(study.families, tmp_path, "cpu").read_text()
    assert "3 targets, up to 3 seeds" in text and "`cmcd_lv`" in text
    assert "*learned annealed chains*: `cmcd_lv`" in text and "untrained" not in text
    assert (tmp_path / "families.png").stat().st_size > 2_000
    frames = collect(folder_of("quick"))
    monkeypatch.setattr(study, "frames_of", lambda _: frames._replace(runs=frames.runs.iloc[:0]))
    with pytest.raises(FileNotFoundError, match="no seed of quick is complete"):
        study.run(tmp_path, "cpu")
