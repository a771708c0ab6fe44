"""Specs: text and JSON forms of targets, samplers and parts; suites made of them."""

import dataclasses
import itertools
import json
import math
import re
import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tools.registered import by_default
from tiltbench.plan import toml
from tiltbench.plan.budget import UNLIMITED
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_sampler, build_target, label, parse, shorten, spec
from tiltbench.plan.text import items
from tiltbench.plan.toml import Choice, load_suite, suite_names
from tiltbench.samplers.registry import NETWORKS, SAMPLERS
from tiltbench.targets.cost import Cost
from tiltbench.targets.registry import REFERENCES, UnknownName

BUILD = {"target": build_target, "sampler": build_sampler}
NAMES = [("target", n) for n in by_default()] + [("sampler", n) for n in SAMPLERS.entries]


def built(kind, text):
    return BUILD[kind](parse(text))


@pytest.mark.parametrize("kind, name", NAMES)
def test_round_trip_of_defaults(kind, name):
    build = BUILD[kind]
    thing = built(kind, name)
    full = spec(thing)
    assert build(full) == thing
    assert build(json.loads(json.dumps(full))) == thing
    assert spec(build(full)) == full
    assert build(parse(label(thing))) == thing


@pytest.mark.parametrize("kind, name", NAMES)
def test_round_trip_when_a_number_is_changed(kind, name):
    """label -> parse -> build gives the thing back, whichever numeric field differs."""
    build = BUILD[kind]
    for field in dataclasses.fields(built(kind, name)):
        value = getattr(built(kind, name), field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        try:
            changed = dataclasses.replace(built(kind, name), **{field.name: value + 2})
        except ValueError:
            continue  # outside what the field allows
        assert spec(changed)["params"][field.name] == value + 2
        assert build(spec(changed)) == changed
        assert build(parse(label(changed))) == changed


@pytest.mark.parametrize("part", [*REFERENCES.entries, *NETWORKS.entries])
def test_parts_inside_samplers(part):
    """Every part fits where a part of its kind is the default, by text and by spec."""
    registry, key = (REFERENCES, "reference") if part in REFERENCES.entries else (NETWORKS, "model")
    default = registry.load(part)()
    numbers = [
        f.name
        for f in dataclasses.fields(default)
        if type(getattr(default, f.name)) in (int, float)
    ]
    more = {name: getattr(default, name) + 1 for name in numbers[:1]}  # Adapter has none
    changed = dataclasses.replace(default, **more)
    for name in SAMPLERS.entries:
        plain = built("sampler", name)
        if key not in {f.name for f in dataclasses.fields(plain)}:
            continue
        if getattr(default, "flows", False) and plain.loss.needs != "flow":
            continue  # which is refused
        for value in (default, changed):
            want = dataclasses.replace(plain, **{key: value})
            text = label(want)
            assert build_sampler(parse(text)) == want, text
            assert build_sampler(spec(want)) == want


literals = st.one_of(
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.text("aZ1_-. ,=[]'éλ", max_size=6),
    st.sampled_from(["true", "None", "nan", "1e3", "a/b.py:c", "Brownian"]),
)
literals = st.one_of(literals, st.lists(literals, max_size=3))


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), literals, max_size=4))
def test_text_of_literals_is_read_back(params):
    full = {"name": "some_thing", "params": params}
    text = shorten(full, {"name": "", "params": {key: object() for key in params}})
    assert parse(text) == full


def test_nested_text():
    assert parse(
        "log_variance[lr=1e-3,reference=Brownian[steps=32, ratio=8],note='a, b',m=[1,[]]]"
    ) == {
        "name": "log_variance",
        "params": {
            "lr": 0.001,
            "reference": {"name": "Brownian", "params": {"steps": 32, "ratio": 8}},
            "note": "a, b",
            "m": [1, []],
        },
    }
    assert parse("x/y.py:mine[n=2]") == {"name": "x/y.py:mine", "params": {"n": 2}}
    assert parse("a[b=-2,c=1_0,d=true,e=None]")["params"] == {
        "b": -2,
        "c": 10,
        "d": True,
        "e": None,
    }


