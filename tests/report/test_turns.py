"""The table and the figure of second turns: every number is the share that it says, and none is of what failed."""

import math

import pandas as pd
import pytest

from safemed.data.prompts import FAILED
from safemed.report.figures import turns as figures
from safemed.report.figures.style import GREY
from safemed.report.tables.adaptive import ADAPTIVE_TURNS, adaptive_turns
from safemed.report.tables.rows import ATTACK_ROWS
from safemed.report.tables.turn_comparisons import TURN_COMPARISONS, turn_comparisons
from safemed.report.tables.turns import TURN_ROWS, TURNS, turns
from safemed.utils.stats import wilson
from support.stress_rows import attacked_rows
from support.turn_rows import SAID, every_turn, turn_rows


def by_push(rows: pd.DataFrame) -> pd.DataFrame:
    return turns(rows).set_index("push")


def test_every_share_is_of_the_answers_that_it_says():
    table = by_push(turn_rows())
    assert (table.n == 6).all() and (table.n_right == 4).all() and (table.n_wrong == 2).all()
    assert table.flipped.to_dict() == {"silent": 0.25, "doubt": 0.25, "wrong": 0.75, "right": 0}
    assert (table.loc["wrong", "flipped_low"], table.loc["wrong", "flipped_high"]) == pytest.approx(wilson(3, 4))
    assert (table.flipped_silent == 0.25).all() and (table.first_accuracy == 4 / 6).all()
    assert table.second_accuracy.to_dict() == {"silent": 4 / 6, "doubt": 4 / 6, "wrong": 1 / 6, "right": 5 / 6}
    assert table.followed["wrong"] == 0.5 and table.followed_silent["wrong"] == 0
    assert table.corrected_without.dropna().to_dict() == {"doubt": 0.5}
    assert table.corrected_with.dropna().to_dict() == {"right": 0.5}
    assert table.corrected_silent.dropna().to_dict() == {"doubt": 0.5, "right": 0.5}
    assert (table.loc["right", "corrected_low"], table.loc["right", "corrected_high"]) == pytest.approx(wilson(1, 2))


def test_what_is_retained_is_of_readable_answers_that_the_push_does_not_claim():
    """The unparsable one is of no push; one that is what a push claims is pressed by another alone."""
    table = by_push(turn_rows())
    assert table.n_opposed.to_dict() == {"silent": 5, "doubt": 5, "wrong": 4, "right": 1}
    assert table.retained.to_dict() == {"silent": 0.8, "doubt": 0.6, "wrong": 0.25, "right": 0}
    wanted = {"silent": 0.8 / 5, "doubt": (0.9 + 0.5) / 5, "wrong": (0.9 + 0.8 + 0.7) / 4, "right": 0.5}
    assert table.ccs.to_dict() == pytest.approx(wanted)
    assert table.ccs_silent.to_dict() == pytest.approx({"silent": 0.16, "doubt": 0.16, "wrong": 0.2, "right": 0})
    assert table.retained_silent["right"] == 1


def test_what_is_quoted_has_an_interval_and_is_held_against_the_silent_push():
    table = by_push(turn_rows())
    assert (table.retained_low["wrong"], table.retained_high["wrong"]) == pytest.approx(wilson(1, 4))
    assert (table.ccs_low["wrong"], table.ccs_high["wrong"]) == pytest.approx(wilson(2.4, 4))
    assert (table.ccs_low <= table.ccs).all() and (table.ccs <= table.ccs_high).all()
    assert table.p_silent["wrong"] == 2 * 0.5**2 and table.p_silent["doubt"] == 1  # q1 and q3; q1 against q2
    assert math.isnan(table.p_silent["silent"])
    alike = by_push(turn_rows(image_path=["a"] * 12 + list("bbbbccccdddd")))  # q1 to q3, which all fall, on one image
    for name in ("flipped", "retained", "ccs"):
        wide, narrow = (one[f"{name}_high"] - one[f"{name}_low"] for one in (alike, table))
        assert wide["wrong"] > narrow["wrong"] + 0.01


def test_answers_that_cannot_be_read_are_given_up_and_told():
    rows = turn_rows()
    rows.loc[(rows.question_id == "q3") & (rows.push == "doubt"), ["answer", "outcome"]] = "", "unparsable"
    found = by_push(rows).loc["doubt"]
    assert (found.flipped, found.unparsable, found.unparsable_silent, found.retained) == (0.5, 0.25, 0, 0.4)


def test_of_no_right_first_answer_there_is_neither_a_share_nor_a_p():
    rows = turn_rows().query("first_outcome != 'right'")
    table = by_push(rows)
    assert (table.n_right == 0).all() and table[["flipped", "unparsable", "p_silent"]].isna().all(axis=None)
    assert table.corrected_with["right"] == 0.5


def test_taught_and_new_wordings_and_kinds_of_images_are_apart():
    table = turns(every_turn())
    assert len(table) == 2 * 2 * 4 and set(table.taught) == {"taught", "new"} and set(table.seen) == {"clean", "pgd"}
    assert table.groupby("push").flipped.nunique().eq(1).all()


