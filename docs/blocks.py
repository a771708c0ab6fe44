"""Runs the code of a page as its reader would: block after block, in one empty folder.

A block of `python` runs, all of a page in one namespace; with title="FILE" it is written to FILE
instead.  Each line of `sh` is a command: `tiltbench`, `python FILE`, `cat FILE`, or one of those
listed below; one that is meant to fail ends in `# exit code 1`.  A block of `toml` is parsed.  A
block of `text` is what the block before it prints, with from="START" the lines from the first
that begins with START to the next empty one, and so is `<!-- prints: START -->` up to
`<!-- end -->`, as Markdown.

`make outputs` runs the pages and writes what they print into them; the tests compare.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import re
import runpy
import shlex
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent

# Everything in the pages that is not run as it stands there.  A page's `tiltbench run` whose output
# is not shown is run `briefly` as well.
ON_A_TILT = "--targets tilt_linear --samplers log_variance"
INSTEAD = {
    "make bench": "tiltbench run --suite quick --targets gmm9 --samplers smc",  # minutes
    "make smoke": f"tiltbench run --suite oracle-smoke {ON_A_TILT}",  # a step of .ci/run
    "make oracle": f"tiltbench run --suite oracle {ON_A_TILT}",  # an hour
    "make finetune": "tiltbench run --suite finetune --samplers guidance",  # a day
    "make studies": "tiltbench list studies",  # an hour, on the suites above
    "tiltbench run --suite finetune": "tiltbench run --suite finetune --samplers guidance",  # hours
    "tiltbench run --suite finetune_digits --shard 1/8": "tiltbench list suites",  # hours
    "tiltbench study frontier --out results/published/studies": "tiltbench list studies",
    "tiltbench study memoryless memoryless_digits digits_log_Z memory truncation calibration": (
        "tiltbench list studies"  # most of an hour
    ),
}
NOT_RUN = {
    "make test": "these blocks are run by a test",
    "make docs": "it has a step of its own in .ci/run",
    "tiltbench base digits --kind flow --out mine": "a minute; test_digits has it briefly",
    "tiltbench reference valley.py --points 2e6 --ladders 16": (
        "minutes; tests/reference/test_beside.py has what it writes"
    ),
    "tiltbench reference pumps.py --points 4e6": "the same",
    "tiltbench run --suite smoke --device cuda --gpus 0,1 --gpu-share 0.5": "it needs two GPUs",
    "cp there/runs/* here/runs/": "a command of the system",
    "ray start --head": "it needs the extra `cluster`; `make cluster` tests the like",
    "ray start --address=FIRST:6379": "the same",
    "tiltbench run --suite smoke --engine ray --out /shared/smoke": "the same",
}
SMALL = {"--budget": "2e3", "--seeds": "0:1", "--draws": "100"}

PIECE = re.compile(
    r"^```(?P<language>\w*)(?P<info>[^\n]*)\n(?P<code>.*?)^```$"
    r"|^<!-- prints: (?P<start>.*?) -->\n(?P<shown>.*?)^<!-- end -->$",
    re.M | re.S,
)
LANGUAGES = ("python", "sh", "toml", "text")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])|(?<=±)\d[\d.e+-]*")


class Block(NamedTuple):
    """A piece of code, and the output that the page shows for it, where it does."""

    language: str
    title: str
    code: str
    line: int  # of the page
    output: re.Match[str] | None

    @property
    def shown(self) -> str:
        return self.output[_group(self.output)] if self.output is not None else ""

    @property
    def start(self) -> str | None:
        """What the first line shown begins with; None where all is shown."""
        if self.output is None or self.output["start"] is not None:
            return self.output and self.output["start"]
        match = re.search(r'from="(.*?)"', self.output["info"])
        return match[1] if match else None


def blocks(text: str) -> Iterator[Block]:
    """The pieces of a page in order.  Raises ValueError for one in a language not known here, and
    for output that follows no code."""
    pieces = list(PIECE.finditer(text))
    before: re.Match[str] | None = None
    for piece, following in itertools.zip_longest(pieces, pieces[1:]):
        line = text.count("\n", 0, piece.start()) + 1
        if _is_output(piece):
            if before is None or _is_output(before):
                raise ValueError(f"line {line}: output of no code")
        elif piece["language"] not in LANGUAGES:
            raise ValueError(f"line {line}: a block in {piece['language'] or 'no language'}")
        else:
            title = re.search(r'title="(.*?)"', piece["info"])
            output = following if following is not None and _is_output(following) else None
            yield Block(piece["language"], title[1] if title else "", piece["code"], line, output)
        before = piece


def _is_output(piece: re.Match[str]) -> bool:
    return piece["start"] is not None or piece["language"] == "text"


def _group(output: re.Match[str]) -> str:
    """Of PIECE, the group that holds what is printed."""
    return "code" if output["start"] is None else "shown"


def run(text: str) -> Iterator[tuple[Block, str]]:
    """Every block of a page with what it prints, run in the present folder."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(text):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _run(block, scope)
        yield block, _part(block, printed.getvalue())


