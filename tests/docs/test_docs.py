"""The code of README.md and docs/ runs as it stands there and prints what the pages say."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def module(name):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


docs = module("blocks")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in docs.pages()}
WITH_CODE = [name for name, text in PAGES.items() if any(docs.blocks(text))]


@pytest.mark.docs
@pytest.mark.parametrize("page", WITH_CODE)
def test_the_blocks_run_and_print_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block, printed in docs.run(PAGES[page]):
        if block.output is not None:
            where = f"{page}, line {block.line} prints otherwise; see `make outputs`:\n{printed}"
            assert docs.alike(block.shown, printed), where


def commands():
    for page in WITH_CODE:
        for block in docs.blocks(PAGES[page]):
            if block.language == "sh":
                yield from (line.partition("#")[0].strip() for line in block.code.splitlines())


def test_every_block_is_run_but_for_the_few_that_are_listed():
    lines = [line for line in commands() if line]
    known = re.compile(r"(tiltbench [a-z]+|python examples/\w+\.py|cat [\w/]+\.md)( |$)")
    others = {*docs.INSTEAD, *docs.NOT_RUN}
    assert {line for line in lines if line in others or not known.match(line)} == others
    assert (len(docs.INSTEAD), len(docs.NOT_RUN)) == (9, 10)  # one more needs a reason


def named():
    for page, text in PAGES.items():
        if page not in ("docs/design.md", "CONTRIBUTING.md"):
            names = re.findall(r"`(tiltbench(?:\.\w+)+)`", text)
            yield from (name for name in names if name != "tiltbench.loggers")  # of entry points
            yield from re.findall(r"^::: (tiltbench[\w.]*?)(?:\.\*)?$", text, re.M)


def resolved(name):
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing
    raise ModuleNotFoundError(name)


def test_names_of_the_code_exist():
    names = sorted(set(named()))
    assert len(names) > 100
    for name in names:
        resolved(name)


def test_the_mathematics_names_what_computes_every_equation():
    text = PAGES["docs/mathematics.md"]
    sections = re.split(r"^## ", text, flags=re.M)[1:]
    for section in sections:
        for part in re.split(r"\$\$.*?\$\$", section, flags=re.S)[1:]:
            paragraph = part.strip().partition("\n\n")[0]
            assert re.search(r"`tiltbench\.\w+\.", paragraph), f"after an equation: {paragraph!r}"


ALIKE = [
    ("a  1.00 b", "a 1.01 b", True),
    ("a 1.00 b", "a 2.0 b", False),
    ("a 1.00 b", "a 1.0 c", False),
    ("≈ 0.01 | 2±0.2", "≈ 0.04 | 2±0.22", True),
    ("≈ 0.01", "0.01", False),
    ("20,000 calls", "40,000 calls", False),
]


@pytest.mark.parametrize(("shown", "printed", "same"), ALIKE)
def test_outputs_are_compared_as_words_and_numbers(shown, printed, same):
    assert docs.alike(shown, printed) is same


PAGE = """
```python title="two.py"
two = 2
```
```python
from pathlib import Path
import two
print(Path("two.py").read_text())
three = 3
```
```text
so far shorter than it will be
```
```python
print(three)
print("# a")
print("b\\n")
print("rest")
```
<!-- prints: # a -->
old
<!-- end -->
"""


def test_a_page_is_one_namespace_in_one_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = [output for _, output in docs.run(PAGE)]
    assert printed == ["\n", "two = 2\n", "\n# a\nb\n\n"]
    assert "two" not in sys.modules  # nor is it found by the commands of a page
    page = docs.with_outputs(PAGE)
    wanted = PAGE.replace("old\n", "\n# a\nb\n\n")
    assert page == wanted.replace("so far shorter than it will be\n", "two = 2\n")


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```ruby\nputs\n```\n", "ruby"),
        ("```\nls\n```\n", "no language"),
        ("```text\nout\n```\n", "output of no code"),
        ("```sh\nrm -rf /nothing\n```\n", "neither run nor listed"),
        ("```toml\na = \n```\n", "Invalid value"),
    ],
)
def test_a_block_that_cannot_be_run_is_an_error(page, message):
    with pytest.raises(ValueError, match=message):
        list(docs.run(page))


def test_the_entry_point_shown_is_one_that_is_read():
    from tiltbench.targets.registry import TARGETS

    assert f'[project.entry-points."{TARGETS.group}"]' in PAGES["docs/python.md"]