@pytest.mark.parametrize(
    "text",
    ["", "[", "a[", "a[b", "a[b=", "a[b=]", "a[b=1", "a[b=1]]", "a[b=1]c", "a[b==1]", "a b", "a,b"]
    + ["a[b=1,b=2]", "a[=1]", "=", "a[b=1 c=2]", "a['b'=1]", "a[b='x]", "a[b=[1]", "a[b=[1 2]]"],
)
def test_unreadable_text_is_one_sentence(text):
    with pytest.raises(BadSpec) as error:
        parse(text)
    assert "\n" not in str(error.value) and len(str(error.value)) > 20


def first(registry):
    return next(iter(registry.entries))


def test_unknown_names_get_the_nearest_match():
    for kind, name in NAMES:
        if len(name) > 3:
            with pytest.raises(UnknownName, match="did you mean '"):
                built(kind, name + "x")
    with pytest.raises(UnknownName, match=r"no target is called 'qqqq'\. The names are: "):
        built("target", "qqqq")


@pytest.mark.parametrize("kind", BUILD)
def test_unknown_parameters_get_the_nearest_match(kind):
    for name in (name for each, name in NAMES if each == kind):
        fields = [f.name for f in dataclasses.fields(built(kind, name)) if f.name != "loss"]
        for field in [f for f in fields if len(f) > 3][:1]:
            with pytest.raises(BadSpec, match=f"no parameter '{field}x'; did you mean '{field}'"):
                built(kind, f"{name}[{field}x=1]")


@pytest.mark.parametrize(
    "text, said",
    [
        ("log_variance[paths=1.5]", "takes a whole number"),
        ("log_variance[paths=many]", "takes a number"),
        ("log_variance[paths=true]", "takes int"),
        ("log_variance[paths=-1]", "must be positive"),
        ("log_variance[reference=3]", "takes a part such as Brownian"),
        ("log_variance[reference=Browniam]", "cannot be 'Browniam'; the parts are: .*Brownian"),
        ("log_variance[reference=Mlp]", "cannot be 'Mlp'"),
        ("log_variance[reference=Brownian[step=3]]", "did you mean 'steps'"),
        ("log_variance[loss=trajectory_balance]", r"no parameter 'loss'(?!.*mean 'loss')"),
        ("smc[islands=0]", "islands is 0; it must be at least 1"),
        ("smc[particles_per_beta=0]", "particles_per_beta is 0.0; it must be at least 0.1"),
        ("smc[resample=1.5]", "resample is 1.5; it must be from 0 to 1"),
        ("smc[ess=1]", "ess is 1.0; it must be above 0 and below 1"),
        ("ais[warm_up=0]", "warm_up is 0.0; it must be above 0 and below 1"),
        ("ais[islands=-1]", "islands is -1; it must be at least 1"),
        ("hmc[leaps=0]", "leaps is 0; it must be at least 1"),
        ("mala[keep=0]", "keep is 0; it must be at least 1"),
        ("mala[warm_up=1]", "warm_up is 1.0; it must be at least 0 and below 1"),
        ("mala[warm_up=nan]", "warm_up is nan; it must"),
    ],
)
def test_wrong_values_say_what_is_taken(text, said):
    with pytest.raises(BadSpec, match=said):
        built("sampler", text)


def test_integers_are_widened_and_whole_floats_narrowed():
    assert isinstance(built("sampler", "log_variance[lr=1]").lr, float)
    assert built("sampler", "log_variance[paths=1e2]").paths == 100
    assert isinstance(built("sampler", "log_variance[paths=1e2]").paths, int)


# suites


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_are_sound(name):
    suite = load_suite(name)
    cells = suite.cells("cpu")
    assert len({cell.id for cell in cells}) == len(cells) == len(suite.pairs) * len(suite.seeds)
    assert {s.label for _, s in suite.pairs} == {s.label for s in suite.samplers}
    assert suite.description
    json.dumps([cell.spec for cell in cells])


HEAD = "[suite]\ncalls = 1000\ndraws = 100\nseeds = 2\n"
BODY = '[[target]]\nname = "gmm9"\n[[sampler]]\nname = "log_variance[paths=32]"\nlabel = "lv"\n'


def suite_of(tmp_path, text):
    (tmp_path / "mine.toml").write_text(text)
    return load_suite(str(tmp_path / "mine.toml"))


