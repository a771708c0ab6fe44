"""Fills the generated parts of README.md and docs/*.md from files in the repository.

`<!-- show: FILE -->` becomes the file as a code block, or as it is where it is Markdown;
`<!-- show: FILE ## A ## B -->` the sections of a Markdown file whose titles begin with A and B;
`<!-- rows: FILE ## A ## START ## P ## Q -->` of section A the first table whose head begins with
START (or that follows a line that does), and of that the rows that begin with P or Q, or all;
`... ## only A, B` as the last title leaves the columns whose heads begin with A or B;
`<!-- leaders: FOLDER -->` the leaderboard that `tiltbench report` prints of published results, with
`## table` as a title without the sentences below it;
`<!-- remarks: FOLDER -->` the sentences that stand on top of the table of published results;
`<!-- studies: FOLDER -->` one line for each study in the folder: its page and its verdicts;
`<!-- verdicts: FOLDER -->` the verdicts of one study, with all claims that are not supported;
`<!-- claims: FOLDER -->` its claims as a table, each with its verdict and what was measured;
`<!-- setting: FOLDER -->` the paragraph above its tables: what was run, and what came of it;
`<!-- references: FOLDER A B -->` one of the certified references in the folder, or of A and B;
`<!-- visit: FILE -->` the page of `make gpu`, or that there is none so far;
`<!-- tree: FOLDER ... -->` these folders and those below, each with its first line;
everything up to `<!-- end -->` is replaced.
Run by `make readme`; a test keeps the two in step.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "docs/examples.md",
    "docs/reading.md",
    "docs/quick.md",
    "docs/standard.md",
    "docs/parity.md",
    "docs/quality.md",
    "docs/performance.md",
    "docs/gpu.md",
    "docs/oracle.md",
    "docs/studies.md",
    *(f"docs/studies/{path.name}" for path in sorted((ROOT / "docs/studies").glob("*.md"))),
    "docs/physics.md",
    "docs/tuning.md",
    "docs/finetune_methods.md",
    "docs/finetuning.md",
    "docs/walk.md",
    "docs/tutorials/loss.md",
    "docs/tutorials/posterior.md",
    "docs/tutorials/sampler.md",
    "docs/tutorials/unknown.md",
)
PART = re.compile(
    r"(<!-- (?P<kind>show|rows|leaders|remarks|studies|verdicts|claims|setting|references|tree"
    r"|visit): "
    r"(?P<file>\S+)(?P<titles>.*?) -->\n)"
    r".*?(<!-- end -->)",
    re.S,
)

RESULT = r"^<!-- (?:verdicts|setting|show): (results/published/studies/\w+)"


def filled(page: str) -> str:
    """The page's text with every part as it should be."""
    text = (ROOT / page).read_text(encoding="utf-8")

    def part_of(part: re.Match[str]) -> str:
        match part["kind"]:
            case "remarks":
                content = _remarks(part["file"])
            case "studies":
                content = _studies(part["file"])
            case "verdicts":
                content = _verdicts(part["file"])
            case "claims":
                content = _listed(part["file"])
            case "setting":
                content = _setting(part["file"])
            case "leaders":
                content = _leaders(part["file"], part["titles"])
            case "references":
                content = _references(part["file"], part["titles"].split())
            case "visit":
                content = _visit(part["file"])
            case "tree":
                content = _tree([part["file"], *part["titles"].split()])
            case "rows":
                content = _table_rows(part["file"], part["titles"])
            case _:
                content = _shown(part["file"], part["titles"])
        return part[1] + content + part[5]

    return PART.sub(part_of, text)


