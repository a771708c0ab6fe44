"""File names of labels, which may hold anything: slashes, quotes, 500 letters, other scripts."""

from __future__ import annotations

import hashlib
import re

LONGEST = 80  # letters; with an ending all file systems take it
KEPT = 40  # of a name that cannot be kept whole
WORD = r"[a-z0-9][a-z0-9_.-]*"
PLAIN = re.compile(WORD)
# as the suites write them; without "_" in keys and values the brackets can be split from the name
PARAMETERS = re.compile(rf"{WORD}\[[a-z0-9.-]+=[a-z0-9.+-]+(,[a-z0-9.-]+=[a-z0-9.+-]+)*\]")
HASHED = re.compile(r".*-[0-9a-f]{8}")  # looks like a name that was made from another label
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")  # by Windows


def file_name(label: str) -> str:
    """The name of files about `label`, without an ending: the same on every machine and in every
    folder, two for any two labels, also where upper and lower case are one.

    `gmm9` stays as it is and `ising_hs[beta=0.6]` becomes `ising_hs_beta=0.6`.  Where cleaning
    loses something (signs that a file system or a link may not take, capitals, what is beyond 80
    letters) eight digits of the label's SHA-256 follow: `a/b` is `a_b-c14cddc0`."""
    if PLAIN.fullmatch(label) or PARAMETERS.fullmatch(label):
        name = label.translate({ord("["): "_", ord(","): "_", ord("]"): None})
        odd = HASHED.fullmatch(name) or RESERVED.fullmatch(name) or name.endswith(".")
        if len(name) <= LONGEST and not odd:
            return name
    cleaned = re.sub(r"[^A-Za-z0-9.=-]+", "_", label).strip("_.=-")[:KEPT]
    return f"{cleaned or 'label'}-{_digest(label)[:8]}"


def short(label: str, most: int) -> str:
    """A label on one line of at most `most` characters; where its middle is left out, four digits
    of its SHA-256 tell it from others."""
    line = " ".join(label.split())
    if len(line) <= most:
        return line
    end = (most - 7) // 3
    return f"{line[: most - 7 - end]}…{line[-end:]} #{_digest(label)[:4]}"


def _digest(label: str) -> str:
    return hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()
