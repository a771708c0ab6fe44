"""Posteriors of a reader's checkout of posteriordb: what is read of it, and what is refused."""

import json
import os
import zipfile

import pytest
import torch

from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import build_target, label, parse
from tiltbench.targets.constrained import posteriordb
from tiltbench.targets.constrained.parameters import constrain
from tiltbench.targets.constrained.posteriordb import Raw, Refused
from tiltbench.targets.densities.posteriors._database import MODELS
from tiltbench.targets.densities.posteriors.eight_schools import EightSchools
from tiltbench.targets.densities.posteriors.posterior import FromDatabase
from tiltbench.targets.registry import TARGETS

NAME = "eight_schools-eight_schools_noncentered"
ABOUT = {
    "name": NAME,
    "model_name": "eight_schools_noncentered",
    "data_name": "eight_schools",
    "reference_posterior_name": NAME,
    "dimensions": {"theta": 8, "mu": 1, "tau": 1},
}
SCHOOLS = {"J": 8, **{name: y.tolist() for name, y in EightSchools().data().items()}}
DATA, DRAWS = "data/data", "reference_posteriors/draws/draws"


def chains(number=4, draws=50):
    """Draws of no posterior, in the shape of the database's."""
    g = torch.Generator().manual_seed(0)

    def some(scale):
        return (scale * torch.randn(draws, generator=g)).tolist()

    def chain():
        mu, tau = some(3.0), [abs(v) + 0.1 for v in some(3.0)]
        return {**{f"theta[{j}]": some(5.0) for j in range(1, 9)}, "mu": mu, "tau": tau}

    return [chain() for _ in range(number)]


def zipped(path, text, inside=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inside or path.stem, text, **options)


def checkout(root, about=ABOUT, data=SCHOOLS, draws="some"):
    """A posterior_database of one posterior."""
    folder = root / "posterior_database"
    (folder / "posteriors").mkdir(parents=True)
    (folder / "posteriors" / f"{NAME}.json").write_text(json.dumps(about))
    zipped(folder / DATA / "eight_schools.json.zip", json.dumps(data))
    if draws is not None:
        stored_draws = chains() if draws == "some" else draws
        zipped(folder / DRAWS / f"{NAME}.json.zip", json.dumps(stored_draws))
    return folder


def test_a_posterior_of_a_checkout_is_the_model_with_its_data(tmp_path):
    folder = checkout(tmp_path)
    target = build_target(parse(f'posterior[path="{folder}",name={NAME}]'))
    assert target == FromDatabase(str(folder), NAME) and target.name == NAME and target.dim == 10
    assert label(target).startswith("posterior[path=")
    x = torch.randn(20, 10, generator=torch.Generator().manual_seed(1)).double()
    theta, slope, _ = constrain(target.parameters, x)
    ours = TARGETS.load("eight_schools_noncentered")()
    assert torch.allclose(target.log_rho(x), ours.log_joint(theta) + slope)
    assert list(target.statistics()) == list(ours.statistics())


def test_the_reference_draws_are_its_truth(tmp_path):
    target, draws = FromDatabase(str(checkout(tmp_path)), NAME), chains()
    truth = target.truth()
    assert truth.source == "reference draws of posteriordb, 4 chains of 50" and truth.held == 200
    x = truth.sample(200, torch.Generator().manual_seed(2))
    assert x.shape == (200, 10) and x.dtype == torch.float64
    assert torch.allclose(x.mean(0), torch.zeros(10).double(), atol=1e-9)
    assert torch.allclose(x.std(0), torch.ones(10).double())
    for name in ("mu", "tau", "theta[3]"):
        f, mean, sd, se = truth.observables[name]
        all_of_it = torch.tensor([chain[name] for chain in draws], dtype=torch.float64)
        assert torch.allclose(f(x).sort().values, all_of_it.flatten().sort().values, atol=1e-4)
        assert mean == pytest.approx(float(all_of_it.mean()), abs=1e-9)
        assert se == pytest.approx(float(all_of_it.mean(1).std()) / 2, rel=1e-6) and sd > 0


@pytest.mark.parametrize("reference", [None, "gone"])
def test_without_draws_the_truth_is_unknown(tmp_path, reference):
    about = {**ABOUT, "reference_posterior_name": reference}
    target = FromDatabase(str(checkout(tmp_path, about=about, draws=None)), NAME)
    assert target.truth().unknown and target.log_rho(torch.zeros(10)).isfinite()


