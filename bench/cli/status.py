"""`tiltbench status`: how far a suite has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tiltbench.cli.arguments import RESULTS
from tiltbench.cli.folders import results_folder
from tiltbench.cli.options import option
from tiltbench.plan.errors import Refused
from tiltbench.records.recorded import counts_as_good

if TYPE_CHECKING:
    from tiltbench.records.record import Record


def status(
    results: Annotated[str | None, option("a suite or folder; default: all in results/")] = None, /
) -> int:
    """Say how far a suite has come: what is recorded, what is missing, what failed and why."""
    if results:
        folders = [results_folder(results)]
    else:
        folders = sorted(path.parent for path in RESULTS.glob("*/runs"))
    if not folders:
        print(f"no results in {RESULTS}/ yet; `tiltbench run --suite quick` makes some")
    for folder in folders:
        _show_status(folder)
    return 0


def _show_status(folder: Path) -> None:
    from tiltbench.records.recorded import is_published

    if is_published(folder):
        _show_published(folder)
    else:
        _show_plain(folder)


def _show_published(folder: Path) -> None:
    from tiltbench.records.published import read

    published = read(folder)
    missing, have = len(published.suite["cells"]), len(published.records)
    print(f"{folder}: published, {have} of {have + missing} cells ({_counts(published.records)})")
    archive = published.archive
    print(f"  draws: {f'{archive.name}, SHA-256 {archive.sha256}' if archive else 'not kept'}")
    _show_failures(published.records)


def _counts(records: Collection[Record]) -> str:
    counts = Counter(str(record.status) for record in records)
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _show_failures(records: Iterable[Record]) -> None:
    for record in records:
        if not counts_as_good(record):
            title = f"{record.labels['target']} · {record.labels['sampler']}"
            print(f"  {record.status}: {title} · seed {record.spec['seed']}: {record.reason}")


def _show_plain(folder: Path) -> None:
    from tiltbench.records.files import read_json
    from tiltbench.records.record import CHECKPOINT
    from tiltbench.records.store import records
    from tiltbench.run.checkpoint import glance

    recorded = {record.id: record for record in records(folder / "runs")}
    request = folder / "suite.json"
    try:
        wanted = {row["id"]: row for row in read_json(request)["cells"]} if request.exists() else {}
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(
            f"{request} is not readable ({error}); the same `tiltbench run` makes it anew"
        ) from error
    missing = [row for run, row in wanted.items() if run not in recorded]
    counts = _counts(recorded.values())
    print(f"{folder}: {len(wanted) - len(missing)} of {len(wanted)} cells recorded ({counts})")
    other = sum(not _present(record.code, record.spec) for record in recorded.values())
    if other:
        print(f"  {other} by other code than this (run with --stale to run them again)")
    extra = len(set(recorded) - set(wanted))
    if wanted and extra:
        print(f"  {extra} records belong to earlier versions of the suite")
    for row in missing:
        title = f"{row['target']} · {row['sampler']} · seed {row['seed']}"
        saved = glance(folder / "runs" / f"{row['id']}{CHECKPOINT}")
        begun = saved is not None and _present(saved.code, saved.spec)
        share = f", saved at {saved.share:.0%} of its training" if saved and begun else ""
        print(f"  missing: {title}{share}")
    _show_failures(recorded.values())


def _present(code: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    """Whether the present code would run a spec as `code` did."""
    from tiltbench.records.provenance import deciding_code, same_code

    try:
        return same_code(code, deciding_code(spec["target"], spec["sampler"]))
    except (KeyError, TypeError):  # a damaged checkpoint
        return False
