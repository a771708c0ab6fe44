"""The README shows what is in the repository, and its examples work as pasted."""

import importlib.util
import re
from pathlib import Path

import pytest

from tiltbench.check import check

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def generator():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "docs" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_up_to_date():
    made = generator()
    for page in made.PAGES:
        assert made.filled(page) == (ROOT / page).read_text(encoding="utf-8"), "run make readme"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_keep_the_contract_and_stand_in_the_readme(example, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert example.read_text(encoding="utf-8") in blocks
    broken = [finding for finding in check(f"examples/{example.name}") if not finding.ok]
    assert not broken


def test_links_and_pictures_exist():
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for link in re.findall(r"\]\(([^)#]+?)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} points to {link}: not there"
