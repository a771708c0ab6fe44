"""What a run ends with: who leads, in a few lines, whatever is known and whatever finished."""

import math

from tiltbench.report.board import Board, SamplerRow, Spent
from tiltbench.report.compare import FloorStatus, ScoreSummary
from tiltbench.report.ranks import Judged, Off, Ranks
from tiltbench.report.standings import SHOWN, conclusion, leaderboard, remarks, standings

NAN = math.nan


def row(sampler, rank, at=False, finished=2, ends=None, seeds=2, metric="energy_distance", off=3.0):
    verdict = FloorStatus.AT if at else FloorStatus.ABOVE
    scores = (1.0,) * seeds
    cell = ScoreSummary(1.0, 1.0, 1.0, NAN, 0.5, 0.1, verdict, tuple(range(seeds)), scores)
    calls = 4e4 if finished else NAN
    spent = Spent(calls, calls, 0.0, 0.0, 0.0, 1.0, 0.0, 100.0, False, False)
    ranks = None if rank is None else Ranks(rank, rank)
    runs = finished + sum((ends or {}).values())
    cells = {metric: cell} if finished else {}
    score = Off("distance", metric, 0.0 if at else off)
    judged = None if rank is None else Judged((score,), ())
    return SamplerRow(sampler, ranks, runs, finished, ends or {}, cells, frozenset(), spent, judged)


def gone(sampler, status):
    return row(sampler, None, finished=0, ends={status: 2})


def trained(name, rank, off):
    base = row(name, rank)
    judged = Judged((Off("distance", "energy_distance", off), Off("energies", "obs_b2", 2.0)), ())
    return base._replace(judged=judged, spent=base.spent._replace(parameters=9.0))


def board(target, *rows, budget=40_000):
    return Board(target, budget, (), rows)


def test_samplers_stand_by_their_mean_rank():
    leaderboards = [
        board(
            "a", row("x", 1, at=True), row("y", 2), row("z", None, finished=0, ends={"failed": 2})
        ),
        board("b", row("x", 2), row("y", 1), row("z", 3)),
        board("c", row("x", 1), gone("y", "unsupported"), row("z", 2)),
    ]
    x, y, z = standings(leaderboards)
    assert (x.sampler, x.rank, x.boards, x.floor) == ("x", 4 / 3, 3, 1)
    assert (y.sampler, y.rank, y.boards) == ("y", 1.5, 2), "what does not apply counts for nothing"
    assert (z.rank, z.finished, z.runs) == ((3 + 3 + 2) / 3, 4, 6), "what failed comes last"
    text = " ".join(leaderboard(leaderboards).split())
    assert "x ranks first (mean rank 1.3); some sampler is as good as exact draws in every" in text
    assert (
        "score on 1 of 3 targets (2 seeds; significance" in text and "1 of 3 1 6 of 6 40k" in text
    )
    assert "exact draws ≤ 1× 3 of 3 3" in text and "x 1.3 8.0× 1 of 3" in text


def test_a_tie_at_the_floor_has_two_leaders_and_five_seeds_need_no_warning():
    leaderboards = [board("a", row("x", 1, True, 5, seeds=5), row("y", 1, True, 5, seeds=5))]
    assert "✗" not in leaderboard(leaderboards)
    (*_, conclusion) = leaderboard(leaderboards).splitlines()
    assert (
        conclusion == "x and y rank first; some sampler is as good as exact draws in every score."
    )


def test_one_sampler_has_nobody_beside_it():
    text = leaderboard([board("a", row("x", 1))])
    assert "x has no sampler to be compared with; no sampler is as good as exact draws" in text


def test_nothing_finished_and_nothing_known():
    failed = [board("a", row("x", None, finished=0, ends={"failed": 3}))]
    assert "0 of 3" in leaderboard(failed)
    assert "No run has finished, so there is nothing to compare" in leaderboard(failed)
    unknown = [board("a", row("x", None, metric="ess_model"), row("y", None, metric="ess_model"))]
    assert "No ranks: no target here has a truth" in leaderboard(unknown)
    assert conclusion([], [], 0).startswith("No run has finished")


def test_many_samplers_with_long_names_stay_short_and_narrow():
    long = "adjoint_sampling[model=Equivariant[width=32,rounds=1],reference=Stationary,lr={}]"
    many = [board(f"t{k}", *(row(long.format(i), i + 1) for i in range(30))) for k in range(9)]
    lines = leaderboard(many).splitlines()
    assert len(lines) <= SHOWN + 7 and max(map(len, lines)) <= 100
    assert "... and 20 more" in lines and "lr=0]" in lines[1]


def test_what_is_not_better_than_the_base_is_counted_and_explained():
    worse = row("y", 2)._replace(behind="in its worst score")
    text = leaderboard([board("a", row("x", 1), worse), board("b", row("x", 1), worse)])
    head, x, y, exact, *_ = text.splitlines()
    assert head.split()[-3:] == ["✗", "finished", "calls"] and exact.startswith("exact draws")
    assert y.split()[-5:] == ["2", "4", "of", "4", "40k"] and x.split()[-5] == "0"
    assert "✗: on how many targets not better than the untrained base" in " ".join(text.split())


def test_the_untrained_base_is_shown_wherever_it_stands():
    names = [*(f"s{i}" for i in range(SHOWN + 3)), "untrained"]
    lines = leaderboard([board("a", *(row(n, k + 1) for k, n in enumerate(names)))]).splitlines()
    shown = [line.split()[0] for line in lines[1 : SHOWN + 2]]
    assert shown == [*names[: SHOWN - 1], "untrained", "exact"] and "... and 4 more" in lines


def test_a_sentence_on_what_trains_a_network():
    on = [board("a", row("smc", 1), trained("x", 2, 0.0), trained("y", 3, 1.0))]
    on.append(board("b", row("smc", 1), trained("x", 2, 0.5), trained("y", 3, 1.0)))
    text = " ".join(leaderboard(on).split())
    assert "within the noise floor for 1 of 2 on a, 0 of 2 on b; x ranks first among them" in text
    assert "train a network" not in leaderboard([board("a", row("smc", 1), trained("x", 2, 0.0))])


def test_of_many_targets_those_are_named_where_no_trained_method_is_near():
    leaderboards = [
        board(f"t{k}", trained("x", 1, 0.0 if k < 4 else 1.0), trained("y", 2, 1.0))
        for k in range(6)
    ]
    text = " ".join(remarks(leaderboards))
    assert "within the noise floor for some on 4 of 6 targets, for none on t4, t5; x ranks" in text
    text = " ".join(remarks(leaderboards[:5]))
    assert "for 1 of 2 on t0, 1 of 2 on t1, 1 of 2 on t2, 1 of 2 on t3, 0 of 2 on t4; x" in text


def test_a_table_of_fewer_calls_is_not_mixed_in():
    """Two in a small table would have ranks 1 and 2, before the second of ten."""
    whole = board("a", *(row(f"s{k}", k + 1) for k in range(4)))
    small = board("a", row("mala at 1,000", 2), row("untrained at 1,000", 1), budget=1_000)
    text = leaderboard([whole, small])
    assert [line.split()[0] for line in text.splitlines()[1:6]] == ["s0", "s1", "s2", "s3", "exact"]
    assert "fewer calls, not compared here: mala at 1,000 and untrained at 1,000" in text
    assert "exact draws" in text and "1 of 1" in text
