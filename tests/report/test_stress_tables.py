"""The tables of the stress test, against cases counted by hand; a failure is never a score."""

import math

import numpy as np
import pandas as pd
import pytest

from safemed.data.prompts import FAILED
from safemed.report.tables.abstention import abstention
from safemed.report.tables.adaptive import ADAPTIVE, adaptive
from safemed.report.tables.calibration import calibration, discrimination, ece, selective
from safemed.report.tables.chain import chain, chain_summary
from safemed.report.tables.hints import hints
from safemed.report.tables.image_edits import image_edits
from safemed.report.tables.pixels_and_words import pixels_and_words
from safemed.report.tables.question_edits import question_edits
from safemed.report.tables.rows import ATTACK_ROWS
from safemed.report.tables.stress_rows import STRESS_ROWS, check_stress_rows
from safemed.stress.hints import POLARITIES
from safemed.utils.stats import wilson
from support.stress_rows import PLAIN, attacked_rows, every_kind, hint_rows, row


def test_hints_are_counted_as_they_say():
    table = hints(hint_rows()).set_index(["voice", "taught"])
    one = table.loc[("one", "taught")]
    assert one.wordings == 1 and one.n == 5 and one.status == "complete"
    assert (one.plain, one.positive, one.neutral, one.negative) == (0.8, 1.0, 0.6, 0.2)
    assert one.n_right == 4 and one.sycophancy == 3 / 4 and one.followed == 2 / 4
    assert one["drift"] == 1 / 4 and one.reliance == 2 / 4 - 1 / 4  # q2 says B under the neutral wording, too
    assert one.n_wrong == 1 and one.rescue == 1.0 and one.rescue_silent == 0
    assert one.acknowledged == 1 / 2 and one.acknowledged_silent == 0  # of q1 and q2, which followed, q1 says so
    assert (one.followed_low, one.followed_high) == wilson(2, 4) and (one.drift_low, one.drift_high) == wilson(1, 4)
    two = table.loc[("two", "new")]
    assert two.sycophancy == 1 / 4 and two.followed == 0 and two.rescue == 0.0 and math.isnan(two.acknowledged)
    everybody = table.loc[("all", "all")]
    assert everybody.wordings == 2 and everybody.n == 5 and everybody.sycophancy == 4 / 8 and everybody.rescue == 1 / 2
    assert one.sycophancy_low < 3 / 4 < one.sycophancy_high and one.negative_low < 0.2 < one.negative_high


def test_hints_have_no_faithfulness_where_nothing_thinks():
    table = hints(hint_rows(variant="instruct", model="sft-instruct"))
    assert table.acknowledged.isna().all() and table.sycophancy.notna().all()


def test_what_a_neutral_wording_does_stands_beside_what_a_right_hint_and_a_thought_say():
    """q5 is made right by any words, and the thought of q2 names who speaks though he claims nothing."""
    rows = hint_rows()
    neutral = (rows.name == "one") & (rows.polarity == "neutral")
    rows.loc[neutral & (rows.question_id == "q5"), ["answer", "outcome", "said"]] = "A", "right", "a"
    rows.loc[neutral & rows.question_id.isin(["q2", "q4"]), "mentions"] = True
    one = hints(rows).set_index(["voice", "taught"]).loc[("one", "taught")]
    assert one.rescue == one.rescue_silent == 1 and one.acknowledged == one.acknowledged_silent == 1 / 2


def test_of_nothing_right_there_is_no_sycophancy():
    rows = hint_rows()
    rows.loc[rows.kind == "plain", ["answer", "outcome", "said"]] = "C", "wrong", "c"
    table = hints(rows)
    assert table.sycophancy.isna().all() and (table.n_right == 0).all() and table.rescue.notna().all()


def test_the_worst_wording_decides():
    table = pixels_and_words(hint_rows(taught=False)).set_index("words")
    assert table.accuracy.to_dict() == {"none": 0.8, "positive": 0.8, "neutral": 0.7, "negative": 0.5, "worst": 0.0}
    assert table.n.to_dict() == {"none": 5, "positive": 10, "neutral": 10, "negative": 10, "worst": 5}


def test_what_training_may_draw_is_not_in_the_headline():
    table = pixels_and_words(hint_rows()).set_index("words")
    assert table.accuracy["negative"] == table.accuracy["worst"] == 0.8 and table.n["negative"] == 5


@pytest.mark.parametrize("make", [hints, pixels_and_words, calibration])
def test_a_question_that_was_not_evaluated_leaves_no_number(make):
    rows = hint_rows()
    failing = (rows.name == "two") & (rows.polarity == "negative") & (rows.question_id == "q4")
    rows.loc[failing, ["answer", "outcome", "said"]] = "", FAILED, ""
    table = make(rows)
    broken = table[table.status != "complete"]
    assert len(broken) and broken.status.str.contains("1 of").all()
    for name in ("accuracy", "negative", "sycophancy", "followed", "drift", "ece", "selective"):
        assert name not in table or (
            broken[name].isna().all() and table[table.status == "complete"][name].notna().any()
        )


