"""What `tiltbench list NAME` says of a target, a sampler, a part, a metric, a study or a suite."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

from tiltbench.cli.help import WIDEST, columns
from tiltbench.cli.kinds import KINDS, registries
from tiltbench.plan.budget import limits as budget_limits
from tiltbench.plan.errors import BadSpec
from tiltbench.plan.spec import (
    PARTS,
    Spec,
    build_sampler,
    build_target,
    parse,
    same_kind,
    spec,
    written,
)
from tiltbench.plan.suite import nearest
from tiltbench.plan.toml import load_suite, suite_names
from tiltbench.targets.files import split
from tiltbench.targets.registry import Entry, UnknownName


def describe(text: str, width: int) -> str:
    """One page for every kind that has the name.  Raises UnknownName with the nearest matches."""
    if text in suite_names() or text.endswith(".toml"):
        return _suite(text, width)
    asked = parse(text)
    entries = dict(_entries(asked["name"]))
    if not entries:
        every = [name for load in registries().values() for name in load().entries]
        raise UnknownName(
            f"nothing is called {text!r}{nearest(text, [*every, *suite_names(), *KINDS])} "
            f"`tiltbench list KIND` shows the names, KIND one of {', '.join(KINDS)}"
        )
    pages = [_page(kind, entry, asked, width) for kind, entry in entries.items()]
    return "\n\n".join(pages)


def _entries(name: str) -> Iterator[tuple[str, Entry]]:
    """(kind, entry) of what has the name, or of what a plug-in file names."""
    if split(name) is not None:
        from tiltbench.plan.plugins import registry_of
        from tiltbench.targets.registry import TARGETS

        entry = TARGETS.find(name)  # a file's entries are the same in every registry
        yield registry_of(entry.load(), name).kind, entry
        return
    for load in registries().values():
        registry = load()
        if name in registry.entries:
            yield registry.kind, registry.entries[name]


def _page(kind: str, entry: Entry, asked: Spec, width: int) -> str:
    head = f"{entry.name} ({kind})"
    parts = [head, *(_wrapped(text, width) for text in entry.docstrings())]
    if kind == "target":
        target = build_target(asked)
        parts += [_parameters(target, asked, width), _target(target, width)]
    elif kind == "sampler":
        parts.append(_parameters(build_sampler(asked), asked, width))
    elif kind == "metric":
        parts.append(_metric(entry.load(), width))
    elif kind == "study":
        parts.append(f"`tiltbench study {entry.name}` runs it.")
    else:
        parts.append(_parameters(_part(entry, asked), asked, width))
    return "\n\n".join(part for part in parts if part)


def _part(entry: Entry, asked: Spec) -> Any:
    cls = entry.load()
    known = {field.name for field in dataclasses.fields(cls)}
    for key in asked["params"]:
        if key not in known:
            raise BadSpec(f"{entry.name} has no parameter {key!r}{nearest(key, sorted(known))}")
    return cls(**asked["params"])


def _wrapped(text: str, width: int) -> str:
    """Paragraphs filled anew; what is indented, such as a formula or a table, stays."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(
        p if any(line.startswith(" ") for line in p.splitlines()) else _filled(p, width)
        for p in paragraphs
    )


def _filled(text: str, width: int) -> str:
    return textwrap.fill(
        " ".join(text.split()), min(width, WIDEST), break_long_words=False, break_on_hyphens=False
    )


def _parameters(thing: Any, asked: Spec, width: int) -> str:
    """Every parameter with its type, its value here, and what its docstring says of it."""
    holders = [thing]
    options = getattr(getattr(thing, "loss", None), "options", None)
    if options is not None:
        holders.insert(0, options)
    values = spec(thing)["params"] if hasattr(thing, "name") else {}
    rows = []
    for key, value in values.items():
        holder = next(h for h in holders if key in {f.name for f in dataclasses.fields(h)})
        field = next(f for f in dataclasses.fields(holder) if f.name == key)
        kind = field.type if isinstance(field.type, str) else field.type.__name__
        meaning = _meaning(type(holder), key)
        if isinstance(value, dict):
            meaning = f"{meaning} ({' or '.join(_choices(getattr(holder, key)))})".strip()
        rows.append((f"{key}: {kind} = {written(value)}", meaning))
    if not rows:
        return "It has no parameters."
    name = asked["name"]
    first = next(iter(values))
    typed = f"{name}[{first}={written(values[first])}]"
    how = f"Set them as {typed} or by --set {name}.{first}=A,B"
    if any(name in registry.entries for registry in PARTS):
        how = f"Set them as {typed} wherever a parameter takes such a part."
    return f"Parameters:\n{columns(rows, width)}\n{_filled(how, width)}"


def _choices(part: Any) -> list[str]:
    """The parts that may stand in the place of this one."""
    names = [(name, registry.load(name)) for registry in PARTS for name in registry.entries]
    return sorted(name for name, cls in names if same_kind(cls, type(part)))