def test_three_ways_to_write_a_part(tmp_path):
    ways = [
        '[sampler.params]\nreference = "Brownian[steps=8]"\n',
        '[sampler.params]\nreference = { name = "Brownian", steps = 8 }\n',
        '[sampler.params.reference]\nname = "Brownian"\nparams = { steps = 8 }\n',
        "[sampler.params]\nreference = { steps = 8 }\n",
    ]
    samplers = [suite_of(tmp_path, HEAD + BODY + way).cells("cpu")[0].sampler for way in ways]
    assert all(s == samplers[0] for s in samplers)
    assert samplers[0]["params"]["reference"]["params"]["steps"] == 8
    assert samplers[0]["params"]["paths"] == 32


@pytest.mark.parametrize(
    "rule, targets, samplers",
    [
        ('target = "gaussian"\nsampler = "lv"', ["gaussian"], ["lv"]),
        ('target = ["gaussian", "gmm9"]\nsampler = ["lv"]', ["gaussian", "gmm9"], ["lv"]),
        ('sampler = ["lv", "am"]', ["gaussian", "gmm9", "funnel"], ["lv", "am"]),
        ('target = ["gmm9"]', ["gmm9"], ["lv", "am", "adjoint_sampling"]),
    ],
)
def test_overrides_hit_their_cells_only(tmp_path, rule, targets, samplers):
    body = BODY + '[[sampler]]\nname = "adjoint_matching"\nlabel = "am"\n'
    body += '[[sampler]]\nname = "adjoint_sampling"\n'
    body += '[[target]]\nname = "gaussian"\n[[target]]\nname = "funnel"\n'
    text = HEAD + body + f"[[override]]\n{rule}\nparams = {{ lr = 0.5 }}\n"
    cells = suite_of(tmp_path, text).cells("cpu")
    hit = {
        (c.labels["target"], c.labels["sampler"]) for c in cells if c.sampler["params"]["lr"] == 0.5
    }
    assert hit == set(itertools.product(targets, samplers))


def test_the_untrained_base_stands_beside_every_allowance_once(tmp_path):
    """What an [[override]] says of all has no hold on it; a suite that names it keeps its own."""
    text = HEAD + BODY + "[[override]]\nparams = { lr = 0.5 }\n"
    suite = suite_of(tmp_path, text)
    more = [c for c in suite.beside_untrained().cells("cpu") if c not in suite.cells("cpu")]
    assert {c.sampler["name"] for c in more} == {"untrained"}
    assert len(more) == len(suite.targets) * len(suite.seeds)
    own = text.replace(
        "[[override]]", '[[sampler]]\nname = "log_variance"\ncalls = 400\n[[override]]'
    )
    both = suite_of(tmp_path, own).beside_untrained()
    cells = [c for c in both.cells("cpu") if c.sampler["name"] == "untrained"]
    assert {c.budget.train.values for c in cells} == {400, 1000}
    assert both.beside_untrained() == both


PAIRS = (
    HEAD
    + '[[target]]\nname = "gmm9"\n[[target]]\nname = "gmm_weighted[dim=4]"\nlabel = "two"\n'
    + '[[target]]\nname = "funnel"\n[[sampler]]\nname = "mala"\n'
    + '[[sampler]]\nname = "hmc"\ntargets = ["two", "funnel"]\n'
    + '[[sampler]]\nname = "smc"\ncalls = 400\ntargets = "gmm_weighted"\n'
)


def pairs(suite):
    return [(c.labels["target"], c.labels["sampler"]) for c in suite.cells("cpu") if c.seed == 0]


def test_a_sampler_kept_to_some_targets(tmp_path):
    """By label or name; a cell is the same as in a suite without `targets`."""
    suite = suite_of(tmp_path, PAIRS)
    kept = [
        ("gmm9", "mala"),
        ("two", "mala"),
        ("two", "hmc"),
        ("two", "smc at 400"),
        ("funnel", "mala"),
        ("funnel", "hmc"),
    ]
    assert pairs(suite) == kept
    whole = suite_of(tmp_path, re.sub("targets = .*\n", "", PAIRS))
    assert len(pairs(whole)) == 9
    assert {c.id for c in suite.cells("cpu")} < {c.id for c in whole.cells("cpu")}
    assert pairs(suite.only(["gmm9", "two"], ["hmc"])) == [("two", "hmc")]
    grid = suite.only(["two"], ["hmc"]).spanned([("two", "dim", [4, 6])])
    assert pairs(grid) == [("two[dim=4]", "hmc"), ("two[dim=6]", "hmc")]
    with pytest.raises(BadSpec, match="no sampler here runs on gmm9: hmc is for two, funnel"):
        suite.only(["gmm9"], ["hmc"]).cells("cpu")


