"""The table and the figure of retrieved reports, of rows by hand."""

import pandas as pd
import pytest

from safemed.data.prompts import FAILED
from safemed.report.figures.rag import rag as draw
from safemed.report.tables.rag import RAG, RAG_BY_TYPE, RAG_ROWS, rag, rag_by_type
from support.rag_rows import rag_rows

KEY = ["shown", "reports", "poison"]


def table(rows: pd.DataFrame) -> pd.DataFrame:
    found = rag(rows)
    assert list(found.columns) == RAG
    return found.set_index(KEY).sort_index()


def test_numbers_are_those_that_can_be_counted_by_hand():
    found = table(rag_rows())
    none, sound = found.loc["clean", "none", "none"], found.loc["clean", "retrieved", "none"]
    assert none.accuracy == 0.5 and sound.accuracy == 0.75 and sound.recall == 0.75 and pd.isna(none.recall)
    text, control = found.loc["clean", "retrieved", "text"], found.loc["clean", "unclaimed", "text"]
    assert text.n_right == control.n_right == 3 and text.poisoned == 0.5 and text.accuracy == 0.5
    assert text.success == pytest.approx(1 / 3) and control.success == 0
    assert text.success_low < 1 / 3 < text.success_high
    conflict = found.loc["clean", "retrieved", "conflict"]
    assert conflict.success == 1 and conflict.accuracy == 0 and conflict.p_clean == pytest.approx(0.25)
    assert conflict.p_none == pytest.approx(0.5) and conflict.p_none_holm >= conflict.p_none
    assert found.loc["clean", "checked", "text"].dropped == 1


def test_success_is_of_the_questions_that_a_poison_is_aimed_at():
    rows = rag_rows()
    rate = (rows.poison == "text") & (rows.reports == "retrieved")
    rows.loc[rate, ["per_question", "rate", "poisons", "aimed"]] = [0, 0.1, 1, 0]
    rows.loc[rate & (rows.question_id == "q0"), "aimed"] = 1
    text = table(rows).loc["clean", "retrieved", "text"]
    assert (text.n_poisons, text.n_aimed, text.n_right, text.success) == (1, 1, 1, 1)
    rows.loc[rate, "aimed"] = (rows.question_id[rate] == "q3").astype(int)  # which is wrong beside sound reports
    text = table(rows).loc["clean", "retrieved", "text"]
    assert text.n_right == 0 and pd.isna(text.success) and pd.isna(text.success_low) and text.accuracy == 0.5
    types = rag_by_type(rows).set_index([*KEY, "question_type"]).loc[("clean", "retrieved", "text")]
    assert list(types.n_aimed[["size", "finding"]]) == [0, 1] and set(types.n_poisons) == {1}
    assert list(types.n_right) == [0, 0] and types.success.isna().all()


def test_the_success_of_one_poison_has_a_wide_interval():
    rows = rag_rows()
    rate = (rows.poison == "text") & (rows.reports == "retrieved")
    rows.loc[rate, ["per_question", "rate", "poisons", "aimed"]] = [0, 0.1, 1, 0]
    rows.loc[rate & (rows.question_id == "q1"), "aimed"] = 1
    found = table(rows)
    one, all_aimed = found.loc["clean", "retrieved", "text"], found.loc["clean", "retrieved", "conflict"]
    assert one.success == 0 and one.success_low == 0 and one.success_high > 0.79
    assert all_aimed.n_aimed == all_aimed.n_poisons == 4 and all_aimed.success_low > 0.4


def test_what_nothing_claims_is_counted_of_all_questions_and_not_where_it_could_only_be_0():
    found = table(rag_rows())
    shuffled, none = found.loc["clean", "shuffled", "none"], found.loc["clean", "none", "none"]
    assert shuffled.n_poisons == shuffled.n_aimed == 0 and shuffled.n_right == 3
    assert shuffled.success == pytest.approx(1 / 3)
    assert pd.isna(none.success) and pd.isna(found.loc["clean", "retrieved", "none"].success)


