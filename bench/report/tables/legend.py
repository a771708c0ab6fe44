"""How a leaderboard is read: its marks, its numbers, and the sentences that explain them."""

from __future__ import annotations

import math

from tiltbench.report.compare import Verdict

MARK = {Verdict.AT: "≈ ", Verdict.BELOW: "▼ ", Verdict.FEW: "∼ "}
ARROW = {"lower": "↓", "higher": "↑"}
FAR = 10  # times the upper edge of its floor: the place does not see such a score
SIDES = {
    "log_Z_err": "forward",
    "log_Z_rev_err": "reverse",
    "log_Z_bar_err": "Bennett",
    "log_Z_own_err": "own",
}
LEGEND = f"""\
Each score is the median over seeds [smallest, largest]; `±` is a run's own standard error, \
`| a±b` what exact draws score (the floor: mean and sd over 20 pairs of exact sets of that size). \
`≈` at the floor, within 2 sd: such scores are not ranked against each other. `▼` more than 2 sd \
*below* it (correlated draws, contracted tails): never best. `∼` within a floor that is wider \
because it is of fewer draws (`n`) than others in the column have: no tie with those at the floor, \
never bold, and in its place no better than the upper edge of that floor. *(grey)* the floor is \
too noisy to rank by. `–` no number, for the reason below the table. ↓ smaller is better, ↑ \
larger. \
**Bold**: not told apart from the best (paired t over seeds, Holm, 5 %), with five seeds or more; \
never for scores that know nothing of the truth (ess_model), nor in a row with `†`. \
Place: by the energy distance in the table (config_w2 of particles; the median of log_Z_err, \
without its sign, where there are no exact draws); all at the floor (`≈`) share the first, nothing \
else ties; none for a score below the floor (`▼`) or a method of which a run did not train for a \
single step. `†` the score of the place hardly sees what another distance between the laws does, \
which is more than {FAR} times the upper edge of its floor; below the table it says which. \
Then the place with a gradient priced at 2 values: where that bill exceeds the \
allowance, the score is increased by what the learning curve (fewer draws than the table) loses \
when it is cut off where the bill meets the allowance; `⇄` marks a change. \
Calls: the larger of values and gradients in training, which may be far below the allowance; `°` \
the method had a smaller budget of its own. Spent: evaluations of the target in training and, \
apart from it, in drawing; `⚠` drawing took more points than training. \
Errors of log Z: forward from a method's own paths, reverse from paths traced back from exact \
draws, Bennett from both; own, what the method states. \
obs_z and obs_b2 at the floor say only that the error bar covers the truth: one made wide by a few \
draws that carry all the weight does so too."""

PHYSICS = """\
Of particles and lattices: energy_w2 (nats) compares one energy a draw, distance_w2 interatomic \
distances, config_w2 configurations whatever their names and pose (bounded from above for more \
than five particles, by 100 draws a side). No sampler needs to mix over names and pose: places go \
by config_w2, and energy_distance, mmd and w2 give every draw of particles random ones first, as \
exact draws have. These three then see mostly pose and little of shape: to be at their floor says \
little. config_w2 hardly sees two particles that overlap, which energy_w2 is made of: hence `†`. \
magnetisation_err is 1 where one of two phases is lost; two_point_err and energy_w2 do not see \
that."""


def number(value: float) -> str:
    """Three digits."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def brief(calls: float) -> str:
    """A count of calls in three or four characters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if calls >= size:
            return f"{calls / size:.{0 if calls >= 9.95 * size else 1}f}{letter}"
    return "–" if math.isnan(calls) else f"{calls:.0f}"