def test_a_label_with_a_comma_is_chosen_as_it_is_written(tmp_path):
    """A list of names is parted at commas; what is no name by itself is put together again."""
    labelled = re.sub('name = "mala"', 'name = "mala"\nlabel = "mala, wide,x"', PAIRS)
    suite = suite_of(tmp_path, labelled)

    def chosen(text):
        return [choice.label for choice in suite.only((), items(text)).samplers]

    assert chosen("mala, wide,x") == chosen("mala,wide, x") == ["mala, wide,x"]
    assert (
        chosen('smc,"mala, wide,x"')
        == chosen("mala, wide,x,smc")
        == [
            "mala, wide,x",
            "smc at 400",
        ]
    )
    assert chosen("mala,smc") == ["mala, wide,x", "smc at 400"]  # names as ever
    with pytest.raises(UnknownName, match="no sampler 'thin'; there are 'mala, wide,x', 'hmc'"):
        chosen("mala, thin")


def test_the_untrained_base_stands_once_on_every_target_of_a_pair(tmp_path):
    """And at an allowance of its own only where a sampler has that allowance."""

    def untrained(suite):
        return [pair for pair in pairs(suite.beside_untrained()) if pair[1].startswith("untr")]

    suite = suite_of(tmp_path, PAIRS)
    plain = [("gmm9", "untrained"), ("two", "untrained"), ("funnel", "untrained")]
    assert sorted(untrained(suite)) == sorted([*plain, ("two", "untrained at 400")])
    assert untrained(suite.only((), ["hmc"])) == plain[1:]


def test_a_sampler_with_a_smaller_budget_of_its_own(tmp_path):
    """Its cells are those of a suite of that budget; the others are what they were."""
    text = HEAD + BODY + '[[sampler]]\nname = "log_variance[paths=32]"\ncalls = 400\n'
    cells = suite_of(tmp_path, text).cells("cpu")
    few = [c for c in cells if c.labels["sampler"] == "log_variance[paths=32] at 400"]
    rest = [c for c in cells if c not in few]
    alone = suite_of(tmp_path, HEAD.replace("1000", "400") + BODY).cells("cpu")
    assert [c.id for c in few] == [c.id for c in alone]
    assert [c.id for c in rest] == [c.id for c in suite_of(tmp_path, HEAD + BODY).cells("cpu")]
    low = dataclasses.replace(suite_of(tmp_path, text), calls=400)  # by --calls
    with pytest.raises(BadSpec, match="calls of its own, 400, which are not below the 400 of gmm9"):
        low.cells("cpu")
    scarce = text + '[[target]]\nname = "gmm40"\ncalls = 400\n'
    with pytest.raises(BadSpec, match="which are not below the 400 of gmm40: raise those"):
        suite_of(tmp_path, scarce).cells("cpu")
    suite_of(tmp_path, text)
    grid = load_suite(str(tmp_path / "mine.toml")).only((), ["lv"]).spanned([("lv", "lr", [0.1])])
    assert len(grid.cells("cpu")) == 2
    own = suite_of(tmp_path, text).spanned([("log_variance", "lr", [0.1])])
    assert [s.calls for s in own.samplers] == [None, 400]