def test_a_plain_answer_that_was_not_evaluated_leaves_no_number():
    rows = hint_rows()
    rows.loc[(rows.kind == "plain") & (rows.question_id == "q1"), ["answer", "outcome", "said"]] = "", FAILED, ""
    assert (hints(rows).status != "complete").all()


def test_what_knowing_the_hint_adds_is_counted_under_the_wording_of_each_question():
    """Under the other wording, each question is answered otherwise on the images that are shown."""
    other = {"model": "at-grpo-think", "method": "at-grpo", "answer": "A", "outcome": "right"}  # nothing falls
    attacked = pd.concat([attacked_rows(), attacked_rows(**other)])
    shown = pd.concat([hint_rows(), hint_rows(seen="pgd"), hint_rows(seen="pgd", confidence=0.9, **other)])
    table = adaptive(attacked, shown, 8)
    assert table.model.tolist() == ["sft-think", "at-grpo-think"]
    assert set(table.attack) == {"pgd-hint"} and set(table.seen) == {"pgd"} and set(table.eps) == {8}
    found, unbroken = table.to_dict("records")
    assert (found["n"], found["failed"], found["hinted"], found["both"], found["adaptive"]) == (5, 0, 0.8, 0.6, 0.2)
    assert (found["adaptive_low"], found["adaptive_high"]) == wilson(1, 5)
    assert found["difference"] == pytest.approx(-0.4) and -1 <= found["ci_low"] < -0.4 < found["ci_high"] <= 0
    assert found["p"] == 2 * 0.5**2  # q2 and q5, both the same way; q4 falls to the hint alone
    assert (unbroken["adaptive"], unbroken["difference"], unbroken["p"]) == (1, 0, 1)


@pytest.mark.parametrize("where, key", [("attacked", 0.0), ("attacked", 8.0), ("shown", "one")])
def test_what_knowing_the_hint_adds_has_no_number_where_a_question_failed(where, key):
    rows = {"attacked": attacked_rows(), "shown": hint_rows(seen="pgd")}
    spoilt = rows[where]
    failing = spoilt.eps == key if where == "attacked" else (spoilt.name == key) & (spoilt.polarity == "negative")
    spoilt.loc[failing & (spoilt.question_id == "q4"), ["answer", "outcome"]] = "", FAILED
    (found,) = adaptive(rows["attacked"], rows["shown"], 8).to_dict("records")
    numbers = ADAPTIVE[ADAPTIVE.index("failed") + 1 :]
    assert (found["n"], found["failed"]) == (5, 1) and all(math.isnan(found[name]) for name in numbers)


def test_a_failure_under_words_that_the_attack_did_not_know_is_not_in_the_way():
    shown = hint_rows(seen="pgd")
    shown.loc[(shown.question_id == "q4") & (shown.name == "two"), ["answer", "outcome"]] = "", FAILED
    assert adaptive(attacked_rows(), shown, 8).failed.tolist() == [0]


@pytest.mark.parametrize("change", [{"seen": "clean"}, {"name": "three"}, {"kind": "paraphrase"}])
def test_an_attack_under_words_that_were_not_put_on_stored_images_is_refused(change):
    shown = hint_rows(seen="pgd")
    one = shown.index[(shown.question_id == "q2") & (shown.name == "two") & (shown.polarity == "negative")]
    shown.loc[one, list(change)] = list(change.values())
    with pytest.raises(ValueError, match="stress_model did not ask this.*sft-think.*two.*q2 .*re-run"):
        adaptive(attacked_rows(), shown, 8)


def test_without_an_attack_that_knows_the_hint_the_table_is_empty():
    table = adaptive(pd.DataFrame(columns=ATTACK_ROWS), hint_rows(), 8)
    assert table.empty and table.columns.tolist() == ADAPTIVE


def test_edited_questions_are_compared_with_the_same_questions_unedited():
    asked = [row(q, a) for q, a in PLAIN.items()]
    permuted = [row(q, a, kind="options", name="permuted", said=s) for q, a, s in
                (("q1", "A", "a"), ("q2", "C", "a"), ("q3", "", ""), ("q5", "B", "c"))]  # fmt: skip
    gone = [row("q1", "C", kind="options", name="removed", said="c")]
    table = question_edits(pd.DataFrame([*asked, *permuted, *gone])).set_index("name")
    assert table.loc["permuted", ["n", "plain", "accuracy", "consistency"]].tolist() == [4, 0.75, 0.25, 0.75]
    assert math.isnan(table.loc["removed", "consistency"]) and table.loc["removed", "plain"] == 1.0
    assert table.chance.tolist() == pytest.approx([1 / 3, 1 / 3])


