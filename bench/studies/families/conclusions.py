"""What the study of families concludes: three sentences, every number in them computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tiltbench.studies.families.stands import FAMILIES, PairedTest, Stand, nearest

READING = "compute"
CLASSICAL = "classical"


def conclusions(stands: Sequence[Stand], tests: Sequence[PairedTest]) -> str:
    """A Markdown list.  `tests` are of pairs of families at equal compute."""
    return "\n".join(f"- {sentence}" for sentence in _sentences(stands, tests)) + "\n"


def _sentences(stands: Sequence[Stand], tests: Sequence[PairedTest]) -> Iterator[str]:
    known = [s for s in stands if s.known(READING)]
    targets = len({s.target for s in known})
    factors = _factors(known)
    classical = {s.method for s in known if s.family == CLASSICAL}
    learned = [m for m in factors if m not in classical]
    best = [next((m for m in factors if (m in classical) == of), None) for of in (True, False)]
    if best[0] and best[1]:
        yield (
            f"Classical methods are the ones to beat: over {targets} targets ({_seeds(known)}) the "
            f"worst score of `{best[0]}` is {factors[best[0]]:.1f} times the edge of the noise "
            f"floor (geometric mean), of `{best[1]}`, the best of {len(learned)} learned methods "
            f"there, {factors[best[1]]:.1f} times."
        )

    significant = [t for t in tests if t.nearer and CLASSICAL not in (t.a, t.b)]
    farther: dict[str, list[str]] = {}
    for test in significant:
        last = test.b if test.nearer == test.a else test.a
        ahead = f"{test.nearer} by a factor of {2 ** abs(test.pair.mean):.1f} (p = {test.p:.2g})"
        farther.setdefault(last, []).append(ahead)
    nearer = "; ".join(
        f"these come nearer to exact draws than {family} ({_members(known, family)}): "
        f"{', '.join(ahead)}"
        for family, ahead in farther.items()
    )
    yield "Of the learned families, at equal compute, " + (
        f"{nearer}; no other two differ significantly."
        if significant
        else "no two differ significantly."
    )
    solved = [
        target
        for target in dict.fromkeys(s.target for s in known)
        if any(
            (first := nearest([s for s in known if s.target == target], family, READING))
            and first.mean(READING) == 0
            for family in FAMILIES
            if family != CLASSICAL
        )
    ]
    named = f" ({', '.join(solved)})" if solved else ""
    yield (
        f"On {len(solved)} of {targets} targets{named} some learned method is as good as "
        f"exact draws in every score ({_seeds(known)})."
    )


def _members(stands: Sequence[Stand], family: str) -> str:
    return ", ".join(
        f"`{m}`" for m in dict.fromkeys(s.method for s in stands if s.family == family)
    )


def _seeds(stands: Sequence[Stand]) -> str:
    most = max((len(s.off[READING]) for s in stands), default=0)
    return f"{most} seed{'' if most == 1 else 's'}"


def _factors(stands: Sequence[Stand]) -> dict[str, float]:
    """2 to the mean over targets of the doublings of a method's worst score; nearest first.  Only
    methods that are there on the most targets: others have had easier ones, or harder."""
    by_method: dict[str, list[float]] = {}
    for stand in stands:
        by_method.setdefault(stand.method, []).append(stand.mean(READING))
    most = max(map(len, by_method.values()), default=0)
    means = {m: float(2 ** np.mean(offs)) for m, offs in by_method.items() if len(offs) == most}
    return dict(sorted(means.items(), key=lambda pair: pair[1]))