def test_limits_of_a_suite_and_of_its_targets(tmp_path):
    """One is enough; a target's own come before the suite's; what is not limited, not written."""
    text = HEAD.replace("calls = 1000", "flops = 2e9") + BODY
    own = text + '[[target]]\nname = "gmm40"\ncalls = 500\nseconds = 3\n'
    cells = suite_of(tmp_path, own).cells("cpu")
    found = {c.labels["target"]: c.budget for c in cells}
    here, there = found.pop("gmm40"), next(iter(found.values()))
    assert (here.train, here.flops, here.seconds) == (Cost(500, 500), 2e9, 3)
    assert (there.train.calls, there.flops, there.seconds) == (UNLIMITED, 2e9, math.inf)
    assert [here.limits, there.limits] == ["500 calls, 2e+09 flops, 3 s", "2e+09 flops"]
    assert {c.spec["budget"]["flops"] for c in cells} == {2e9}
    more = own + '[[sampler]]\nname = "mala"\ncalls = 500\n'
    with pytest.raises(BadSpec, match="own, 500, which are not below the 500 of gmm40"):
        suite_of(tmp_path, more).cells("cpu")
    assert all(
        "flops" not in c.spec["budget"] for c in suite_of(tmp_path, HEAD + BODY).cells("cpu")
    )
    endless = dataclasses.replace(suite_of(tmp_path, HEAD + BODY), calls=UNLIMITED)  # by --calls
    with pytest.raises(BadSpec, match="nothing limits the training on gmm9: state calls below"):
        endless.cells("cpu")


@pytest.mark.parametrize(
    "text, said",
    [
        ("[suite\n", "not valid TOML"),
        (BODY, r"no \[suite\] table"),
        (HEAD.replace("calls", "callls") + BODY, "no key 'callls'; did you mean 'calls'"),
        (HEAD.replace("calls", "budget") + BODY, "no key 'budget'; it is called 'calls'"),
        (HEAD.replace("calls = 1000\n", "") + BODY, "must state calls, flops or seconds"),
        (HEAD.replace("draws = 100\n", "") + BODY, "must state draws"),
        (HEAD.replace("1000", "0") + BODY, "calls is 0"),
        (HEAD.replace("1000", "'x'") + BODY, "calls is 'x'"),
        (HEAD.replace("1000", f"{UNLIMITED}") + BODY, "it must be a whole number <= 9+$"),
        (HEAD + "flops = 0\n" + BODY, "flops is 0; it must be a number >= 1"),
        (HEAD + "flops = 'x'\n" + BODY, "flops is 'x'; it must be a number"),
        (HEAD + "seconds = -1\n" + BODY, "seconds is -1; it must be a number > 0"),
        (HEAD.replace("seeds = 2", "seeds = [0, 0]") + BODY, "seeds"),
        (HEAD.replace("seeds = 2", "seeds = 'x'") + BODY, "seeds"),
        (HEAD.replace("seeds = 2", "seeds = true") + BODY, "seeds is True; it must be"),
        (HEAD + "time_limit = 'x'\n" + BODY, "time_limit is 'x'; it must be a number"),
        (HEAD + "time_limit = -5\n" + BODY, "time_limit is -5; it must be"),
        (HEAD + "name = 'a/b'\n" + BODY, "name is 'a/b'; it names a folder"),
        (HEAD + "name = '..'\n" + BODY, "name is '..'; it names a folder"),
        (HEAD + '[[target]]\nname = "gmm9"\nparams = 3\n', "params is 3; it must be a table"),
        (HEAD + BODY + '[[override]]\ntarget = "gmm9"\nparams = 3\n', "params is 3; it must"),
        (HEAD + BODY + "[[override]]\ntarget = 3\nparams = { lr = 1 }\n", "target is 3; it must"),
        (
            HEAD + BODY + "[[override]]\nsampler = []\nparams = { lr = 1 }\n",
            "sampler is .*left out",
        ),
        (
            HEAD + BODY + '[[override]]\ntarget = ["gmm9", "gmm8"]\nparams = { lr = 1 }\n',
            "target 'gmm8', not in the suite; did you mean 'gmm9'",
        ),
        (HEAD + BODY + 'targets = ["gmm9", "gmm8"]\n', "target 'gmm8', .* did you mean 'gmm9'"),
        (HEAD + BODY + "targets = []\n", "targets is .* left out for every target"),
        (HEAD + BODY + "targets = 3\n", "targets is 3; it must be text or a list"),
        (HEAD + '[[target]]\nname = "gmm9"\ntargets = "gmm9"\n', "no key 'targets'"),
        (HEAD + BODY + "calls = 2000\n", "calls is 2000; it must be .* below the suite's, 1000"),
        (HEAD + BODY + "calls = 'x'\n", "calls is 'x'; it must be a whole number"),
        (HEAD + BODY + "flops = 9\n", "no key 'flops'"),
        (HEAD + "[[target]]\nname = 'gmm9'\ncalls = 0\n", "calls is 0; it must be a whole number"),
        (HEAD, "names no target"),
        (HEAD + BODY.replace("gmm9", "gmm99"), "did you mean 'gmm9'"),
        (HEAD + BODY.replace("paths", "path"), "did you mean 'paths'"),
        (HEAD + BODY.replace("label", "lable"), "did you mean 'label'"),
        (HEAD + BODY + BODY, "two cells are the same run"),
        (HEAD + BODY + BODY.replace("32", "64"), "two cells are the same run|two different cells"),
        (
            HEAD + BODY + '[[sampler]]\nname = "mala"\nlabel = "lv"\n',
            "two different cells are called",
        ),
        (
            HEAD + BODY + '[[override]]\ntarget = "gmm8"\nparams = { lr = 1 }\n',
            "did you mean 'gmm9'",
        ),
        (HEAD + BODY + '[[override]]\ntarget = "gmm9"\n', "changes nothing"),
        (HEAD + BODY + "[[targets]]\n", "did you mean 'target'"),
    ],
)
def test_wrong_suites_are_refused_before_anything_runs(tmp_path, text, said):
    with pytest.raises((BadSpec, UnknownName), match=said) as error:
        suite_of(tmp_path, text).cells("cpu")
    assert "\n" not in str(error.value)