def test_another_seed_makes_no_p_value_larger():
    """Twelve times the questions, so that p-values are small enough to be told apart once they are adjusted."""

    def many(*names: str) -> pd.DataFrame:
        rows = rag_rows(*names)
        copies = [
            rows.assign(question_id=rows.question_id + f"-{i}", image_path=f"{i}/" + rows.image_path) for i in range(12)
        ]
        return pd.concat(copies).assign(poisons=lambda made: 12 * made.poisons)

    rows = many()
    alone, further = rag(rows), many("sft-rag-think-seed1", "fare-think-seed1")
    together = rag(pd.concat([rows, further]))
    pd.testing.assert_frame_equal(together[together.model == "sft-rag-think"].reset_index(drop=True), alone)
    same = rag(pd.concat([rows, many("sft-think")]))
    for p in ("p_clean_holm", "p_none_holm"):
        adjusted = same[same.model == "sft-rag-think"][p].reset_index(drop=True)
        assert (adjusted > alone[p]).any()  # models of one seed are one family


def test_macro_f1_is_the_mean_over_right_answers():
    """Sound: small 1/1 precision and recall, large 1/1, cyst 1 of 2 said, nodule never said."""
    assert table(rag_rows()).loc["clean", "retrieved", "none"].macro_f1 == pytest.approx((1 + 1 + 2 / 3 + 0) / 4)


def test_each_type_has_rows_of_its_own():
    found = rag_by_type(rag_rows())
    assert list(found.columns) == RAG_BY_TYPE
    sound = found[(found.shown == "clean") & (found.reports == "retrieved") & (found.poison == "none")]
    assert dict(zip(sound.question_type, sound.accuracy, strict=True)) == {"size": 1.0, "finding": 0.5}


def test_no_number_rests_on_a_question_that_was_not_evaluated():
    rows = rag_rows()
    out = (rows.question_id == "q0") & (rows.reports == "retrieved") & (rows.poison == "none") & (rows.shown == "clean")
    rows.loc[out, ["outcome", "answer", "said"]] = [FAILED, "", ""]
    found = table(rows)
    assert found.loc["clean", "retrieved", "none"].status == "incomplete: 1 of 4 not evaluated"
    assert found.loc["clean", "retrieved", "text"].n_poisons == 4  # which the page says beside what has no number
    assert (
        pd.isna(found.loc["clean", "retrieved", "text"].success) and found.loc["clean", "none", "none"].accuracy == 0.5
    )
    assert found.loc["pgd", "retrieved", "none"].status == "complete"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda rows: rows.assign(claimed=rows.gold), "the right answer is claimed"),
        (lambda rows: rows.assign(given=2), "there is a report where there should be none"),
        (lambda rows: rows[rows.reports != "none"], "a question was not asked without reports"),
        (lambda rows: rows[(rows.reports != "retrieved") | (rows.poison != "none")], "not asked beside sound reports"),
        (lambda rows: pd.concat([rows, rows.head(1)]), "a question_id appears twice"),
        (lambda rows: rows.assign(aimed=9), "the poisons are not as many as are aimed at the questions"),
        (
            lambda rows: rows.assign(poisons=rows.poisons + (rows.question_id == "q0") * (rows.poisons > 0)),
            "the poisons are not as many",
        ),
        (lambda rows: rows.assign(poisons=0, aimed=0), "poisons of no kind, or a kind without any"),
        (lambda rows: rows.assign(poisons=4, aimed=1), "poisons of no kind, or a kind without any"),
        (lambda rows: rows.assign(outcome="right"), "the outcome contradicts the answer"),
        (lambda rows: rows.drop(columns="claimed"), "missing column.* claimed"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        rag(change(rag_rows()))


def test_no_rows_make_an_empty_table_and_a_figure_that_says_so():
    found = rag(pd.DataFrame(columns=RAG_ROWS))
    assert found.empty and list(found.columns) == RAG
    figure, points = draw(found)
    assert points.empty and "No question" in figure.texts[0].get_text()


def test_the_figure_draws_the_numbers_of_the_table():
    rows = pd.concat([rag_rows(), rag_rows(retriever="sft-rag-think"), rag_rows("sft-think")]).drop_duplicates()
    figure, points = draw(rag(rows))
    assert set(points.row) == {
        "no reports", "retrieved", "another question's", "text poisons", "text poisons, no claim",
        "text poisons, checked", "conflicts",
    }  # fmt: skip
    assert (points.shown == "clean").all()
    drawn = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "None"]
    assert sorted(len(line.get_xdata()) for line in drawn) == [6]
    assert len(figure.axes) == 2