def _meaning(cls: type, key: str) -> str:
    """The comment beside a field, or the sentences of the docstring that name it."""
    for kind in cls.__mro__:
        if key in vars(kind).get("__annotations__", {}):
            comment = _comments(kind).get(key)
            if comment:
                return comment
            text = " ".join((inspect.getdoc(kind) or "").split())
            sentences = re.split(r"(?<=[.;]) ", text)
            marked = [s for s in sentences if f"`{key}`" in s]
            sentences = sentences[1:]  # the first is the law, shown above
            plain = [
                s for s in sentences if re.search(rf"(?<![\w.]){re.escape(key)} (=|is|in|of) ", s)
            ]
            return " ".join((marked or plain)[:1]).rstrip(";:")
    return ""


def _comments(cls: type) -> dict[str, str]:
    """Field -> the comment behind it, or on the line below it."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except (OSError, TypeError):  # of a session
        return {}
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef)
    lines = source.splitlines()
    written_at = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    comments = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            line = int(node.end_lineno or node.lineno)
            parts = [written_at[line]] if line in written_at else []
            while line + 1 in written_at and lines[line].lstrip().startswith("#"):
                line += 1
                parts.append(written_at[line])
            comments[node.target.id] = " ".join(parts)
    return comments


def _target(target: Any, width: int) -> str:
    """Dimension, symmetries, and what is known of the truth."""
    truth = target.truth()
    rows = [("dimension", str(target.dim)), ("rms coordinate", f"{target.scale:g}, about")]
    if target.particles:
        n, d = target.particles
        rows.append(("particles", f"{n} in {d} dimensions, centre of mass at rest"))
        if target.alike != (tuple(range(n)),):
            rows.append(("alike", " ".join(map(str, target.alike)) or "none of them"))
        if target.chiral:
            rows.append(("mirror images", "are different"))
    if target.lattice:
        rows.append(("lattice", " x ".join(map(str, target.lattice)) + ", periodic"))
    if hasattr(target, "base"):
        rows.append(("base", type(target.base).__name__))
    rows.append(("truth", truth.source))
    error = f" +- {truth.log_Z_se:.2g}" if truth.log_Z_se else ""
    rows.append(("log Z", "unknown" if truth.log_Z is None else f"{truth.log_Z:.6g}{error}"))
    held = "" if truth.held == float("inf") else f", {truth.held:,.0f} stored"
    rows.append(("exact draws", "unknown" if truth.sample is None else f"yes{held}"))
    if truth.modes is None:
        rows.append(("modes", "unknown"))
    else:
        shares = [float(w) for w in truth.modes.weight]
        spread = f"{min(shares):.3g} to {max(shares):.3g}"
        rows.append(("modes", f"{len(shares)}, of weights {spread}"))
    rows += [
        (
            f"observable {name}",
            f"mean {o.mean:.5g}, sd {o.sd:.4g}" + (f", known to {o.se:.2g}" if o.se else ""),
        )
        for name, o in truth.observables.items()
    ]
    return f"Known of it:\n{columns(rows, width)}"


def _metric(metric: Any, width: int) -> str:
    perfect = {
        "floor": "a floor, measured between two exact sets of the same size",
        "": "none: it is reported, not ranked",
    }
    rows = [
        ("needs", ", ".join(sorted(metric.needs)) or "nothing"),
        ("better", metric.better),
        ("unit", metric.unit),
        ("perfect", perfect.get(metric.perfect, metric.perfect)),
    ]
    return columns(rows, width)


def _suite(name: str, width: int) -> str:
    suite = load_suite(name)
    limits = suite.limits
    plain = dataclasses.replace(suite.samplers[0], calls=None)
    budgets = [
        (f"on {target.label}", suite.budget(target, plain).limits)
        for target in suite.targets
        if target.calls or target.flops or target.seconds
    ]
    seeds = len(suite.seeds)
    base = (len(suite.beside_untrained().pairs) - len(suite.pairs)) * seeds
    beside = f", and {base:,} of the untrained base" if base else ""
    rows = [
        ("training", budget_limits(suite.calls, suite.flops, suite.seconds)),
        *budgets,
        ("draws", f"{suite.draws:,} to score"),
        ("seeds", ", ".join(map(str, suite.seeds))),
        ("limits", f"{limits.seconds:g} s and {limits.megabytes:,} MB a cell"),
        ("cells", f"{len(suite.pairs) * seeds:,}{beside}"),
        (f"{len(suite.targets)} targets", ", ".join(c.label for c in suite.targets)),
        (f"{len(suite.samplers)} samplers", ", ".join(c.label for c in suite.samplers)),
    ]
    if suite.overrides:
        changed = {key for row in suite.overrides for key in row.params}
        rows.append(("overrides", f"{len(suite.overrides)}, of {', '.join(sorted(changed))}"))
    if suite.tuned:
        rows.append(("tuned", f"{len(suite.tuned)} rows that `tiltbench tune` has chosen"))
    run = f"`tiltbench run --suite {name}` runs it, with --targets or --samplers a part of it."
    description = _wrapped(suite.description, width)
    return f"{suite.name} (suite)\n\n{description}\n\n{columns(rows, width)}\n\n{run}"
