"""A results folder in the form that belongs in git: Parquet files, table.md, a few pictures."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tiltbench.plan.errors import Refused
from tiltbench.records.archive import pack, sums_of
from tiltbench.records.files import strict, write_bytes
from tiltbench.records.published import Archive, Results, read, results, write
from tiltbench.records.record import Record
from tiltbench.records.recorded import is_published
from tiltbench.records.store import done_record, warn
from tiltbench.report.beside import with_beside, written
from tiltbench.report.board import boards
from tiltbench.report.frame import frames_of
from tiltbench.report.tables.markdown import markdown

PLOTS = "plots"


class Publication(NamedTuple):
    files: tuple[Path, ...]
    archive: Archive | None
    without: int  # finished runs whose draws are not there, so that their checksum is not known


def publish(
    source: Path, goal: Path, archive: Path, pages: Path, join: bool = False
) -> Publication:
    """Writes the results of `source` as the folder `goal`, and their draws as `archive`.

    With `join` the runs that `goal` has and `source` has not stay there: other seeds, other shards,
    of another day or machine (see `_joined`).  The archive is that of `source` alone.
    Of the pictures of `source` those go along that README.md or docs/ in the folder `pages` show.
    A published set may be its own source: its table.md is then written anew.  `goal` is replaced
    whole, at the end, once what was written has been read back and is equal.  Raises Refused
    where there is nothing to publish, or a run has not been scored, before anything is touched."""
    content = results(source)
    if not content.published:
        content = _whole(content, source)
    if not content.records:
        raise Refused(f"{source} holds no records of runs; run the suite first")
    bare = [r.id for r in content.records if r.status.finished and r.id not in content.scores]
    if bare:
        raise Refused(f"{len(bare)} runs of {source} are not scored; score them first")
    records = [replace(r, traceback=_anywhere(r.traceback)) for r in content.records]
    content = content._replace(records=records)
    if not content.published:
        content = content._replace(sums=sums_of(source / "runs", (r.id for r in content.records)))
        if content.sums:
            content = content._replace(archive=pack(source / "runs", content.sums, archive))
        frames = frames_of(content)
        content = content._replace(beside=written(with_beside(boards(frames), frames, source)))
    if join and is_published(goal):
        content = _joined(content, read(goal))
    fresh = goal.with_name(f".{goal.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _fill(fresh, content, goal.name)
        for name in sorted(shown(pages, goal.name)):
            if (source / PLOTS / name).is_file():
                (fresh / PLOTS).mkdir(exist_ok=True)
                shutil.copyfile(source / PLOTS / name, fresh / PLOTS / name)
            else:
                warn(f"{source / PLOTS} has no {name}, which a page shows")
        files = tuple(path.relative_to(fresh) for path in sorted(fresh.rglob("*.*")))
        _replace(goal, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    finished = [record.id for record in content.records if record.status.finished]
    return Publication(files, content.archive, sum(run not in content.sums for run in finished))


def _anywhere(trace: str) -> str:
    """A traceback whose files are named as on any machine: from the package, or the folder of
    installed ones, on; others by their name alone."""

    def named(file: re.Match[str]) -> str:
        path = file[1]
        for start in ("/site-packages/", "/src/"):
            if start in path:
                return f'File "{path.rpartition(start)[2]}"'
        return f'File "{Path(path).name}"'

    return re.sub(r'File "(/[^"]*)"', named, trace)


def _whole(content: Results, source: Path) -> Results:
    """Without the runs whose draws are cut short, which are named on stderr."""
    kept = [r for r in content.records if _sound(source / "runs" / f"{r.id}.json")]
    names = {record.id for record in kept}
    scores = {run: scored for run, scored in content.scores.items() if run in names}
    return content._replace(records=kept, scores=scores)


def _sound(path: Path) -> bool:
    return not path.with_suffix(".npz").exists() or done_record(path) is not None


def _joined(content: Results, before: Results) -> Results:
    """With the runs of `before` that are not there anew.  One table does not hold two settings of
    one method: where a target and sampler were run under other settings or another budget than
    now, the runs before are left out and counted on stderr."""
    now = {_pair(record): _but_seed(record) for record in content.records}
    have = {record.id for record in content.records}
    others = [record for record in before.records if record.id not in have]
    kept = [r for r in others if now.get(_pair(r), _but_seed(r)) == _but_seed(r)]
    if len(kept) < len(others):
        warn(f"{len(others) - len(kept)} published runs of other settings than now are left out")
    names = {record.id for record in kept}
    return content._replace(
        records=[*kept, *content.records],
        scores={**{r: s for r, s in before.scores.items() if r in names}, **content.scores},
        sums={**{run: s for run, s in before.sums.items() if run in names}, **content.sums},
        beside=_beside(content.beside, before.beside),
    )


def _beside(now: Sequence[Any], before: Sequence[Any]) -> list[Any]:
    """Of a board that both have, what the draws say that are here."""
    have = [row["board"] for row in now]
    return [*now, *(row for row in before if row.get("board") not in have)]


def _pair(record: Record) -> tuple[str, str]:
    return record.labels["target"], record.labels["sampler"]


def _but_seed(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.spec.items() if key != "seed"}


def _fill(folder: Path, content: Results, name: str) -> None:
    """The Parquet files and table.md.  Raises Refused where they cannot hold the results."""
    folder.mkdir(parents=True)
    try:
        write(content, folder)
    except ValueError as error:
        raise Refused(f"{name} cannot be published: {error}; score it again") from error
    back = read(folder)
    scores = {run: {**scored, "run": run} for run, scored in content.scores.items()}
    same = back.records == content.records and back.beside == list(content.beside)
    if not same or _lean(back.scores) != _lean(strict(scores)):
        raise Refused(f"{name} cannot be published: what is read back is not what was written")
    frames = frames_of(back)
    leaderboards = with_beside(boards(frames), frames, folder)
    write_bytes(folder / "table.md", markdown(frames, leaderboards, Path(name)).encode())


def _lean(value: Any) -> Any:
    """Without the keys whose value is null, which published scores leave out."""
    if isinstance(value, dict):
        return {key: _lean(inner) for key, inner in value.items() if inner is not None}
    return value


def _replace(goal: Path, fresh: Path) -> None:
    old = goal.with_name(f".{goal.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if goal.exists():
        goal.rename(old)
    fresh.rename(goal)
    shutil.rmtree(old, ignore_errors=True)


def shown(pages: Path, name: str) -> set[str]:
    """The pictures of published set `name` that README.md or a page of docs/ leads to."""
    link = re.compile(
        rf"\]\((?:\.\./)*results/published/{re.escape(name)}/{PLOTS}/([^()/]+\.png)\)"
    )
    files = [pages / "README.md", *sorted((pages / "docs").rglob("*.md"))]
    texts = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    return {picture for text in texts for picture in link.findall(text)}
