"""Pages of HTML without a script.  Labels come from records, which somebody else may have written:
they are escaped."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tiltbench.records.files import write_bytes
from tiltbench.records.names import file_name
from tiltbench.report.page.page import part
from tiltbench.targets.registry import Registry

NOTE = (
    "<p class=soft>Worst score / floor: the worst score as a multiple of the edge of the noise "
    "floor, which is what exact draws score; up to 1 it is as good as exact draws.</p>"
)


CODE = re.compile(r"`([^`\n]+)`")  # as docstrings mark names


def home(kind: str, name: str) -> str:
    """Where the page of a method or target lies in the site."""
    return f"{kind}/{file_name(name)}.html"


def link(to: str, words: str) -> str:
    return f'<a href="{html.escape(to)}">{html.escape(words)}</a>'


def described(registry: Registry, name: str) -> str:
    """The docstrings of a registered thing, under a head; "" of a name that is not there.  What
    is indented, such as a formula, stays as it is; names in backquotes are set as code."""
    entry = registry.entries.get(name)
    if entry is None:
        return ""
    parts = ["<h2>What it is</h2>"]
    for block in "\n\n".join(entry.docstrings()).split("\n\n"):
        laid_out = any(line.startswith(" ") for line in block.splitlines())
        tag = "pre" if laid_out else "p"
        words = CODE.sub(r"<code>\1</code>", html.escape(block))
        parts.append(f"<{tag}>{words}</{tag}>")
    return "".join(parts)


def image(png: bytes, words: str) -> str:
    """Within the page, so that it travels with it."""
    data = base64.b64encode(png).decode()
    return f'<p><img alt="{html.escape(words)}" src="data:image/png;base64,{data}"></p>'


def number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in row)}</tr>" for row in rows)
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f"<div class=scroll><table>{inner}</table></div>"


def write(path: Path, title: str, parts: Sequence[str], back: str = "") -> None:
    up = f"<p>{link(f'{back}index.html', 'all published results')}</p>" if back else ""
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
        f"<title>{html.escape(title)} · tiltbench</title><style>{part('style.css')}</style></head>"
        f"<body><header><h1>{html.escape(title)}</h1>{up}</header><main>"
        f"{''.join(parts)}{NOTE}</main></body></html>\n"
    )
    write_bytes(path, text.encode())
