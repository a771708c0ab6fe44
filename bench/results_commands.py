"""The commands that read a results folder: status, score, report, diff, publish."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tiltbench.recorded import counts_as_good
from tiltbench.spec import METRICS
from tiltbench.words import RESULTS, Refused, listed


def _folder(name: str) -> Path:
    """The results folder of a suite's name or of a path.  Raises Refused."""
    for folder in (Path(name), RESULTS / name):
        if (folder / "runs").is_dir():
            return folder
    raise Refused(f"there are no results in {name} nor in {RESULTS / name}; run the suite first")


def filled(name: str) -> Path:
    """The same, with at least one run that counts as done.  Raises Refused."""
    folder = _folder(name)
    from tiltbench.record import records

    if not records(folder / "runs"):
        raise Refused(f"{folder} holds no records of runs; run the suite first")
    return folder


def readable_folder(name: str) -> Path:
    """The same where records are readable: scores are read without draws.  Raises Refused."""
    from tiltbench.report.frame import readable

    folder = _folder(name)
    if not readable(folder / "runs"):
        raise Refused(f"{folder} holds no records of runs; run the suite first")
    return folder


def status(options: Namespace, arguments: Sequence[str]) -> int:
    if options.results:
        folders = [_folder(options.results)]
    else:
        folders = sorted(path.parent for path in RESULTS.glob("*/runs"))
    if not folders:
        print(f"no results in {RESULTS}/ yet; `tiltbench run --suite quick` makes some")
    for folder in folders:
        _show_status(folder)
    return 0


def _show_status(folder: Path) -> None:
    from tiltbench.checkpoint import glance
    from tiltbench.provenance import code_identity
    from tiltbench.record import CHECKPOINT, read_json, records

    found = {record.id: record for record in records(folder / "runs")}
    request = folder / "suite.json"
    try:
        wanted = {row["id"]: row for row in read_json(request)["cells"]} if request.exists() else {}
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(
            f"{request} is not readable ({error}); the same `tiltbench run` makes it anew"
        ) from error
    missing = [row for run, row in wanted.items() if run not in found]
    counts = Counter(str(record.status) for record in found.values())
    said = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
    print(f"{folder}: {len(wanted) - len(missing)} of {len(wanted)} cells recorded ({said})")
    now = code_identity()["hash"]
    other = sum(record.code.get("hash") != now for record in found.values())
    if other:
        print(f"  {other} by other code than this (run with --stale to run them again)")
    extra = len(set(found) - set(wanted))
    if wanted and extra:
        print(f"  {extra} records belong to earlier versions of the suite")
    for row in missing:
        title = f"{row['target']} · {row['sampler']} · seed {row['seed']}"
        saved = glance(folder / "runs" / f"{row['id']}{CHECKPOINT}")
        begun = saved is not None and saved.code == now
        share = f", saved at {saved.share:.0%} of its training" if saved and begun else ""
        print(f"  missing: {title}{share}")
    for record in found.values():
        if not counts_as_good(record):
            title = f"{record.labels['target']} · {record.labels['sampler']}"
            print(f"  {record.status}: {title} · seed {record.spec['seed']}: {record.reason}")


def score_again(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.floor import BrokenFloors
    from tiltbench.score import score

    try:
        done = score(filled(options.results), force=options.force, progress=_scored)
    except BrokenFloors as error:
        raise Refused(str(error)) from error
    print(f"{done} runs scored" if done else "every run is scored; --force scores them again")
    return 0


def report_again(options: Namespace, arguments: Sequence[str]) -> int:
    from tiltbench.report import report

    path = report(readable_folder(options.results))
    print(f"{_table(path)}\n{path}\n{_page(path.parent)}")
    return 0


def score_and_report(out: Path) -> None:
    from tiltbench.floor import BrokenFloors
    from tiltbench.report import report
    from tiltbench.score import score

    print("scoring ...", flush=True)
    try:
        score(out, progress=_scored)
    except BrokenFloors as error:
        raise Refused(str(error)) from error
    print(f"writing the report ...\n\n{_table(report(out))}")
    print(_page(out))


def _scored(done: int, total: int) -> None:
    """A line a tenth."""
    if done * 10 // total > (done - 1) * 10 // total:
        print(f"scored {done} of {total}", flush=True)


def _page(out: Path) -> str:
    page = out / "report.html"
    return f"The same with pictures, for a browser: {page} ({page.stat().st_size / 1e6:.1f} MB)"


def _table(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def diff(options: Namespace, arguments: Sequence[str]) -> int:
    metrics = listed(options.metrics, "--metrics")
    for name in metrics:
        METRICS.find(name.removesuffix("_weighted"))
    a, b = _folder(options.a), _folder(options.b)
    from tiltbench.diff import compare
    from tiltbench.diff_sentences import sentences

    try:
        found = compare(a, b, metrics)
    except FileNotFoundError as error:
        raise Refused(str(error)) from error
    print(sentences(found, (str(a), str(b))))
    if options.csv:
        found.frame().to_csv(options.csv, index=False)
    return 1 if found.worse else 0


def publish(options: Namespace, arguments: Sequence[str]) -> int:
    """Copies into a new folder first, so that what is published is never half old, half new.

    Raises Refused where there is nothing to publish, before anything is touched."""
    source = filled(options.results)
    if not (source / "table.md").is_file():
        raise Refused(f"{source} has no table.md; `tiltbench report {options.results}` writes it")
    from tiltbench.record import records

    goal = RESULTS / "published" / source.resolve().name
    fresh = goal.with_name(f".{goal.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    kept = ["*.md", "*.csv", "*.tex", "report.html", "suite.json", "plots/*.png"]
    files = [path for pattern in kept for path in source.glob(pattern) if path.is_file()]
    for record in records(source / "runs"):
        files += sorted((source / "runs").glob(f"{record.id}*.json"))
    for path in files:
        to = fresh / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    shutil.rmtree(goal, ignore_errors=True)
    fresh.rename(goal)
    print(f"{len(files)} files in {goal}")
    return 0


COMMANDS = {
    "status": status,
    "score": score_again,
    "report": report_again,
    "diff": diff,
    "publish": publish,
}
