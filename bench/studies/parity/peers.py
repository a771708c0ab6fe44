"""The peers' own code run for 90 CPU-seconds, as rows of the table: what `quality` compares."""

from __future__ import annotations

from collections.abc import Iterator

from tiltbench.studies.parity.rows import Agreement
from tiltbench.studies.quality.study import (
    BestMethod,
    Figure,
    Peer,
    PeerResult,
    best_of,
    compared,
    peers,
    stored_runs,
    whole,
)

FIRST = 18  # the number of the first of these rows in the design
SOURCE = "R"  # of published.toml
AGREEMENT = {
    PeerResult.BETTER: Agreement.BETTER,
    PeerResult.EVEN: Agreement.MET,
    PeerResult.WORSE: Agreement.WORSE,
}


def peer_lines() -> Iterator[dict[str, str | float]]:
    """A line a figure, a row a run of a peer; ours is the best method of the quality suites."""
    try:
        runs = stored_runs()
    except FileNotFoundError:
        runs = None
    for number, peer in enumerate(peers(), FIRST):
        best = runs and best_of(*runs, peer.target)
        if best:
            yield from _compared_lines(number, peer, best)
        else:
            yield _line(number, peer, f"**{Agreement.NOT_RUN}**")


def _compared_lines(number: int, peer: Peer, best: BestMethod) -> Iterator[dict[str, str | float]]:
    figures = compared(peer, best)
    row_is = f"**{AGREEMENT[whole(figures)]}**"
    head = _line(number, peer, row_is, best)
    for figure in figures:
        yield {**head, **_figure(figure)}
        head = dict.fromkeys(head, "")


def _line(
    number: int, peer: Peer, row_is: str, best: BestMethod | None = None
) -> dict[str, str | float]:
    return {
        "row": str(number),
        "source": SOURCE,
        "target, method": f"{peer.target}, {peer.run}",
        "figure": "",
        "published": "",
        "ours": "",
        "seeds": str(best.elbo_gap.seeds) if best else "",
        "figure is": "",
        "row is": row_is,
        "CPU-minutes a run": f"{best.cpu_seconds / 60:.1f}" if best else "",
        "differences": SOURCE if best else "",
    }


def _figure(figure: Figure) -> dict[str, str | float]:
    result = AGREEMENT.get(figure.standing, figure.standing)
    return {
        "figure": figure.name,
        "published": figure.theirs,
        "ours": figure.ours,
        "figure is": str(result),
    }
