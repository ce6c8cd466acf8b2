"""What questions, their types and their answers are called changes no number, no type and no page."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

import make_figure
import make_table
import support.report_files
from safemed.data.audit import CAPTIONS
from safemed.report import html, inputs
from safemed.report.products import FIGURES, TABLES
from support.hostile import IDS, MARKUP, MODALITIES, TYPE, renamed
from support.report_files import arguments, write_inputs


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> tuple:
    """The folder of a report, of rows under hostile names, with all tables and figures, and its inputs."""
    out, write = tmp_path_factory.mktemp("hostile"), support.report_files._written
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(support.report_files, "_written", lambda rows, folder: write(renamed(rows), folder))
        patch.setattr(support.report_files, "BASELINES", renamed(support.report_files.BASELINES))
        files = write_inputs(out)
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        save = make_figure.style.save
        patch.setattr(make_figure.style, "save", lambda figure, *rest: drawn.append(figure) or save(figure, *rest))
        for product, script in [(p, make_table) for p in TABLES] + [(p, make_figure) for p in FIGURES]:
            script.main(arguments(product, files, out))
    return out, files, drawn


def test_every_table_is_read_as_its_function_made_it(hostile):
    out, files, _ = hostile
    for table in TABLES:
        made = inputs.call(inputs.parser("").parse_args(arguments(table, files, out)))
        read = inputs.read_table(out / "tables" / f"{table.name}.csv")
        texts = made.select_dtypes(exclude=["number", "bool"]).columns
        pd.testing.assert_frame_equal(read, made.fillna(dict.fromkeys(texts, "")), check_exact=True, check_dtype=False)
    parts = inputs.read_table(out / "tables" / "robustness_by_part.csv").groupby("kind").part.agg(set)
    assert parts.to_dict() == {"modality": set(MODALITIES), "question_type": {TYPE}}


def test_every_figure_is_drawn_with_the_names_as_they_are(hostile):
    out, _, drawn = hostile
    assert all((out / "figures" / f"{figure.name}.png").stat().st_size > 1000 for figure in FIGURES)
    said = [text.get_text() for figure in drawn for text in figure.findobj(match=lambda a: hasattr(a, "get_text"))]
    for name in (*MODALITIES, TYPE):
        assert any(name in text for text in said), name
    assert any("$\\frac{$" in text for text in said)
    assert not any("\n" in text for text in said if TYPE in text and "gold" in text)


def test_a_figure_s_numbers_keep_the_questions_names(hostile):
    out, _, _ = hostile
    shown = pd.read_csv(out / "figures" / "thoughts.csv", dtype=str, keep_default_na=False)
    assert set(shown.question_id) <= {*IDS, "-"} and set(shown.clean_text) == {MARKUP} == set(shown.text)


def test_a_name_that_is_no_formula_is_drawn(tmp_path):
    figure = Figure()
    figure.subplots().set_title("$x_{$ and $\\frac{$")
    make_figure.style.save(figure, pd.DataFrame({"x": [1]}), tmp_path / "drawn")
    assert (tmp_path / "drawn.pdf").stat().st_size > 1000


def test_the_audit_s_page_shows_markup_and_does_not_hold_it():
    table = pd.DataFrame({"part": [MARKUP, TYPE], MARKUP: [1.0, 2.0]})
    page = html.page(MARKUP, CAPTIONS, dict.fromkeys(CAPTIONS, table))
    assert page.count("<script") == 1 and "<img" not in page and "&lt;script&gt;" in page
    assert page.count("<td>None</td>") == len(CAPTIONS)
