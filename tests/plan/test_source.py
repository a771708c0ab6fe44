"""The identity of code: what makes a record stale, and what does not."""

import shutil

import pytest

from tiltbench.plan.source import Sources, file_hash, package, syntax
from tiltbench.records.provenance import deciding_code, of_earlier_version, same_code

FILES = {
    "targets.cost": '"""Costs."""\n\ndef cost(n):\n    """n of them."""\n    return 2 * n\n',
    "targets.densities.well": (
        "from tiltbench.targets.cost import cost\n\nclass Well:\n    name = 'well'\n\n"
        "    def log_rho(self, x):\n        return -cost(x)  # nats\n"
    ),
    "targets.densities.ring": "class Ring:\n    def log_rho(self, x):\n        return -x\n",
    "samplers.losses.variance": (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from tiltbench.targets.densities.ring import Ring\n\n"
        "def value(w: Ring):\n    import math\n    from tiltbench.targets.cost import cost as c\n"
        "    return math.exp(c(w))\n"
    ),
    "samplers.losses.other": "def value(w):\n    return w\n",
}
MINE = ["targets.densities.well", "samplers.losses.variance"]


@pytest.fixture
def tree(tmp_path):
    """(the hash of a cell on the copied tree as it stands, how a file of it is edited)."""
    places = {module: tmp_path / f"{module.replace('.', '/')}.py" for module in FILES}
    for module, path in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[module])

    def edit(module, old, new):
        text = places[module].read_text()
        assert old in text
        places[module].write_text(text.replace(old, new))

    def move(module, to):
        places[to] = places[module].with_name("elsewhere.py")
        shutil.move(places.pop(module), places[to])

    return lambda roots=MINE: Sources(dict(places)).hash(roots), edit, move


def test_a_comment_or_docstring_makes_nothing_stale(tree):
    now, edit, _ = tree
    before = now()
    edit("targets.cost", '"""n of them."""\n', '"""Another\n    docstring."""\n\n    # a comment\n')
    edit("targets.densities.well", "  # nats", "")
    edit("targets.densities.well", "'well'", '"well"')
    edit("samplers.losses.variance", "import Ring", "import Ring as Ring")  # for type checkers
    assert now() == before


def test_a_moved_file_makes_nothing_stale(tree):
    now, edit, move = tree
    before = now()
    move("targets.cost", "targets.bases.price")
    for module in MINE:
        edit(module, "tiltbench.targets.cost import", "tiltbench.targets.bases.price import")
    # as its importers are sorted anew
    edit("samplers.losses.variance", "    import math\n", "")
    edit("samplers.losses.variance", "from typing", "import math\nfrom typing")
    assert now() == before


@pytest.mark.parametrize(
    "module, old, new",
    [
        ("targets.densities.well", "-cost(x)", "-cost(x) / 2"),
        ("samplers.losses.variance", "exp(c(w))", "exp(-c(w))"),
        ("targets.cost", "2 * n", "3 * n"),  # what both import
        ("samplers.losses.variance", "import math\n", "import cmath as math\n"),
    ],
)
def test_a_changed_formula_is_seen(tree, module, old, new):
    now, edit, _ = tree
    before = now()
    edit(module, old, new)
    assert now() != before


def test_an_import_of_another_thing_by_the_same_name_is_seen(tree):
    now, edit, _ = tree
    edit(
        "targets.cost", "    return 2 * n\n", "    return 2 * n\n\n\ndef other(n):\n    return n\n"
    )
    before = now()
    edit("targets.densities.well", "import cost", "import other as cost")
    assert now() != before


def test_an_unrelated_file_is_not(tree):
    now, edit, _ = tree
    before = now()
    edit("targets.densities.ring", "-x", "-2 * x")
    edit("samplers.losses.other", "return w", "return 2 * w")
    assert now() == before
    assert now(["targets.densities.ring"]) != before


def test_every_file_of_the_package_is_told_by_what_it_does():
    assert syntax(b"x = 1.0") != syntax(b"x = 1") and syntax(b"x = (1)") == syntax(b"x = 1  # one")
    assert syntax(b"if a:\n    f()\ng()") != syntax(b"if a:\n    f()\n    g()")
    assert syntax(b"x = (") != syntax(b"y = (")  # no Python: by its bytes


def names(*specs):
    return [{"name": name, "params": params} for name, params in specs]


def test_a_cell_rests_on_its_own_files():
    of = package().closure
    shared = {"run.phases", "run.meter", "samplers.diffusion", "samplers.loss", "targets.problem"}
    cell = of(["run.phases", "samplers.losses.log_variance", "targets.densities.gmm9"])
    assert shared | {"targets.densities._mixture", "samplers.losses.log_variance"} <= cell
    assert not {"samplers.losses.relative_entropy", "targets.densities.funnel"} & cell
    assert not {"plan.plugins", "records.record", "report.frame", "score.folder"} & cell


def test_parts_count_and_old_hashes_do_not():
    plain = deciding_code(*names(("gmm9", {}), ("log_variance", {})))
    model = {"model": {"name": "Convolutional", "params": {}}}
    other = deciding_code(*names(("gmm9", {}), ("log_variance", model)))
    hmc = deciding_code(*names(("gmm9", {}), ("hmc", {})))
    assert len({code["syntax"] for code in (plain, other, hmc)}) == 3 and plain["plugins"] == {}
    former = {"hash": plain["syntax"], "plugins": {}}
    assert same_code(plain, {**plain, "commit": "x"}) and not same_code(former, plain)
    assert of_earlier_version(former) and not of_earlier_version(plain)
    assert not same_code(former, former)  # it says nothing of what would run now


def test_a_file_is_parsed_once_for_many_cells(monkeypatch):
    import ast

    specs = names(("gmm9", {}), ("hmc", {}))
    first = deciding_code(*specs)
    monkeypatch.setattr(ast, "parse", lambda *_: pytest.fail("parsed again"))
    from tiltbench.records.provenance import RUNNER

    modules = {RUNNER, "targets.densities.gmm9", "samplers.classical.hmc"}
    assert all(package().hash(modules) == first["syntax"] for _ in range(200))


def test_a_plug_in_is_its_neighbours_too(tmp_path):
    mine, near, far = (tmp_path / name for name in ("mine.py", "near.py", "far.py"))
    mine.write_text("import math\nfrom near import f\nname = f(2)\n")
    near.write_text("def f(x):\n    import far\n    return far.two(x)\n")
    far.write_text("def two(x):\n    return x / 2\n")
    before = file_hash(mine)
    far.write_text("def two(x):\n    # half\n    return x / 2\n")
    (tmp_path / "unrelated.py").write_text("x = 1\n")
    assert file_hash(mine) == before
    far.write_text("def two(x):\n    return x / 8\n")
    assert file_hash(mine) != before
    assert file_hash(tmp_path / "gone.py") == ""