def test_edited_images_are_counted_by_what_is_asked():
    rows = [row(q, a) for q, a in PLAIN.items()]
    erased = {"kind": "erasure", "name": "lesion", "ssim": 0.8}
    rows += [row(q, a, **erased) for q, a in {"q1": "A", "q2": "C", "q3": "B", "q5": "C"}.items()]
    label = {"kind": "mark", "name": "label"}
    for polarity, claimed, said in (("negative", "B", "BABB"), ("neutral", "", "BAAC")):
        put = label | {"polarity": polarity, "claimed": claimed}
        rows += [row(q, a, **put) for q, a in zip(("q1", "q2", "q3", "q4"), said, strict=True)]
    frame = pd.DataFrame(rows)
    frame.loc[frame.question_id == "q5", "question_type"] = "Modality Recognition"
    table = image_edits(frame).set_index(["name", "about"])
    assert table.loc[("lesion", "all"), ["n", "plain", "accuracy", "kept"]].tolist() == [4, 0.75, 0.25, 0.5]
    assert tuple(table.loc[("lesion", "all"), ["kept_low", "kept_high"]]) == wilson(2, 4)
    assert table.loc[("lesion", "context"), ["n", "plain", "accuracy", "kept"]].tolist() == [1, 0.0, 0.0, 1.0]
    assert table.loc[("lesion", "lesion"), "n"] == 3 and table.loc[("lesion", "all"), "ssim"] == pytest.approx(0.8)
    labelled = table.loc[("label", "all")].set_index("polarity")
    assert labelled.loc["negative", ["followed", "followed_silent"]].tolist() == [3 / 4, 1 / 4]
    assert tuple(labelled.loc["negative", ["followed_low", "followed_high"]]) == wilson(3, 4)
    unclaimed = labelled.loc["neutral", "followed"], table.loc[("lesion", "all"), "followed"].item()
    assert all(map(math.isnan, unclaimed))


def test_a_label_is_held_against_the_same_label_without_its_claim():
    rows = every_kind()
    silent = (rows.name == "label") & (rows.polarity == "neutral") & (rows.question_id == "q2")
    with pytest.raises(ValueError, match="label was not put without its claim.*q2"):
        image_edits(rows[~silent])
    rows.loc[silent, ["answer", "outcome", "said"]] = "", FAILED, ""
    table = image_edits(rows)
    found = table[(table.name == "label") & (table.about == "all")]
    assert len(found) == 2 and (found.status == "incomplete: 1 of 5 not evaluated").all()
    assert found[["accuracy", "followed", "followed_silent"]].isna().all(axis=None)


def test_the_calibration_error_is_that_of_an_exact_case():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.65, 0.65, 1.0])
    right = np.array([True, True, True, False, True, False, True])
    bins = 5 * abs(4 / 5 - (4 * 0.95 + 1.0) / 5) + 2 * abs(1 / 2 - 0.65)  # 1.0 belongs to the last bin
    assert ece(confidence, right) == pytest.approx(bins / 7)
    assert selective(np.array([0.9, 0.1, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 1, 0], bool)) == 3 / 4


def test_an_answer_without_a_letter_is_the_least_sure():
    rows = pd.DataFrame([row(q, a) for q, a in {"q1": "A", "q2": "A", "q3": "A", "q4": "A", "q5": ""}.items()])
    (found,) = calibration(rows).itertuples()
    assert found.accuracy == found.answered == 0.8 and found.selective == 1.0
    assert (found.ci_low, found.ci_high) == wilson(4, 5)
    assert found.confidence == pytest.approx(0.9) and found.ece == pytest.approx(0.1)


def test_confidence_that_says_nothing_has_an_auroc_of_a_half_and_one_that_orders_has_one():
    right = np.array([True, True, True, False])
    assert discrimination(np.full(4, 0.7), right) == {"auroc": 0.5, "auprc": 0.75}
    assert discrimination(np.array([0.9, 0.8, 0.7, 0.6]), right) == {"auroc": 1, "auprc": 1}
    assert discrimination(np.array([0.5, 0.8, 0.7, 0.6]), right) == {"auroc": 2 / 3, "auprc": pytest.approx(11 / 12)}
    assert discrimination(np.array([0.5, 0.8]), np.array([True, True])) == {}
    assert discrimination(np.array([0.5, 0.8]), np.array([False, False])) == {}


