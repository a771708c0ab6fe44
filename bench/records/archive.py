"""The draws of a published set: one tar file, outside the repository, with a checksum inside it.

The same files make the same bytes: names in order, no times, no owners.  Unpacking writes arrays of
the runs that the set records, under names made here, and nothing else.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tiltbench.plan.errors import Refused
from tiltbench.records.files import replacing, write_bytes
from tiltbench.records.published import Archive

SUFFIXES = {"draws": ".npz", "curve": ".curve.npz"}
MEMBER = re.compile(r"runs/([0-9a-f]{16})(\.npz|\.curve\.npz)")

Sums = dict[str, dict[str, str]]  # by run: the SHA-256 of its files, by a key of SUFFIXES


def sums_of(runs: Path, names: Iterable[str]) -> Sums:
    """The SHA-256 of the arrays of these runs; nothing of a run that has none here."""
    sums: Sums = {}
    for run in names:
        for kind, suffix in SUFFIXES.items():
            path = runs / f"{run}{suffix}"
            if path.is_file():
                sums.setdefault(run, {})[kind] = sha256(path)
    return sums


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(runs: Path, sums: Mapping[str, Mapping[str, str]], archive: Path) -> Archive:
    """Writes the files that `sums` names, of a runs folder, as `archive`."""
    with replacing(archive) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for run in sorted(sums):
                for kind in sorted(sums[run]):
                    name = f"{run}{SUFFIXES[kind]}"
                    data = runs / name
                    member = tarfile.TarInfo(f"runs/{name}")
                    member.size, member.mode = data.stat().st_size, 0o644
                    with data.open("rb") as file:
                        tar.addfile(member, file)
    return Archive(archive.name, sha256(archive), archive.stat().st_size)


def unpack(
    archive: Path, expected: Archive, sums: Mapping[str, Mapping[str, str]], runs: Path
) -> None:
    """Writes the arrays of an archive into a runs folder.

    Raises Refused where it is not the archive that the published set names, byte for byte, or holds
    anything but the arrays that `sums` lists, whole; nothing outside `runs` is ever written."""
    if not archive.is_file():
        raise Refused(f"there is no file {archive}; the draws are in an archive {expected.name}")
    actual = sha256(archive)
    if actual != expected.sha256:
        raise Refused(
            f"{archive} is not the archive of these results: its SHA-256 is {actual}, and theirs "
            f"is {expected.sha256} ({expected.name}, {expected.bytes:,} bytes)"
        )
    wanted = {
        f"runs/{run}{SUFFIXES.get(kind, '?')}": digest
        for run, digests in sums.items()
        for kind, digest in digests.items()
    }
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                name = MEMBER.fullmatch(member.name)
                digest = wanted.pop(member.name, None)
                file = tar.extractfile(member) if name and digest and member.isreg() else None
                if name is None or file is None:
                    raise Refused(f"{archive} holds {member.name!r}, no draws of a run published")
                data = file.read()
                if hashlib.sha256(data).hexdigest() != digest:
                    raise Refused(f"{archive} holds other draws than those published of {name[1]}")
                write_bytes(runs / f"{name[1]}{name[2]}", data)
    except (tarfile.TarError, EOFError) as error:
        raise Refused(f"{archive} is no whole tar file ({error}); fetch it again") from error
    if wanted:
        raise Refused(f"{archive} lacks {len(wanted)} files of draws, {min(wanted)} among them")
