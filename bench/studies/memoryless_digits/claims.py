"""What digits say of memoryless noise: the figures of one noise, and the verdicts."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from tiltbench.samplers.weights import Estimate
from tiltbench.score.floor import Floor
from tiltbench.studies.memoryless.study import ODE
from tiltbench.studies.memoryless_digits.coupled import Memory, Shares
from tiltbench.study import Claim, verdict

STARVED = 0.02  # share of X_0 with too few siblings, from which their draws say little


class Seen(NamedTuple):
    """Of draws."""

    hits: Estimate  # share of them that are what is asked for
    reward: Estimate
    diversity: Estimate


class Row(NamedTuple):
    target: str
    noise: str
    memory: Memory
    gaussian: float  # corr(X_0, X_1) of a Gaussian base of the same rms
    ends: Estimate  # energy distance of the base's ends to the memoryless chain's
    coupling: Estimate | None  # Var Z(X_0) / Z^2; None without noise, as all of the optimum is
    starved: float  # share of X_0 with too few siblings for the optimum's draw; nan without noise
    best: Estimate | None  # energy distance of the optimum's draws to the tilt
    shares: Shares | None  # of the digits, at the optimum
    floor: Floor  # what draws of the tilt score
    exact: Tensor  # draws of the tilt of this chain's own ends
    tilt: Seen  # of them
    x: Tensor  # draws after training
    trained: Seen
    distance: Estimate  # to the tilt
    log_Z_err: Estimate | None  # by path weights, to the tilt of this chain's own ends

    @property
    def sds(self) -> float:
        """How far the optimum is above the floor, in its sd."""
        assert self.best is not None
        return (self.best.value - self.floor.mean) / self.floor.sd

    @property
    def above(self) -> Estimate:
        """How far the trained draws are above the floor."""
        far, floor = self.distance, self.floor
        return Estimate(far.value - floor.mean, math.hypot(far.se, floor.sd), far.n)


def claims(found: list[Row]) -> tuple[Claim, ...]:
    def of(noise: str) -> list[Row]:
        return [row for row in found if row.noise == noise]

    quiet, loud, ode = of("memoryless") + of("regularised"), of("sigma = 1"), of(ODE)
    calm, told = quiet[0].memory.any, loud[0].memory.any
    worst = max(quiet, key=lambda row: abs(_z(row.coupling)))
    bound = min(loud, key=lambda row: _z(row.coupling))
    fed = [row for row in loud if row.starved < STARVED]
    best = max(quiet, key=lambda row: row.sds)
    even = next(row for row in loud if row.target == "digits_even")
    wrong = _furthest(even)
    still = _furthest(next(row for row in quiet if row.target == "digits_even"))
    pairs = [(m, row) for m in of("memoryless") for row in loud + ode if row.target == m.target]
    gaps = [_z(minus(row.distance, m.distance)) for m, row in pairs]
    weighed = [row for row in found if row.log_Z_err is not None]
    z = max((_z(row.log_Z_err) for row in weighed), key=abs)
    return (
        Claim(
            "With sigma = 1 the images remember X_0, with memoryless noise they do not",
            verdict(told > 0.3 and calm < 0.05, told < 0.1 or calm > 0.1),
            f"corr(X_0, X_1) with any function: sigma = 1 {told:.3f}, memoryless {calm:.3f}; "
            f"a Gaussian's: {loud[0].gaussian:.3f} and {quiet[0].gaussian:.3f}.",
        ),
        Claim(
            "On a memoryless base the optimum of the control problem ends in the tilt",
            verdict(best.sds < 4 and abs(_z(worst.coupling)) < 4, best.sds > 6),
            f"{len(quiet)} optima, memoryless and regularised: the farthest {best.sds:+.1f} sd of "
            f"the floor from it ({best.target}, {best.noise}); the coupling most off 0 is "
            f"{pm(worst.coupling)} ({worst.target}, {worst.noise}).",
        ),
        Claim(
            "With sigma = 1 how good an end X_0 can hope for depends on X_0, so that the optimum "
            "must end elsewhere",
            verdict(_z(bound.coupling) > 6, abs(_z(bound.coupling)) < 2),
            "coupling: " + ", ".join(f"{row.target} {pm(row.coupling)}" for row in loud) + ".",
        ),
        Claim(
            f"and {found[0].floor.n:,} draws show it in the energy distance",
            verdict(
                bool(fed) and all(row.sds > 6 for row in fed),
                bool(fed) and all(row.sds < 2 for row in fed),
            ),
            "optimum above the floor, in its sd (share of X_0 with too few siblings; not judged "
            f"from {STARVED:g} on): "
            + ", ".join(f"{row.target} {row.sds:+.1f} ({row.starved:.2f})" for row in loud)
            + ".",
        ),
        Claim(
            "and in the shares of the even digits, by all weights",
            verdict(abs(wrong[1]) > 6, abs(wrong[1]) < 3),
            f"of 5, the furthest is {wrong[0]} (z = {wrong[1]:+.1f}); memoryless: {still[0]} "
            f"(z = {still[1]:+.1f}).",
        ),
        Claim(
            "Trained with sigma = 1 or without noise, draws end further from the tilt than with "
            "memoryless noise",
            verdict(min(gaps) > 3, max(gaps) < -3),
            "trained, above the floor: "
            + ", ".join(
                f"{row.target}, {row.noise} {pm(row.above, 4)}"
                for row in of("memoryless") + loud + ode
            )
            + f"; the differences to memoryless are {min(gaps):+.1f} to {max(gaps):+.1f} standard "
            "errors.",
        ),
        Claim(
            "Path weights find log Z whatever the noise",
            verdict(abs(z) < 3, abs(z) > 5),
            f"{len(weighed)} trained controls with noise: the worst error is {z:+.1f} standard "
            "errors.",
        ),
    )


def _z(estimate: Estimate | None) -> float:
    assert estimate is not None
    return estimate.value / estimate.se


def _furthest(row: Row) -> tuple[str, float]:
    """The even digit whose share at the optimum is most errors off, in words, and its z."""
    assert row.shares is not None
    even = row.shares.z[::2].abs().nan_to_num(0.0)
    digit = 2 * int(even.argmax())
    said = f"{digit}, {row.shares.optimum[digit]:.4f} for {row.shares.tilt[digit]:.4f}"
    return said, float(row.shares.z[digit])


def minus(a: Estimate, b: Estimate) -> Estimate:
    return Estimate(a.value - b.value, math.hypot(a.se, b.se), a.n)


def pm(estimate: Estimate | None, digits: int = 3) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:.{digits}f} ± {estimate.se:.{digits}f}"
