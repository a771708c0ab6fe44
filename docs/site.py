"""The hooks of mkdocs.yml: what the site needs beyond the pages of docs/.

Pages link to files of the repository as they would on a forge: `../results/published/...`,
`../targets/tilts/tilt_linear.py`.  Every file outside docs/ that a page leads to, and what that
leads to in turn, becomes part of the site: Markdown as a page, source as a page that shows it,
anything else as it is.  The site therefore works from disk, without a forge.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
API = ROOT / "src" / "tiltbench"
SHOWN = {".py": "python", ".toml": "toml"}  # files that become a page with their text
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^()#\s]+)(#[^()\s]*)?(?=\))")
MATHS = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)
SPACED = {r"\log": r"\log\,", r"\sim": r"\;\sim\;"}  # spaces that the conversion leaves out
NAME = re.compile(r"(?<!\[)`(tiltbench(?:\.\w+){2,})`")
CELL = re.compile(r"<(td|th)>(.*?)</\1>", re.S)
TAG = re.compile(r"<[^>]+>")
SENTENCE = 45  # characters of a cell from which on it is read as text and may wrap
PUBLISHED = "published/index.html"  # written by `make docs`: a page a suite, method and target
PACKAGE = re.compile(r"^::: (tiltbench[\w.]*)\.\*$", re.M)


def on_files(files: Files, config: Any) -> Files:
    """Adds what the pages lead to outside docs/."""
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    seen = set(pages)
    seen.add(ROOT / "CONTRIBUTING.md")  # in the navigation
    seen.add(ROOT / "results/published/quick/table.md")
    due = [*pages, *sorted(seen - set(pages))]
    while due:
        path = due.pop()
        if not path.is_relative_to(DOCS):
            files.append(_file(path, config))
        if path.suffix == ".md":
            linked = {there for there, _ in _links(path)}
            new = {there for there in linked - seen if _belongs(there)}
            seen |= new
            due.extend(sorted(new))
    return files


def _file(path: Path, config: Any) -> File:
    if path.suffix not in SHOWN:
        return File.generated(config, _place(path), abs_src_path=str(path))
    title, code = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    fence = "~~~~~~"
    text = f"# {title}\n\n{fence}{SHOWN[path.suffix]}\n{code}\n{fence}\n"
    return File.generated(config, _place(path), content=text)


def _place(path: Path) -> str:
    """Where a file of the repository is in the site's sources."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    place = path.relative_to(ROOT).as_posix()
    return f"source/{place}.md" if path.suffix in SHOWN else place


def _belongs(path: Path) -> bool:
    return path.is_file() and path.is_relative_to(ROOT) and not path.is_relative_to(DOCS)


def _links(page: Path) -> Iterator[tuple[Path, str]]:
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        yield Path(os.path.normpath(page.parent / link[1])), link[1]


def on_nav(nav: Navigation, config: Any, files: Files) -> Navigation:
    """Leads to the pages of suites, methods and targets, which `make docs` writes into the site."""
    results = next(item for item in nav.items if item.title == "Results")
    link = Link("Every suite, method and target", PUBLISHED)
    link.parent = results
    results.children.insert(0, link)
    return nav


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Repository links become site links; `tiltbench.a.b` leads to the API."""
    source = page.file.src_uri
    if source.startswith(("results/", "source/")):
        page.meta["search"] = {"exclude": True}  # tables of numbers would drown what is written
    here = Path(page.file.abs_src_path or DOCS / source)

    def moved(link: re.Match[str]) -> str:
        there = Path(os.path.normpath(here.parent / link[1]))
        if not there.is_file() or not there.is_relative_to(ROOT):
            return link[0]
        place = os.path.relpath(_place(there), Path(source).parent).replace(os.sep, "/")
        return place + (link[2] or "")

    markdown = LINK.sub(moved, markdown)
    markdown = markdown.replace("<details>", '<details markdown="1">')
    markdown = PACKAGE.sub(_modules, markdown)
    markdown = re.sub(r'^```text from=".*"$', "```text", markdown, flags=re.M)  # docs/blocks.py's
    return NAME.sub(r"[`\1`][\1]", markdown)


def _modules(directive: re.Match[str]) -> str:
    """`::: package.*`: every public module of a package, and the study of each folder."""
    folder = API.joinpath(*directive[1].split(".")[1:])
    names = sorted(p.stem for p in folder.glob("*.py") if not p.name.startswith("_"))
    names += sorted(f"{p.parent.name}.study" for p in folder.glob("*/study.py"))
    return "\n\n".join(f"::: {directive[1]}.{name}" for name in names)


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """TeX as MathML, which browsers draw without a script; cells of sentences are marked, so that
    they wrap."""

    def mathml(maths: re.Match[str]) -> str:
        display = "block" if maths[1] == "div" else "inline"
        tex = html.unescape(maths[2]).strip()
        for word, spaced in SPACED.items():
            tex = tex.replace(word, spaced)
        return convert(tex, display=display)

    return CELL.sub(_cell, MATHS.sub(mathml, content))


def _cell(cell: re.Match[str]) -> str:
    words = html.unescape(TAG.sub("", cell[2]))
    if len(words) < SENTENCE:
        return cell[0]
    return f'<{cell[1]} class="sentence">{cell[2]}</{cell[1]}>'
