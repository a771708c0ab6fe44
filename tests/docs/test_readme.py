"""The pages show what is in the repository, and lead to what is there."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def generator():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "docs" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_up_to_date():
    module = generator()
    for page in module.PAGES:
        assert module.filled(page) == (ROOT / page).read_text(encoding="utf-8"), "run make readme"


def test_every_published_study_has_a_page_that_begins_with_its_result():
    studies = sorted((ROOT / "results/published/studies").glob("*/table.md"))
    pages = generator().study_pages()
    assert len(studies) > 20
    assert set(pages) == {path.parent.relative_to(ROOT).as_posix() for path in studies}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_shown_and_run_by_a_page(example):
    """The pages' blocks are run by tests/docs/test_docs.py."""
    name = f"examples/{example.name}"
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    texts = [path.read_text(encoding="utf-8") for path in pages]
    code = example.read_text(encoding="utf-8")
    word = "python" if "__main__" in code else "tiltbench check"
    shown = f'```python title="{name}"\n{code}```\n'
    assert any(shown in text and f"\n{word} {name}" in text for text in texts)


def test_links_and_pictures_exist():
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for link in re.findall(r"\]\(([^)#]+?)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} points to {link}: not there"


def test_the_walk_leads_along_files_that_are_there():
    named = re.findall(r"`([\w/]+(?:\.py|/))`", (ROOT / "docs/walk.md").read_text())
    assert len(named) > 30
    for name in named:
        assert any((ROOT / root / name).exists() for root in ("", "bench")), name