def _run(block: Block, scope: dict[str, Any]) -> None:
    if block.title:
        Path(block.title).parent.mkdir(parents=True, exist_ok=True)
        Path(block.title).write_text(block.code, encoding="utf-8")
    elif block.language == "python":
        with _importable(os.getcwd()):
            exec(compile(block.code, f"line {block.line}", "exec"), scope)
    elif block.language == "toml":
        tomllib.loads(block.code)
    else:
        for line in block.code.splitlines():
            command(line, brief=block.output is None)


@contextlib.contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Its files are modules, as for a script that lies there; commands do not find them."""
    with mock.patch.object(sys, "path", [folder, *sys.path]):
        yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(folder + os.sep):
            del sys.modules[name]


def command(line: str, brief: bool) -> None:
    """One line of a shell.  Raises ValueError where it is not known, AssertionError where it ends
    with another code than it says."""
    plain, _, comment = line.partition("#")
    plain = plain.strip()
    due = re.search(r"exit code (\d+)", comment)
    if not plain or plain in NOT_RUN:
        return
    words = shlex.split(INSTEAD.get(plain, plain))
    if words[0] == "python":
        with mock.patch.object(sys, "argv", words[1:]), _importable(str(Path(words[1]).parent)):
            runpy.run_path(words[1], run_name="__main__")
    elif words[0] == "cat":
        print(Path(words[1]).read_text(encoding="utf-8"))
    elif words[0] == "tiltbench":
        from tiltbench.cli.main import main

        words = briefly(words) if brief or plain in INSTEAD else words
        code = main(words[1:])
        assert code == int(due[1] if due else 0), f"{' '.join(words)}: exit code {code}"
    else:
        raise ValueError(f"{plain!r} is neither run nor listed in docs/blocks.py")


def briefly(words: list[str]) -> list[str]:
    """A run at the budget of SMALL."""
    if words[1] != "run" or "--dry-run" in words:
        return words
    others = [
        w for before, w in zip(["", *words], words, strict=False) if not {before, w} & {*SMALL}
    ]
    return [*others, *(word for pair in SMALL.items() for word in pair)]


def _part(block: Block, printed: str) -> str:
    """What of its output a page shows."""
    start = block.start
    if start is None:
        return printed.rstrip() + "\n"
    lines = printed.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith(start)), None)
    if first is None:
        raise ValueError(f"line {block.line} prints nothing that begins with {start!r}")
    last = next((i for i in range(first, len(lines)) if not lines[i].strip()), len(lines))
    shown = "\n".join(lines[first:last]) + "\n"
    return shown if block.output is not None and block.output["language"] else f"\n{shown}\n"


def alike(shown: str, printed: str) -> bool:
    """The same words, and numbers that differ by no more than other hardware's rounding makes of
    a short training: a fifth, or .05."""
    if NUMBER.sub("#", " ".join(shown.split())) != NUMBER.sub("#", " ".join(printed.split())):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    values = [tuple(float(v.replace(",", "")) for v in pair) for pair in pairs]
    return all(math.isclose(a, b, rel_tol=0.2, abs_tol=0.05) for a, b in values)


def with_outputs(text: str) -> str:
    """The page with what its blocks print now."""
    spans = [(b.output, printed) for b, printed in run(text) if b.output is not None]
    for output, printed in reversed(spans):
        group = _group(output)
        text = text[: output.start(group)] + printed + text[output.end(group) :]
    return text


def pages() -> list[Path]:
    """Every page that is written by hand."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


if __name__ == "__main__":
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or pages()
    for page in chosen:
        text = page.read_text(encoding="utf-8")
        if any(block.output for block in blocks(text)):
            print(page.relative_to(ROOT), flush=True)
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                page.write_text(with_outputs(text), encoding="utf-8")
