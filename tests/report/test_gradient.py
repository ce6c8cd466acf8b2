"""The tables and the figure of revealed evidence, against cases counted by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from safemed.data.prompts import FAILED
from safemed.report.figures.gradient import gradient as draw
from safemed.report.tables.gradient import (
    ESTIMATORS,
    GRADIENT,
    GRADIENT_SUMMARY,
    REVEAL_ROWS,
    gradient,
    gradient_summary,
)
from safemed.utils.ranking import auroc_difference, auroc_interval
from support.reveal_rows import SHARES, every_reveal, reveal_rows

KEYS = ["order", "estimator", "share"]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    return gradient(rows).set_index(KEYS).sort_index()


def with_one(question: str, share: float, order: str = "seeded", **changes) -> pd.DataFrame:
    """The rows with one of them changed."""
    rows = reveal_rows()
    one = (rows.question_id == question) & (rows.share == share) & (rows.order == order)
    assert one.sum() == 1
    rows.loc[one, list(changes)] = list(changes.values())
    return rows


def test_accuracy_is_that_of_the_text_and_for_p_a_that_of_the_vote():
    found = table(reveal_rows())
    for estimator in ESTIMATORS:
        shown = [found.loc["seeded", estimator, share].accuracy for share in SHARES]
        assert shown == ([2 / 5, 3 / 5, 4 / 5] if estimator == "p_A" else [1 / 5, 2 / 5, 3 / 5])
    assert (found.loc["seeded"].n == 5).all() and (found.loc["lesion-last"].n == 4).all()
    assert found.loc["lesion-last", "letter", 1.0].accuracy == found.loc["lesion-last", "letter", 1.0].seeded == 3 / 4
    assert (found.status == "complete").all()


def test_an_answer_that_names_no_option_is_wrong_and_has_no_confidence():
    found = table(reveal_rows()).loc["seeded"]
    one = found.loc["letter", 0.2]
    assert (one.accuracy, one.answered, one.n_wrong) == (1 / 5, 4 / 5, 3) and one.confidence == pytest.approx(0.2)
    assert found.loc["p_A", 0.2].answered == 4 / 5 and found.loc["p_A", 1.0].answered == 1


def test_a_confidence_that_is_constant_ranks_nothing_and_one_that_knows_ranks_all():
    found = table(reveal_rows()).loc["seeded"]
    assert (found.loc["agreement"].auroc == 0.5).all() and (found.loc["letter"].auroc == 0.5).all()
    assert (found.loc["noise"].auroc == 1).all() and (found.loc["entropy"].auroc == 0).all()
    assert (found.loc["noise"].beyond == 0.5).all() and (found.loc["p_A"].beyond == 0.5).all()
    assert found.loc["letter"].beyond.isna().all() and (found.loc["agreement"].beyond == 0).all()
    assert found.loc["agreement", 1.0].auprc == 3 / 5 and (found.loc["noise"].auprc == 1).all()
    right = [True, True, True, False, False]
    low, high = auroc_interval(right, [0.5] * 5, range(5))
    assert found.loc["agreement", 1.0][["auroc_low", "auroc_high"]].tolist() == [low, high]
    assert found.beyond_low.isna().all()  # of five images


def test_a_difference_has_the_interval_of_the_same_questions():
    rows = pd.concat(
        [reveal_rows().assign(**{name: reveal_rows()[name] + f"-{i}" for name in ("question_id", "image_path")})
         for i in range(12)], ignore_index=True,
    )  # fmt: skip
    found, one = table(rows).loc["seeded", "p_A", 1.0], rows[(rows.order == "seeded") & (rows.share == 1.0)]
    own, letter = (one.vote_outcome == "right", one.p_A), (one.outcome == "right", one.letter)
    assert (found.beyond_low, found.beyond_high) == auroc_difference(own, letter, one.image_path) == (0.5, 0.5)


def test_correlations_are_of_the_shares():
    rows = reveal_rows()
    found = table(rows).loc["seeded"]
    accuracy, confidence = ([0.2, 0.4, 0.6], [0.2, 0.6, 1.0])
    assert found.loc["letter"].pearson.tolist() == pytest.approx([np.corrcoef(accuracy, confidence)[0, 1]] * 3)
    assert found.loc["letter"].spearman.tolist() == pytest.approx([1] * 3)
    assert found.loc["entropy"].spearman.tolist() == pytest.approx([-1] * 3)
    assert found.loc["agreement"][["pearson", "spearman"]].isna().all(axis=None)  # constant
    assert table(rows[rows.share > 0.5]).pearson.isna().all()  # two points are always on a line


def test_all_shares_together_are_ranked_as_one():
    found = gradient_summary(reveal_rows()).set_index(["order", "estimator"]).loc["seeded"]
    assert (found.shares == 3).all() and (found.n == 15).all() and found.n_wrong["letter"] == 8
    right, share = [1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0], [0.2] * 4 + [0.6] * 5 + [1.0] * 5
    pairs = [(a > b) + (a == b) / 2 for a, r in zip(share, right, strict=True) if r
             for b, w in zip(share, right, strict=True) if not w]  # fmt: skip
    assert found.auroc["letter"] == pytest.approx(np.mean(pairs)) and 0.5 < found.auroc["letter"] < 1
    assert found.auroc["noise"] == 1 and found.beyond["noise"] == pytest.approx(1 - np.mean(pairs))


@pytest.mark.parametrize("order", ["seeded", "lesion-last"])
def test_what_was_not_evaluated_leaves_its_cell_missing_and_no_other(order):
    nothing = dict.fromkeys(ESTIMATORS, math.nan) | {"answer": "", "said": "", "voted": ""}
    rows = with_one("q1", 0.6, order, outcome=FAILED, vote_outcome=FAILED, **nothing)
    found, numbers = table(rows), ["accuracy", "confidence", "ece", "auroc", "auprc", "beyond", "answered"]
    for estimator in ESTIMATORS:
        assert found.loc[order, estimator, 0.6].status.startswith("incomplete: 1 of")
        assert found.loc[order, estimator, 0.6][numbers].isna().all()
        assert found.loc[order, estimator, 1.0].accuracy > 0 and found.loc[order, estimator, 1.0].status == "complete"
        assert found.loc[order, estimator].pearson.isna().all()
    assert math.isnan(found.loc["lesion-last", "letter", 0.6].seeded) == (order == "seeded")
    summary = gradient_summary(rows).set_index("order")
    assert summary.loc[order].auroc.isna().all() and summary.auroc.notna().sum() == 5
    drawn = draw(table(rows).reset_index())[1]
    assert set(drawn.order) == {"seeded", "lesion-last"} - {order}


@pytest.mark.parametrize(
    "rows, message",
    [
        (with_one("q1", 0.6, answer="B"), "contradicts"),
        (with_one("q1", 0.6, voted="B"), "votes contradicts them.*q1"),
        (with_one("q1", 0.6, vote_outcome="perhaps"), "outcome of the votes is none of"),
        (with_one("q1", 0.6, vote_outcome=FAILED, voted=""), "alone failed.*q1"),
        (with_one("q1", 0.6, letter=math.nan), "without a letter"),
        (with_one("q1", 0.6, p_A=1.2), r"without a p_A in \[0, 1\]"),
        (reveal_rows().query("order != 'seeded' or question_id != 'q1'"), "seeded order.*q1"),
        (reveal_rows().query("share != 0.6 or question_id != 'q1'"), "every share.*q1"),
        (pd.concat([reveal_rows(), reveal_rows(model="m-think").query("question_id != 'q5'")]), "different questions"),
        (reveal_rows().drop(columns="voted"), "voted"),
        (pd.concat([reveal_rows()] * 2), "twice"),
    ],
)
def test_rows_that_cannot_be_counted_are_refused(rows, message):
    for make in (gradient, gradient_summary):
        with pytest.raises(ValueError, match=message):
            make(rows)


def test_no_rows_make_empty_tables():
    for make, columns in ((gradient, GRADIENT), (gradient_summary, GRADIENT_SUMMARY)):
        found = make(pd.DataFrame(columns=REVEAL_ROWS))
        assert found.empty and found.columns.tolist() == columns


def test_accuracy_and_every_confidence_are_drawn_for_each_kind_of_image_and_order():
    rows = pd.concat([every_reveal(), every_reveal().assign(model="at-grpo-think")])
    figure, drawn = draw(gradient(rows))
    assert len(figure.axes) == 2 * 4 and len(drawn) == 2 * 2 * 2 * 5 * 3
    names = [axes.texts[0].get_text() for axes in figure.axes[:4]]
    assert [name.partition(" · ")[0] for name in names] == [
        "clean, cells by chance", "clean, lesion last", "pgd, cells by chance", "pgd, lesion last",
    ]  # fmt: skip
    for axes in figure.axes:
        assert len(axes.lines) == 5 + 2
        (accuracy,) = [line for line in axes.lines if line.get_color() == "black" and line.get_linestyle() == "-"]
        assert accuracy.get_xdata().tolist() == list(SHARES)
    assert accuracy.get_ydata().tolist() == [1 / 4, 2 / 4, 3 / 4]