def test_a_name_and_a_folder_must_be_given():
    with pytest.raises(BadSpec, match="posterior needs a checkout .* path must be given"):
        build_target(parse("posterior"))


def of(key, value):
    return {**ABOUT, key: value}


def first(key, value):
    one, *rest = chains()
    return [{**one, key: value}, *rest]


def without(key):
    return [{k: v for k, v in chain.items() if k != key} for chain in chains()]


DEEP = "[" * 100_000 + "]" * 100_000
WRONG = {
    "an unknown model": ({"about": of("model_name", "gp_regr")}, "model gp_regr .* not exist here"),
    "no model": ({"about": of("model_name", None)}, "it names no model and no data"),
    "a table of names": ({"about": [1]}, "damaged|names no model"),
    "a way out": ({"about": of("data_name", "../../../etc/passwd")}, "is no name of the database"),
    "a way out, dots": ({"about": of("data_name", "..")}, "is no name of the database"),
    "an absolute name": ({"about": of("reference_posterior_name", "/etc/x")}, "is no name of the"),
    "a number": ({"about": of("reference_posterior_name", 3)}, "3 in .* is no name of"),
    "other data": ({"about": of("data_name", "garch")}, "has no data/data/garch.json.zip"),
    "no table": ({"data": [1, 2]}, "eight_schools.json is damaged .it holds no names"),
    "NaN": ({"data": {**SCHOOLS, "y": [float("nan")] * 8}}, "damaged .NaN is no finite number"),
    "too few": ({"data": {**SCHOOLS, "y": [1.0]}}, r"y in .* shape \(1,\), and must have \(8,\)"),
    "outside": ({"data": {**SCHOOLS, "sigma": [0.0] * 8}}, "sigma in .* it must be positive"),
    "missing": ({"data": {"J": 8}}, "y in .* is not data of this model: it is missing"),
    "draws of nothing": ({"draws": []}, "holds no list of chains"),
    "draws of words": ({"draws": first("mu", ["a"] * 50)}, "draws of mu are not one number each"),
    "draws of NaN": ({"draws": first("mu", [float("nan")] * 50)}, "NaN is no finite number"),
    "uneven chains": ({"draws": first("mu", [1.0])}, "draws of mu are not one number each"),
    "a missing parameter": ({"draws": without("tau")}, "draws of .* lack the parameter tau"),
    "a missing component": ({"draws": without("theta[3]")}, "components of theta are not 1 to 7"),
    "fewer components": ({"draws": without("theta[8]")}, "damaged|must|shape|size"),
    "outside its support": ({"draws": first("tau", [-1.0] * 50)}, "tau is outside its support"),
    "draws that stand still": (
        {"draws": [{k: [1.0] * 9 for k in chains()[0]}] * 3}, "draws of .* does not move"
    ),
    "a scale of zero": ({"draws": first("tau", [0.0] * 50)}, "the draws of eight.* take it anew"),
    "vectors for numbers": (
        {"draws": [{f"mu[{k}]" if n == "mu" else n: v for n, v in c.items() for k in (
            (1, 2, 3) if n == "mu" else (0,))} for c in chains()]}, "draws of .* do not fit"
    ),
}  # fmt: skip


@pytest.mark.parametrize("change, message", WRONG.values(), ids=WRONG)
def test_what_is_wrong_gets_one_sentence(tmp_path, change, message):
    folder = checkout(tmp_path, **change)
    with pytest.raises(ValueError, match=message) as caught:
        FromDatabase(str(folder), NAME)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_folder_that_is_no_database(tmp_path):
    with pytest.raises(Refused, match="is no posterior_database: name the folder"):
        FromDatabase(str(tmp_path), NAME)
    with pytest.raises(Refused, match="has no posterior garch-garch11"):
        FromDatabase(str(checkout(tmp_path)), "garch-garch11")
    with pytest.raises(Refused, match="'../x' in name is no name of the database"):
        FromDatabase(str(tmp_path / "posterior_database"), "../x")