def _claim_rows(folder: Path) -> list[dict[str, str]]:
    """Each with claim, verdict and measured."""
    with (folder / "claims.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _claims(folder: Path) -> dict[str, list[str]]:
    """Claims by verdict: supported, refuted, open."""
    claims: dict[str, list[str]] = {"supported": [], "refuted": [], "open": []}
    for row in _claim_rows(folder):
        claims[row["verdict"]].append(row["claim"])
    return claims


def _studies(folder: str) -> str:
    lines = ["| question | claims supported | refuted | open |", "|---|---|---|---|"]
    pages = study_pages()
    for path in sorted((ROOT / folder).glob("*/table.md")):
        page = pages[f"{folder}/{path.parent.name}"]
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        counts = [str(len(claims)) for claims in _claims(path.parent).values()]
        link = f"[{title}]({page.relative_to(ROOT / 'docs').as_posix()})"
        lines.append("| " + " | ".join([link, *counts]) + " |")
    return "\n".join(lines) + "\n"


def study_pages() -> dict[str, Path]:
    """The page of each study's folder: the one that shows its result above the first heading."""
    pages = {}
    for page in sorted((ROOT / "docs").rglob("*.md")):
        top = page.read_text(encoding="utf-8").partition("\n## ")[0]
        if result := re.search(RESULT, top, re.M):
            pages[result[1]] = page
    return pages


def _verdicts(folder: str) -> str:
    claims = _claims(ROOT / folder)
    counted = ", ".join(f"{len(mine)} {verdict}" for verdict, mine in claims.items() if mine)
    lines = [f"**Verdict: {counted}.**"]
    few = sum(len(mine) for mine in claims.values()) <= 3
    for verdict in ("supported", "refuted", "open") if few else ("refuted", "open"):
        lines += [f"*{verdict.capitalize()}:* {claim}" for claim in claims[verdict]]
    return "\n" + "\n\n".join(lines) + "\n\n"


def _listed(folder: str) -> str:
    lines = ["| claim | verdict | measured |", "|---|---|---|"]
    for row in _claim_rows(ROOT / folder):
        cells = (" ".join(row[key].split()) for key in ("claim", "verdict", "measured"))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n" + "\n".join(lines) + "\n\n"


def _setting(folder: str) -> str:
    """The paragraph below the title of a study's page of tables."""
    text = (ROOT / folder / "table.md").read_text(encoding="utf-8")
    return "\n" + text.split("\n\n")[1] + "\n\n"


def _visit(file: str) -> str:
    if not (ROOT / file).exists():
        return "\n**It has never been run on a GPU so far**, on CPUs and a pretended GPU only.\n\n"
    return re.sub(r"^#", "##", (ROOT / file).read_text(encoding="utf-8"), flags=re.M)


def _tree(roots: list[str]) -> str:
    """Links, caches and folders of data aside."""
    lines = []
    for root in roots:
        for path in sorted((ROOT / root).rglob("__init__.py")):
            folder = path.parent.relative_to(ROOT)
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            if docstring:
                indent = "  " * (len(folder.parts) - 1)
                lines.append(f"{indent + folder.name + '/':22} {docstring.partition(chr(10))[0]}")
    return "\n" + "\n".join("    " + line for line in lines) + "\n\n"


def _references(folder: str, names: list[str]) -> str:
    """What each reference found, and the four tests it passed, in its own sentences."""
    lines = [
        "| target | draws | energy | shares of basins | tests | made by |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted((ROOT / folder).glob("*_reference.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        if names and facts["target"]["name"] not in names:
            continue
        energy = next(
            facts["statistics"][name]
            for name in ("energy", "action", "log_likelihood")
            if name in facts["statistics"]
        )
        shares = [f"{b['share']:.3f} ± {b['se']:.3f}" for b in facts["basins"] or []]
        cells = (
            f"`{facts['target']['name']}`",
            f"{facts['count']:,}",
            f"{energy['mean']:.3f} ± {energy['se']:.3f}, sd {energy['sd']:.2f}",
            ", ".join(shares) or "–",
            "; ".join(test["sentence"] for test in facts["tests"]),
            f"`{facts['command']}`, seed {facts['seed']}, {facts['cpu_seconds']:.0f} CPU-s, "
            f"commit {facts['code']['commit'][:12]}",
        )
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines) + "\n"


def _leaders(folder: str, titles: str) -> str:
    from tiltbench.report.board import boards
    from tiltbench.report.frame import collect
    from tiltbench.report.standings import leaderboard

    whole = leaderboard(boards(collect(ROOT / folder)))
    table, _, _ = whole.partition("\n\n")
    lines = (table if titles.strip() == "## table" else whole).splitlines()
    return "\n" + "\n".join(f"    {line}".rstrip() for line in lines) + "\n\n"


def _remarks(folder: str) -> str:
    from tiltbench.report.board import boards
    from tiltbench.report.frame import collect
    from tiltbench.report.standings import remarks

    return " ".join(remarks(boards(collect(ROOT / folder)))) + "\n"


def _table_rows(file: str, titles: str) -> str:
    """Rows of a table by name; of a list its first lines, one for each name given."""
    section, start, *wanted = (
        title.strip() for title in titles.strip().removeprefix("##").split("##")
    )
    heads = wanted.pop().removeprefix("only ") if wanted and wanted[-1][:5] == "only " else ""
    text = (ROOT / file).read_text(encoding="utf-8")
    chosen = next(s for s in re.split(r"^## ", text, flags=re.M) if s.startswith(section))
    lines = chosen.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    if not start.startswith("|"):
        first = next((i for i in range(first, len(lines)) if lines[i].startswith("|")), first)
    body = lines[first : next((i for i in range(first, len(lines)) if not lines[i]), len(lines))]
    if not body[0].startswith("|"):
        return "\n" + "\n".join(body[: len(wanted)]) + "\n\n"
    rows = [row for name in wanted for row in body[2:] if row.startswith(f"| {name} ")]
    table = [*body[:2], *(rows if wanted else body[2:])]
    return "\n" + "\n".join(_columns(table, heads) if heads else table) + "\n\n"


def _columns(rows: list[str], heads: str) -> list[str]:
    """Of a table, those whose heads begin with one of `heads`, which commas part."""
    cells = [row.strip("|").split("|") for row in rows]
    wanted = tuple(head.strip() for head in heads.split(","))
    chosen = [i for i, head in enumerate(cells[0]) if head.strip().startswith(wanted)]
    return ["|" + "|".join(row[i] for i in chosen) + "|" for row in cells]


def _shown(file: str, titles: str) -> str:
    content = (ROOT / file).read_text(encoding="utf-8").rstrip("\n")
    sought = [title.strip() for title in titles.split("##") if title.strip()]
    if not sought and file.endswith(".md"):
        return re.sub(r"^# ", "### ", content, flags=re.M) + "\n"
    if not sought:
        language = {".py": "python", ".toml": "toml"}.get(Path(file).suffix, "")
        title = f' title="{file}"' if language == "python" else ""
        return f"```{language}{title}\n{content}\n```\n"
    sections = re.split(r"^## ", content, flags=re.M)
    chosen = [next(s for s in sections if s.startswith(title)) for title in sought]
    return "\n".join(f"### {section.rstrip()}\n" for section in chosen)


if __name__ == "__main__":
    for page in PAGES:
        if (ROOT / page).exists():
            (ROOT / page).write_text(filled(page), encoding="utf-8")
