"""What made the results, in a few lines: code, libraries, machine, command."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiltbench.records.record import Record


def provenance(records: list[Record], command: str) -> str:
    """One line for each thing; several values where the runs differ.  `command` is the last
    `tiltbench run` into the folder; empty where it is not known."""
    lines = [*facts(records), ("command", f"`{command}`" if command else "")]
    runs = f"{len(records)} runs, {sum(r.status.finished for r in records)} finished"
    text = "\n".join(f"- {name}: {value}" for name, value in lines if value)
    return f"## Provenance\n\n- {runs}\n{text}"


def facts(records: list[Record]) -> list[tuple[str, str]]:
    """(name, value) of the code, the libraries and the machine; empty where nothing is known."""
    env, code = [r.env for r in records], [r.code for r in records]
    commits = [
        f"{c['commit'][:12]}{' with local changes' if c.get('dirty') else ''}"
        for c in code
        if c.get("commit")
    ]
    return [
        ("tiltbench", _each(c.get("version") for c in code)),
        ("commit", _each(commits)),
        ("libraries", _each(f"torch {e.get('torch')}, numpy {e.get('numpy')}" for e in env)),
        ("machine", _each(_machine(e) for e in env)),
    ]


def _machine(env: Any) -> str:
    parts = [env.get("device_name") or env.get("device"), f"{env.get('cores')} cores"]
    parts += [f"{env.get('threads')} thread(s) a run", env.get("os")]
    for what in ("CUDA", "cuDNN", "driver"):
        version = env.get(what.lower())
        parts.append(f"{what} {version}" if version else "")
    if "tf32" in env:
        parts.append("TF32 allowed" if env["tf32"] else "no TF32")
    return ", ".join(str(part) for part in parts if part)


def _each(values: Iterable[Any]) -> str:
    return " · ".join(sorted({str(value) for value in values if value}))
