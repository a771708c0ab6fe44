"""Labels that hold anything: file names, tables in every form, pictures."""

import html
import re
import string
import warnings

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure

from tests.tools.result_sets import FLOOR, put
from tiltbench.records.names import LONGEST, file_name
from tiltbench.report.board import boards
from tiltbench.report.frame import collect
from tiltbench.report.pictures import plots as pictures
from tiltbench.report.pictures.plots import plots
from tiltbench.report.pictures.style import plain
from tiltbench.report.tables.grid import code, frame_grid, grid, sentence, text
from tiltbench.report.tables.latex import latex
from tiltbench.report.tables.markdown import markdown

TARGETS = [
    "a b", "a/b", "A b", "a_b", "50% $x_1$ & #1 {q} ~^\\n", "</script><b>x</b>", "π|µ 日本 🙂",
    "$\\frac{$ unbalanced", "x" * 500, "x" * 250 + "y" + "x" * 249, "..", "con", "\\|",
]  # fmt: skip
SAMPLERS = ["s$m_c", "</td>|`x`&%", "\"q\",'=1+1'", "_hidden", "a\nb"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every sampler on the first targets, one on the others."""
    folder = tmp_path_factory.mktemp("labels")
    for i, target in enumerate(TARGETS):
        for sampler in SAMPLERS if i < 2 else SAMPLERS[:1]:
            scores = {"energy_distance": (0.5, FLOOR), "log_Z_err": 0.3}
            put(folder, sampler, 0, scores, target=target, version=i)
    return folder


@pytest.fixture(scope="module")
def frames(folder):
    return collect(folder)


# --- file names ----------------------------------------------------------------------------------


def test_file_names_stay_where_they_say_everything():
    kept = ["gmm9", "many_well_mdelta", "log_variance", "lj13-2", "a.b"]
    assert [file_name(name) for name in kept] == kept
    assert file_name("ising_hs[beta=0.6,side=16]") == "ising_hs_beta=0.6_side=16"
    assert file_name("a/b") == "a_b-c14cddc0"  # the same for ever: links rest on it


def test_no_two_labels_share_a_file_where_capitals_do_not_count():
    twins = ["a[b_c=1]", "a_b[c=1]", "a_b_c=1", "a[b=1,c=2]", "a[b=1_c=2]", "a_b=1[c=2]"]
    listed = [
        *TARGETS,
        *twins,
        *(file_name(t) for t in TARGETS + twins),
        "a-12345678",
        "",
        " ",
        ".",
    ]
    labels = set(listed)
    assert len({file_name(label).casefold() for label in labels}) == len(labels)


@settings(max_examples=40)
@given(st.lists(st.text(alphabet="aA_-.[]=,/1 é", max_size=8), unique=True, max_size=30))
def test_file_names_are_short_safe_and_apart(labels):
    names = [file_name(label) for label in labels]
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.=-]*", name) and len(name) <= LONGEST
        assert not name.endswith(".")


# --- Markdown ------------------------------------------------------------------------------------


def cells_of(row):
    """The cells of a row of a table in Markdown, as GitHub reads them."""
    return [c.replace("\\|", "|") for c in re.split(r"(?<!\\)\|", row.strip())[1:-1]]


@pytest.mark.parametrize("label", [*TARGETS, *SAMPLERS, "``", "a`", "<!--", "[x](y)", "*x* _y_"])
def test_code_and_text_are_the_label_and_no_markup(label):
    line = re.sub(r"\s+", " ", label)
    for written in (code(label), text(label)):
        (cell,) = cells_of(grid([""], [[written]]).splitlines()[2])
        assert cell.strip() == written.strip()  # nothing in it ends a cell
    span = re.fullmatch(r"`([^`|\\\n]+)`", code(label))
    shown = span[1] if span else html.unescape(code(label)[len("<code>") : -len("</code>")])
    assert shown == line and html.unescape(text(label)) == line
    assert not re.search(r"[|`*$\\]|<[A-Za-z/!?]|\]\(", text(label))


def test_a_bar_or_a_new_line_ends_no_cell():
    lines = grid(["a|b", "c\nd"], [["x\\|y", "\\\\|"], ["z", "\u2028"]]).splitlines()
    assert len(lines) == 4 and all(len(cells_of(line)) == 2 for line in lines)
    frame = pandas.DataFrame({"a|": ["</td><b>", "p < .05"], "n": [1.0, float("nan")]})
    lines = frame_grid(frame)
    assert "&lt;/td>&lt;b>" in lines and "p < .05" in lines and "| – |" in lines


def test_sentences_keep_their_code_and_nothing_else():
    assert sentence("run `a --b` on <b>*x*</b> | $y$") == (
        "run `a --b` on &#60;b>&#42;x&#42;&#60;/b> &#124; &#36;y&#36;"
    )


def test_tables_of_hostile_labels_stay_tables(frames, folder):
    page = markdown(frames, boards(frames), folder)
    width = 0
    for line in page.splitlines():
        if line.startswith("|"):
            cells = len(cells_of(line))
            assert cells == (width or cells), line
            width = cells
        else:
            width = 0
    overview = page[page.index("| sampler |") :].splitlines()
    heads = [html.unescape(head.strip()) for head in cells_of(overview[0])[1:]]
    assert sorted(heads) == sorted(TARGETS)
    outside = re.sub(r"`[^`\n]*`|<code>|</code>|</?details>|</?summary>", "", page)
    assert not re.search(r"<[A-Za-z/!?]|\$", outside)


def test_labels_in_latex_are_escaped_and_no_two_tables_share_one(frames):
    tables = latex("a/b $x$", boards(frames))
    labels = re.findall(r"\\label\{(.*?)\}", tables)
    assert len(labels) == len(set(labels)) > len(TARGETS)
    assert set("".join(labels)) <= set(string.ascii_letters + string.digits + "_.=-:")
    assert tables.isascii() and r"\textbackslash{}frac\{\$ unbalanced" in tables


# --- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [*TARGETS, *SAMPLERS, "\\$", "$a$", "$$", ""])
def test_matplotlib_reads_no_formula_and_knows_every_sign(label):
    shown = plain(label)
    assert shown and not is_math_text(shown) and "\n" not in shown
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a sign that the font lacks
        figure = Figure((1, 1))
        figure.text(0, 0, shown)
        figure.draw_without_rendering()
    if len(label) < 30 and label.isascii() and label.isprintable():
        assert shown.replace("\\$", "$") == (label or "(no name)")


def test_long_labels_that_differ_in_the_middle_stay_apart():
    assert len({plain(target) for target in TARGETS}) == len(TARGETS)


def test_every_target_has_its_own_picture(frames, folder, monkeypatch, capsys):
    for name in ("scatter", "weights", "learning"):  # what they draw is looked at elsewhere
        monkeypatch.setattr(pictures, name, lambda *_: True)
    paths = plots(frames, boards(frames), folder, folder / "plots")
    assert len({str(path).casefold() for path in paths}) == len(paths) == 3 * len(TARGETS) + 1
    assert (folder / "plots" / "summary.png").exists() and not capsys.readouterr().err
    assert all(path.parent == folder / "plots" for path in paths)
