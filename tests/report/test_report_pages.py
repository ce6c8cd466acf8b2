"""The documentation of tables and figures: all columns of the docstrings, shown as they are written."""

import pytest

from safemed.report import report_pages

DOCSTRING = """How right each model is: one row of ACCURACY for each model and attack. Shares are in [0, 1].

    rows: ATTACK_ROWS.

    Columns:
    model, attack: which model, under which attack, |delta| <= eps.
    accuracy: the share of `n`
        that is right: of ALL of them, a*b.

    Raises ValueError.
    """


def test_a_table_has_a_row_for_each_entry_and_its_first_sentence_without_the_code_s_names():
    page = report_pages.tables({"accuracy": DOCSTRING})
    assert "## accuracy.csv\n\nHow right each model is. Shares are in \\[0, 1\\].\n" in page
    assert "| `model`, `attack` | which model, under which attack, \\|delta\\| \\<= eps. |" in page
    assert "| `accuracy` | the share of `n` that is right: of ALL of them, a\\*b. |" in page
    assert "Raises" not in page and "ATTACK_ROWS" not in page


def test_a_docstring_without_columns_is_refused():
    with pytest.raises(ValueError, match="Columns"):
        report_pages.columns("A table.")


def test_a_figure_has_its_caption():
    page = report_pages.figures({"curve": "Accuracy against x_1.\nBands are intervals.\n"})
    assert "## curve\n\nAccuracy against x\\_1.\nBands are intervals.\n" in page