@pytest.mark.parametrize("push", ["silent", "wrong"])
def test_an_answer_that_was_not_evaluated_leaves_its_push_and_what_stands_beside_it_without_a_number(push):
    rows = turn_rows()
    one = (rows.question_id == "q2") & (rows.push == push)
    rows.loc[one, ["outcome", "answer"]] = FAILED, ""
    table = by_push(rows)
    without = {"silent": list(table.index), "wrong": ["wrong"]}[push]
    assert table[table.status != "complete"].index.tolist() == without
    assert (
        table.loc[without, [name for name in TURNS if name not in ("model", "seen", "push", "taught", "n", "status")]]
        .isna()
        .all(axis=None)
    )


@pytest.mark.parametrize(
    "push, change, message",
    [
        ("wrong", {"claimed": "A"}, "a claim is mistaken"),
        ("wrong", {"claimed": ""}, "a claim is not what its push says"),
        ("right", {"claimed": "B"}, "a claim is mistaken"),
        ("silent", {"claimed": "B"}, "a claim is not what its push says"),
        ("doubt", {"first_text": "another"}, "a question has several first answers"),
        ("doubt", {"first_outcome": "correct"}, "a first outcome is none of right, wrong"),
        ("doubt", {"first_answer": "B"}, "the first outcome contradicts"),
        ("doubt", {"confidence": math.nan}, "an answer has no confidence"),
        ("doubt", {"first_confidence": math.nan}, "an answer has no confidence"),
        ("doubt", {"outcome": "right"}, "the outcome contradicts the answer"),
        ("doubt", {"push": "threat"}, "a push is none of silent, doubt"),
        ("doubt", {"wording": None}, "a value is missing"),
    ],
)
def test_rows_that_cannot_be_counted_are_refused(push, change, message):
    rows = turn_rows()
    rows.loc[(rows.question_id == "q1") & (rows.push == push), list(change)] = list(change.values())
    with pytest.raises(ValueError, match=message):
        turns(rows)


def test_models_that_were_told_different_things_are_refused():
    rows, other = turn_rows(), turn_rows(model="at-grpo-think")
    other.loc[(other.question_id == "q1") & (other.push == "wrong"), "claimed"] = "C"
    with pytest.raises(ValueError, match="claims differ between wordings or models: .*push wrong.*q1"):
        turns(pd.concat([rows, other]))


def test_an_answer_after_a_first_one_that_was_not_evaluated_is_refused():
    rows = turn_rows()
    rows.loc[rows.question_id == "q1", ["first_answer", "first_outcome"]] = "", FAILED
    with pytest.raises(ValueError, match="a first one that was not evaluated: .*q1"):
        turns(rows)


def test_a_question_that_was_not_pushed_silently_is_refused():
    rows = turn_rows()
    for table in (turns, turn_comparisons):
        with pytest.raises(ValueError, match="not pushed silently, too: .*q3"):
            table(rows[(rows.push != "silent") | (rows.question_id != "q3")])


def test_the_attack_that_knows_the_turn_is_held_against_the_images_of_the_one_that_does_not():
    """Each question in the wording of its attacked row; what the claim alone made wrong counts as it is."""
    pushes = every_turn().query("wording == 'wrong-2' or push != 'wrong'")
    clean = {question: said["wrong"] for question, (_, _, said) in SAID.items()}
    rows = attacked_rows(attack="pgd-turn", hint="wrong-2")
    rows["answer"] = rows.question_id.map(clean).where(rows.eps == 0, "C")
    rows["outcome"] = rows.answer.map(lambda answer: "right" if answer == "A" else "wrong")
    (found,) = adaptive_turns(rows, pushes, 8).to_dict("records")
    assert list(found) == ADAPTIVE_TURNS
    assert (found["seen"], found["n"], found["pushed"], found["both"], found["adaptive"]) == ("pgd", 5, 0.2, 0.2, 0)
    with pytest.raises(ValueError, match="turns_model did not ask this on stored images"):
        adaptive_turns(rows.assign(hint="wrong-3"), pushes, 8)


def trained(method: str = "sft-turns") -> pd.DataFrame:
    """The rows of another method: q4 is wrong at first, and q1 to q3 are kept whatever the user says."""
    rows = turn_rows(model=f"{method}-think", method=method)
    answers = ["B" if question == "q4" else "A" for question in rows.question_id]
    for column in ("first_answer", "first_text", "answer", "text"):
        rows[column] = answers
    rows["first_outcome"] = rows["outcome"] = ["right" if answer == "A" else "wrong" for answer in answers]
    return rows.assign(first_confidence=0.5)


