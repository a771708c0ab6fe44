"""Tables in LaTeX."""

import json
import math
import re
import shutil
import subprocess

import pytest

from tests.tools.fabricated_runs import (
    OUTCOMES,
)
from tiltbench.report.board import Board, SamplerRow, Spent, boards
from tiltbench.report.frame import collect
from tiltbench.report.page.page import inert
from tiltbench.report.tables.latex import escaped, latex

EVIL = r"\immediate\write18{touch owned}} & % \end{tabular} $x^2_ ~ #1 \\"


UNSPENT = Spent(*[math.nan] * 8, False, False)


def test_the_table_in_latex_has_every_row_and_score(fabricated):
    text = latex("fabricated", boards(collect(fabricated)))
    tables = re.findall(r"\\begin{tabular}{(l+r*)}\n(.*?)\\end{tabular}", text, re.S)
    assert len(tables) == 3 + 4  # overviews, groups
    for columns, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert all(len(re.split(r"(?<!\\)&", row)) == len(columns) for row in rows)
        assert body.count("\n\\midrule\n") in (1, 2) and "\\toprule" in body
    for name in [*OUTCOMES, "broken", "refused"]:
        assert text.count(rf"\texttt{{{name.replace('_', chr(92) + '_')}}}") >= 5
    assert "0 of 5, 5 diverged" in text and "0 of 1, 1 unsupported" in text
    assert r"$\approx$ $\mathbf{" in text and "noise floor" in text


def test_latex_and_html_escape_every_sign():
    signs = "".join(map(chr, range(32, 127))) + "\n\u2028é"
    written = escaped(signs)
    left = re.sub(r"\\text\w+{}|\\[{}$&#%_]|{\\char\d+}", "", written)
    assert not re.search(r"[\\{}$&#%_^~<>|\"'`\n]", left)
    assert written.isascii() and "[U+00E9]" in written and not re.search(r"[<>&]", inert(signs))
    assert json.loads(inert(signs)) == signs


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_the_tables_typeset(fabricated, tmp_path):
    hostile = Board(
        EVIL, 9, (), (SamplerRow(EVIL, None, 1, 0, {EVIL: 1}, {}, frozenset(), UNSPENT),)
    )
    frames = collect(fabricated)
    text = latex(EVIL, [*boards(frames), hostile])
    head = r"\documentclass{article}\usepackage{booktabs,amssymb,graphicx}\begin{document}"
    (tmp_path / "page.tex").write_text(head + text + r"\end{document}", encoding="utf-8")
    words = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "page.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and (tmp_path / "page.pdf").exists(), done.stdout[-2000:]
    assert not (tmp_path / "owned").exists()