def test_answers_that_name_no_option_are_not_told_apart():
    sure = {"q1": ("A", 0.9), "q2": ("A", 0.8), "q3": ("B", 0.3), "q4": ("", math.nan)}
    (found,) = calibration(pd.DataFrame([row(q, a, confidence=c) for q, (a, c) in sure.items()])).itertuples()
    assert (found.auroc, found.auprc, found.answered) == (1, 1, 0.75)
    alike = calibration(pd.DataFrame([row("q1", "A"), row("q2", "")]))
    assert alike[["auroc", "auprc"]].isna().all(axis=None) and alike.status.tolist() == ["complete"]


def test_calibration_is_of_questions_that_do_not_offer_to_abstain():
    assert set(calibration(every_kind()).kind) == {"plain", "hint", "erasure"}


def test_who_abstains_chooses_the_last_option():
    rows = every_kind()
    for question, kind in (("q4", "Lesion Grading"), ("q5", "Modality Recognition")):
        rows.loc[(rows.kind == "abstention") & (rows.question_id == question), "question_type"] = kind
    table = abstention(rows).set_index(["image", "about"])
    counts = ["lacks", "n", "abstained", "sound", "right", "wrong", "unparsable"]
    third = 1 / 3
    assert table.loc[("sound", "finding"), counts].tolist() == ["no", 3, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert table.loc[("sound", "context"), counts].tolist() == ["no", 1, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert table.loc[("lesion", "finding"), counts].tolist() == ["in part", 3, 2 * third, 0.0, third, 0.0, 0.0]
    assert table.loc[("lesion", "lesion"), counts].tolist() == ["yes", 1, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert table.loc[("lesion", "context"), counts].tolist() == ["no", 1, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert (table.status == "complete").all()
    finding = table.loc[("lesion", "finding")]
    assert finding.abstained_low < finding.abstained < finding.abstained_high


def test_where_an_answer_was_not_evaluated_nobody_abstains():
    rows = every_kind()
    rows.loc[rows.index[rows.kind == "abstention"][0], ["answer", "outcome", "said"]] = "", FAILED, ""
    table = abstention(rows).set_index("image")
    assert table.loc["sound", ["abstained", "sound", "right"]].isna().all() and "1 of 5" in table.loc["sound", "status"]
    assert table.loc["lesion", "abstained"] == 0.4 and math.isnan(table.loc["lesion", "sound"])


def test_abstaining_is_held_against_the_same_questions_with_nothing_erased():
    rows = every_kind()
    with pytest.raises(ValueError, match="nothing erased: .*q2"):
        abstention(rows[(rows.kind != "abstention") | (rows.name != "sound") | (rows.question_id != "q2")])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"claimed": "B"}, "a positive claim is wrong"),
        ({"outcome": "perhaps"}, "outcome"),
        ({"gold": "C"}, "contradicts"),
        ({"question_id": "q2"}, "twice"),
    ],
)
def test_rows_that_cannot_be_counted_are_refused(change, message):
    rows = hint_rows()
    first = rows[rows.polarity == "positive"].index[0]
    rows.loc[first, list(change)] = list(change.values())
    with pytest.raises(ValueError, match=message):
        hints(rows)


def test_a_question_that_was_not_asked_unedited_is_refused_and_not_left_out():
    rows = hint_rows()
    with pytest.raises(ValueError, match="unedited: .*q1"):
        hints(rows[(rows.kind != "plain") | (rows.question_id != "q1")])


@pytest.mark.parametrize("polarity", POLARITIES)
def test_a_hint_that_was_not_put_in_all_polarities_is_refused(polarity):
    rows = hint_rows()
    lacking = (rows.name == "one") & (rows.polarity == polarity) & (rows.question_id == "q2")
    with pytest.raises(ValueError, match="all polarities: .*q2"):
        hints(rows[~lacking])


def test_an_answer_without_confidence_is_refused():
    rows = hint_rows()
    rows.loc[3, "confidence"] = math.nan
    with pytest.raises(ValueError, match="no confidence"):
        calibration(rows)


@pytest.mark.parametrize("claimed", ["A", ""])
def test_a_misleading_claim_must_mislead(claimed):
    rows = hint_rows()
    rows.loc[rows.polarity == "negative", "claimed"] = claimed
    with pytest.raises(ValueError, match="misleading claim"):
        check_stress_rows(rows)


def test_models_that_were_asked_other_questions_are_refused():
    rows = hint_rows()
    other = hint_rows(model="at-grpo-think")
    with pytest.raises(ValueError, match="different questions"):
        hints(pd.concat([rows, other[other.question_id != "q1"]], ignore_index=True))


@pytest.mark.parametrize(
    "table", [hints, question_edits, image_edits, pixels_and_words, calibration, abstention, chain, chain_summary]
)
def test_no_rows_make_an_empty_table(table):
    made = table(pd.DataFrame(columns=STRESS_ROWS))
    assert made.empty and len(made.columns) > 3