HOSTILE = {
    "a bomb": (lambda path: zipped(path, b"0" * (posteriordb.LARGEST + 2)), "unpacks to more than"),
    "another file": (lambda path: zipped(path, "{}", "../../evil.json"), "must hold the one file"),
    "an absolute path": (lambda path: zipped(path, "{}", "/tmp/evil"), "must hold the one file"),
    "depth": (lambda path: zipped(path, DEEP), "damaged .maximum recursion depth"),
    "no JSON": (lambda path: zipped(path, "import os"), "damaged .Expecting value"),
    "no text": (lambda path: zipped(path, b"\xff\xfe\xfa"), "damaged"),
    "no archive": (lambda path: path.write_bytes(b"PK no"), "damaged .File is not a zip file"),
    "a cut archive": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "damaged"),
    "a broken archive": (
        lambda path: path.write_bytes(path.read_bytes()[:60] + b"~" + path.read_bytes()[61:]),
        "damaged",
    ),
    "no file": (lambda path: path.unlink(), "has no data/data/eight_schools.json.zip"),
}


@pytest.mark.parametrize("make, message", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused(tmp_path, make, message):
    folder = checkout(tmp_path)
    make(folder / DATA / "eight_schools.json.zip")
    with pytest.raises(Refused, match=message):
        FromDatabase(str(folder), NAME)
    assert not list(tmp_path.rglob("evil*"))


def test_two_files_in_one_archive_are_refused(tmp_path):
    folder = checkout(tmp_path)
    with zipfile.ZipFile(folder / DATA / "eight_schools.json.zip", "a") as archive:
        archive.writestr("more.json", "{}")
    with pytest.raises(Refused, match="must hold the one file eight_schools.json"):
        FromDatabase(str(folder), NAME)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = checkout(tmp_path)
    data = folder / DATA / "eight_schools.json.zip"
    elsewhere = tmp_path / "elsewhere.zip"
    data.rename(elsewhere)
    os.symlink(elsewhere, data)
    with pytest.raises(Refused, match="is a link out of"):
        FromDatabase(str(folder), NAME)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_columns_of_a_regression_are_those_of_its_model():
    """diamonds centres all but the first column; nes1980 has three of four age groups."""
    x, y = numbers(40, 4), numbers(40, seed=1)
    raw = Raw({"N": 40, "K": 4, "X": x.tolist(), "Y": y.tolist()}, "file")
    centred = x[:, 1:] - x[:, 1:].mean(0)
    rows = torch.cat([torch.ones(40, 1), centred], 1).double()
    due = torch.linalg.lstsq(rows, y[:, None]).solution[:, 0]
    assert torch.allclose(MODELS["diamonds"].read(raw)["fit"], due)
    names = ("real_ideo", "race_adj", "educ1", "gender", "income")
    columns = {name: numbers(40, seed=k + 10) for k, name in enumerate(names)}
    age = torch.arange(40) % 4 + 1
    values = {**columns, "age_discrete": age, "partyid7": y}
    raw = Raw({"N": 40, **{name: value.tolist() for name, value in values.items()}}, "file")
    groups = [(age == k).double() for k in (2, 3, 4)]
    one, two, *rest = columns.values()
    rows = torch.stack([torch.ones(40).double(), one, two, *groups, *rest], 1)
    due = torch.linalg.lstsq(rows, y[:, None]).solution[:, 0]
    assert torch.allclose(MODELS["nes"].read(raw)["fit"], due)


@pytest.mark.parametrize(
    "model, data, message",
    [
        ("arK", {"T": 3, "K": 5, "y": [1.0, 2.0, 3.0]}, "K in .* above 1 and below T"),
        (
            "arK",
            {"T": 20, "K": 5, "y": [1.0] * 20},
            "the data of .* 15 rows do not determine the 6",
        ),
        ("diamonds", {"N": 2, "K": 3, "X": [[1, 2, 3], [1, 3, 4]], "Y": [1, 2]}, "2 rows do not"),
        ("diamonds", {"N": 2, "K": 1, "X": [[1], [1]], "Y": [1, 2]}, "K in .* above 2"),
    ],
)
def test_a_regression_of_too_few_rows_is_refused(tmp_path, model, data, message):
    about = {**ABOUT, "model_name": model}
    with pytest.raises(Refused, match=message):
        FromDatabase(str(checkout(tmp_path, about, data, None)), NAME)
