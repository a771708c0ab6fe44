"""Pictures: which are made, what they show, how samplers are distinguished."""

import math

import matplotlib.image
import pandas
import pytest
from matplotlib.figure import Figure

from tests.tools.fabricated_runs import (
    OUTCOMES,
    PLUGIN,
    edit,
    only,
    write,
)
from tiltbench.records.names import file_name
from tiltbench.report.board import Board, SamplerRow, Spent, boards, summaries
from tiltbench.report.compare import best
from tiltbench.report.frame import COLUMNS, collect
from tiltbench.report.pictures import style
from tiltbench.report.pictures.curves import learning
from tiltbench.report.pictures.plots import plots
from tiltbench.report.pictures.summary import at_largest, heat
from tiltbench.score.folder import score


def test_pictures_come_in_pixels_and_in_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "FORMATS", ("png", "pdf"))
    monkeypatch.setattr(style, "save", style.save.__wrapped__)
    with style.picture(tmp_path / "one.png", 1, 2, (2, 2)) as (_, grid):
        grid[0, 0].plot([0, 1])
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one.pdf").read_bytes().startswith(b"%PDF")


def test_ties_for_the_best_are_bold_in_the_summary_and_colours_have_one_scale():
    def rows(sampler, values):
        return [
            {
                "sampler": sampler,
                "target": "gmm9",
                "metric": "log_Z_err",
                "seed": seed,
                "value": value,
                "se": 0.1,
                "floor_mean": math.nan,
                "floor_sd": math.nan,
                "floor_n": math.nan,
                "unfit": False,
                "reason": "",
            }
            for seed, value in enumerate(values)
        ]

    near, also, far = (
        [0.1, 0.3, 0.2, 0.4, 0.2],
        [0.2, 0.2, 0.3, 0.3, 0.3],
        [5.0, 6.0, 5.5, 6.2, 5.8],
    )
    names = ["near", "also", "far"]
    scores = pandas.DataFrame(
        [r for n, v in zip(names, (near, also, far), strict=True) for r in rows(n, v)]
    )
    panel = Figure().subplots()
    cells = summaries(scores)["log_Z_err"]
    spent = Spent(*[9.0] * 8, False, False)
    board_rows = [
        SamplerRow(n, None, 5, 5, {}, {"log_Z_err": cells[n]},
            frozenset({"log_Z_err"} & ({"log_Z_err"} if n in best(cells) else set())), spent)
        for n in names
    ]  # fmt: skip
    board = Board("gmm9", 9, (), tuple(board_rows))
    heat(panel, [board], names, ("log_Z_err", "log_Z_own_err"), lambda row: "")
    shown = [text.get_weight() for text in panel.texts if text.get_text()]
    assert shown == ["bold", "bold", "normal"]
    far = panel.images[0].get_array().flatten().tolist()  # 0.2, 0.3 and 5.8 nats, of 0.1 to 10
    assert far == pytest.approx([math.log(x / 0.1) / math.log(100) for x in (0.2, 0.3, 5.8)])


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "shifted.py"
    path.write_text(PLUGIN.replace("SIZE", "1"))
    return path, {"name": f"{path}:shifted", "params": {}}


def file_names(folder):
    """The names of the pictures of a folder."""
    frames = collect(folder)
    return {path.name for path in plots(frames, boards(frames), folder, folder / "plots")}


def test_the_summary_shows_targets_with_limits_of_their_own():
    runs = pandas.DataFrame(
        [
            ("a", 2_000, "", "few calls more"),
            ("a", 9_000, "", "shown"),
            ("b", 10, "1e+08 flops", "shown"),
            ("b", 10, "1e+08 flops", "shown"),
            ("b", 10, "2 s", "less usual"),
        ],
        columns=["target", "budget", "limits", "what"],
    )
    largest = at_largest(runs)
    assert list(largest["target"]) == ["a", "b", "b"] and set(largest["what"]) == {"shown"}


def test_a_target_that_raises_in_plots_is_a_sentence(tmp_path, plugin, monkeypatch, capsys):
    path, target = plugin
    for name in ("weights", "learning"):  # which do not ask the target
        monkeypatch.setattr(f"tiltbench.report.pictures.plots.{name}", lambda *_: False)
    monkeypatch.setitem(OUTCOMES, "plain", only)
    write(tmp_path / "runs", "plain", 0, of=target)
    write(tmp_path / "runs", "exact", 0)
    score(tmp_path, jobs=1)
    edit(path, "return -0.5", "raise RuntimeError('no density today')\n        return -0.5")
    shifted = f"{file_name(target['name'])}.draws.png"  # its label here is a path
    assert file_names(tmp_path) == {"gmm9.draws.png", shifted, "summary.png"}
    assert "no contours of shifted: RuntimeError: no density today" in capsys.readouterr().err
    edit(path, "return 1 *", "raise RuntimeError('no draws either')\n            return 1 *")
    assert file_names(tmp_path) == {"gmm9.draws.png", "summary.png"}
    assert "no draws either" in capsys.readouterr().err


def test_no_two_samplers_look_alike():
    looks = list(style.looks(f"s{i:02}" for i in range(42)).values())
    assert len({(look.colour, look.marker) for look in looks}) == 42
    assert len({(look.colour, look.dash) for look in looks}) == 42
    assert len({look.colour for look in looks[:11]}) == 11
    light, dark = luminance("#ffffff"), luminance("#14181c")
    for colour in style.HUES:  # as the page tints them in either scheme
        assert (light + 0.05) / (luminance(colour, 0.0, 0.12) + 0.05) > 2.8
        assert (luminance(colour, 255.0, 0.42) + 0.05) / (dark + 0.05) > 4.5


def luminance(colour, towards=0.0, share=0.0):
    """Relative luminance (WCAG 2) of a colour mixed with black (0) or white (255)."""
    parts = [int(colour[i : i + 2], 16) * (1 - share) + towards * share for i in (1, 3, 5)]
    linear = [((c / 255 + 0.055) / 1.055) ** 2.4 if c > 10 else c / 255 / 12.92 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_learning_curve_has_panels_of_what_is_known_only(tmp_path):
    curve = {"spend": [10, 20], "metric": "energy_distance", "floor": None, "distance": [None] * 2}
    runs, look = pandas.DataFrame([{"id": "a", "sampler": "smc"}]), style.looks(["smc"])
    scores = pandas.DataFrame(columns=COLUMNS["scores"])
    path, unknown = tmp_path / "curve.png", {"log_Z_err": [None] * 2}
    assert not learning(path, runs, scores, {"a": {**curve, **unknown}}, look) and not path.exists()
    assert learning(path, runs, scores, {"a": {**curve, "log_Z_err": [0.5, 0.1]}}, look)
    narrow = matplotlib.image.imread(path).shape[1]
    assert learning(path, runs, scores, {"a": {**curve, **unknown, "distance": [0.5, None]}}, look)
    both = {"log_Z_err": [0.5, 0.1], "distance": [0.5, 0.1]}
    assert learning(path, runs, scores, {"a": {**curve, **both}}, look)
    assert matplotlib.image.imread(path).shape[1] > 1.5 * narrow