def test_methods_are_compared_on_the_answers_that_both_gave_rightly_at_first():
    """q1, q2 and q3; of these the other one gives up q2 silently, q1 under a doubt, and all under a wrong claim."""
    table = turn_comparisons(pd.concat([turn_rows(), trained()])).set_index("push")
    assert (table["first"] == "sft-think").all() and (table.second == "sft-turns-think").all()
    assert (table.n == 3).all() and (table.failed == 0).all() and (table.second_flipped == 0).all()
    assert table.first_flipped.to_dict() == pytest.approx({"silent": 1 / 3, "doubt": 1 / 3, "wrong": 1, "right": 0})
    assert table.first_silent.tolist() == pytest.approx([1 / 3] * 4) and (table.second_silent == 0).all()
    assert (table.difference == table.first_flipped - table.second_flipped).all()
    assert table.p["wrong"] == 2 * 0.5**3 and table.p["doubt"] == 1
    assert (table.ci_low <= table.difference).all() and (table.difference <= table.ci_high).all()
    assert table.beyond.drop("silent").to_dict() == pytest.approx({"doubt": 0, "wrong": 2 / 3, "right": -1 / 3})
    assert (table.beyond_low.dropna() <= table.beyond.dropna()).all() and math.isnan(table.beyond["silent"])


def test_what_an_attack_on_the_image_gives_up_is_not_due_to_the_push():
    """Whatever is said, one model gives up all, the other nothing: the difference is one, and nothing is beyond it."""
    rows = turn_rows(answer="C", said="C", outcome="wrong")
    wordings = [rows, rows.assign(wording=rows.wording + "b")]  # several of a kind
    other = trained()
    table = turn_comparisons(pd.concat([*wordings, other, other.assign(wording=other.wording + "b")]))
    assert (table.difference == 1).all() and (table.n == 6).all()
    assert (table.p_holm == 2 * 0.5**3).all()  # of three images
    said = table[table.push != "silent"]
    assert (said[["beyond", "beyond_low", "beyond_high"]] == 0).all(axis=None)


def test_pairs_are_of_one_variant_and_adjusted_for_their_number_under_the_same_push():
    third = trained("grpo-turns")
    other = turn_rows(model="sft-instruct", variant="instruct")
    table = turn_comparisons(pd.concat([turn_rows(), trained(), third, other]))
    assert not {"sft-instruct"} & set(table["first"]) | {"sft-instruct"} & set(table.second)
    wrong = table[table.push == "wrong"]
    assert len(wrong) == 3 and wrong.p.tolist() == [0.25, 0.25, 1] and wrong.p_holm.tolist() == [0.75, 0.75, 1]


def test_further_seeds_do_not_change_what_is_adjusted_of_the_first():
    first = pd.concat([turn_rows(), trained(), trained("grpo-turns")])
    both = turn_comparisons(pd.concat([first, first.assign(model=first.model + "-seed1")]))
    alone = turn_comparisons(first)
    own = ~both["first"].str.endswith("-seed1")
    pd.testing.assert_frame_equal(both[own].reset_index(drop=True), alone)
    assert both.p_holm[~own].tolist() == pytest.approx(alone.p_holm.tolist()) and alone.p_holm.min() == 0.75


@pytest.mark.parametrize("push, without", [("silent", 4), ("doubt", 1)])
def test_methods_are_not_compared_where_one_was_not_evaluated(push, without):
    rows = trained()
    rows.loc[(rows.question_id == "q6") & (rows.push == push), ["outcome", "answer"]] = FAILED, ""
    table = turn_comparisons(pd.concat([turn_rows(), rows]))
    assert (table.failed > 0).sum() == table.p.isna().sum() == table.first_flipped.isna().sum() == without
    assert push in set(table.push[table.failed == 1])


def test_methods_that_are_never_right_together_are_not_compared():
    rows = turn_rows(model="m-think", first_answer="C", first_outcome="wrong", first_confidence=0.5)
    table = turn_comparisons(pd.concat([turn_rows(), rows]))
    assert (table.n == 0).all() and table[["first_flipped", "p", "p_holm"]].isna().all(axis=None)


def test_no_rows_make_empty_tables():
    none = pd.DataFrame(columns=TURN_ROWS)
    for rows in (none, turn_rows()):
        assert turn_comparisons(rows).empty and turn_comparisons(rows).columns.tolist() == TURN_COMPARISONS
    assert turns(none).empty and adaptive_turns(pd.DataFrame(columns=ATTACK_ROWS), none, 8).empty


def test_the_figure_shows_each_model_under_doubts_and_wrong_claims_beside_the_silent_push():
    rows = pd.concat([every_turn(), every_turn().assign(model="at-grpo-think")])
    figure, points = figures.turns(turns(rows))
    assert set(points.push) == {"doubt", "wrong"} and set(points.seen) == {"clean"} and len(points) == 2 * 2 * 2
    doubt, wrong = figure.axes
    lines = [line for line in wrong.lines if line.get_marker() not in ("", "None", "_")]
    marks = [(round(x, 6), line.get_color()) for line in lines for x, _ in line.get_xydata()]
    silent = [x for x, color in marks if color == GREY]
    assert silent == [0.25] * 4 and {x for x, color in marks if color != GREY} == {0.75}
    assert [tick.get_text() for tick in doubt.get_yticklabels()] == ["AT-GRPO, think", "SFT, think"]
    assert figures.turns(pd.DataFrame(columns=TURNS))[0].texts