def test_settings_span_a_grid(tmp_path):
    suite = suite_of(tmp_path, HEAD + BODY)
    grid = suite.spanned([("lv", "lr", [1e-3, 3e-4]), ("lv", "reference.steps", [8])])
    assert [s.label for s in grid.samplers] == [
        "lv[lr=0.001,reference.steps=8]",
        "lv[lr=0.0003,reference.steps=8]",
    ]
    cells = grid.cells("cpu")
    assert {c.sampler["params"]["lr"] for c in cells} == {1e-3, 3e-4}
    assert {c.sampler["params"]["reference"]["params"]["steps"] for c in cells} == {8}
    with pytest.raises(UnknownName, match="did you mean 'lv'"):
        suite.spanned([("lvx", "lr", [1])])


def test_a_cell_is_named_by_everything_that_decides_it(tmp_path):
    suite = suite_of(tmp_path, HEAD + BODY)
    base = suite.cells("cpu")[0]
    others = [
        suite.cells("cuda")[0],
        suite.cells("cpu")[1],
        dataclasses.replace(suite, calls=2000).cells("cpu")[0],
        dataclasses.replace(suite, flops=1e9).cells("cpu")[0],
        dataclasses.replace(suite, seconds=9.0).cells("cpu")[0],
        dataclasses.replace(suite, draws=50).cells("cpu")[0],
        dataclasses.replace(suite, samplers=(Choice.of("log_variance[paths=33]"),)).cells("cpu")[0],
        dataclasses.replace(base, target_version=99),
    ]
    assert len({cell.id for cell in [base, *others]}) == 1 + len(others)
    rounded = suite.cells("cuda", tf32=True)[0]
    assert rounded.id not in {cell.id for cell in [base, *others]}
    assert rounded.title == others[0].title.replace(" · seed", ", TF32 · seed")
    assert "tf32" not in base.spec and "tf32" not in others[0].spec  # ids are as they were before
    with pytest.raises(BadSpec, match="how a GPU may multiply.* is cpu: choose cuda, or leave"):
        suite.cells("cpu", tf32=True)
    renamed = dataclasses.replace(base, labels={"target": "x", "sampler": "y"})
    assert renamed.id == base.id  # a label is for people


def test_the_documented_suite_file_is_the_one_that_is_read():
    """Every key of docs/suites.md exists, and every key that exists is there."""
    page = (Path(__file__).parents[2] / "docs" / "suites.md").read_text(encoding="utf-8")
    table = page.partition("## Tables and keys")[2].partition("Order decides")[0]
    said = {key for line in table.splitlines() for key in re.findall(r"`(\w+)`", line)}
    read = set()
    for field in msgspec.structs.fields(toml.File):
        kind = typing.get_args(field.type)[0] if typing.get_args(field.type) else field.type
        read |= set(kind.__struct_fields__)
    assert read <= said
