"""The chain of evidence: counted by hand, never from a question that failed, never a zero where nothing was asked."""

import math

import pandas as pd
import pytest

from safemed.data.clinical_stages import STAGE_OF, STAGES
from safemed.report.tables.chain import CHAIN, CHAIN_SUMMARY, chain, chain_summary
from safemed.utils.stats import wilson
from support.stress_rows import row

TYPE_OF = {stage: kind for kind, stage in STAGE_OF.items()}
OUTCOMES = {"r": ("right", "A"), "w": ("wrong", "B"), "u": ("unparsable", ""), "f": ("failed", "")}
LESION = ("presence", "place", "size", "diagnosis")
NO_LESION = ("quality", "modality", "anatomy", "presence", "diagnosis")


def rows(images: dict[str, dict[str, str]], model: str = "base", polarity: str = "") -> pd.DataFrame:
    """Chain rows of image -> stage -> r, w, u or f, in no order."""
    made = [
        row(
            f"{image}-{stage}", OUTCOMES[letter][1], outcome=OUTCOMES[letter][0], image_path=image, model=model,
            question_type=TYPE_OF[stage], kind="chain", polarity=polarity, claimed="A" * (polarity == "positive"),
        )
        for image, stages in images.items()
        for stage, letter in stages.items()
    ]  # fmt: skip
    return pd.DataFrame(made).sample(frac=1, random_state=0)


def answers(letters: str, stages: tuple[str, ...] = STAGES) -> dict[str, str]:
    """Stage -> letter."""
    return dict(zip(stages, letters, strict=True))


# Four images: right throughout; right but for the size; blind to the lesion, yet with the right diagnosis; no lesion,
# an unparsable quality and a wrong diagnosis.
FOUR = {
    "a": answers("rrrrrrr"),
    "b": answers("rrrrrwr"),
    "c": answers("rrrwwwr"),
    "d": answers("urrrw", NO_LESION),
}


def test_every_stage_is_counted_of_all_images_that_have_it():
    table = chain(rows(FOUR)).set_index("stage")
    assert list(table.index) == list(STAGES) and table.status.eq("complete").all()
    assert table.n.tolist() == [4, 4, 4, 4, 3, 3, 4]
    assert table.accuracy.tolist() == pytest.approx([3 / 4, 1, 1, 3 / 4, 2 / 3, 1 / 3, 3 / 4])
    assert table.reached.tolist() == pytest.approx([3 / 4, 3 / 4, 3 / 4, 2 / 4, 2 / 3, 1 / 3, 1 / 4])
    assert table.given_reached.tolist() == pytest.approx([3 / 4, 1, 1, 2 / 3, 1, 1 / 2, 1])
    assert (table.ci_low["place"], table.ci_high["place"]) == pytest.approx(wilson(2, 3))


def test_the_share_right_so_far_is_of_all_images_and_never_rises():
    """`reached` does: at the diagnosis, an image without a lesion comes back into it."""
    images = {"a": answers("rrrrrrr"), "b": answers("rrrrwrr"), "d": answers("rrrrr", NO_LESION)}
    table = chain(rows(images)).set_index("stage")
    assert table.reached["size"] < table.reached["diagnosis"] and (table.images == 3).all()
    assert table.right_so_far.tolist() == pytest.approx([1, 1, 1, 1, 2 / 3, 2 / 3, 2 / 3])
    assert table.right_so_far["diagnosis"] == chain_summary(rows(images)).joint[0]
    failed = chain(rows(images | {"d": answers("rrrfr", NO_LESION)})).set_index("stage")
    assert failed.right_so_far[:"anatomy"].eq(1).all() and failed.right_so_far["presence":].isna().all()
    assert failed.status["size"] == "complete"  # the images that have it were all evaluated


def test_whole_chains_and_what_diagnoses_rest_on():
    found = chain_summary(rows(FOUR)).iloc[0]
    assert (found.n, found.status, found.joint) == (4, "complete", 1 / 4)
    assert (found.ci_low, found.ci_high) == pytest.approx(wilson(1, 4))
    common = 3 / 4 * 1 * 1 * 3 / 4 * 3 / 4  # quality, modality, anatomy, presence, diagnosis
    assert found["product"] == pytest.approx((3 * common * 2 / 3 * 1 / 3 + common) / 4)
    # Seen: a, and d, which has no lesion to miss. Missed: b by its size, c altogether.
    assert (found.n_seen, found.n_missed) == (2, 2)
    assert (found.diagnosis_when_seen, found.diagnosis_when_missed) == (1 / 2, 1)
    assert found.ungrounded == pytest.approx(2 / 3)


def test_the_product_is_that_of_the_accuracies_where_all_images_have_all_stages():
    images = {"a": answers("rrrr", LESION), "b": answers("wrrr", LESION), "c": answers("rwrw", LESION)}
    table, found = chain(rows(images)), chain_summary(rows(images)).iloc[0]
    assert found["product"] == pytest.approx(table.accuracy.prod()) == pytest.approx((2 / 3) ** 3)
    assert found.joint == pytest.approx(1 / 3)


def test_what_has_no_denominator_is_missing_and_not_zero():
    none = rows({"a": answers("wr", ("modality", "anatomy")), "b": answers("wr", ("modality", "anatomy"))})
    table = chain(none).set_index("stage")
    assert list(table.index) == ["modality", "anatomy"]
    assert table.reached["anatomy"] == 0 and math.isnan(table.given_reached["anatomy"])
    found = chain_summary(none).iloc[0]
    assert found.joint == 0 and (found.n_seen, found.n_missed) == (0, 0)
    assert found[["diagnosis_when_seen", "diagnosis_when_missed", "ungrounded"]].isna().all()
    seen = chain_summary(rows({"a": answers("rw", ("presence", "diagnosis"))})).iloc[0]
    assert seen.diagnosis_when_seen == 0 and math.isnan(seen.diagnosis_when_missed) and math.isnan(seen.ungrounded)


def test_a_diagnosis_counts_as_grounded_only_where_a_lesion_was_asked_about():
    images = {"a": answers("rr", ("modality", "diagnosis")), "b": answers("rr", LESION[::3])}
    found = chain_summary(rows(images)).iloc[0]
    assert (found.n, found.n_seen, found.n_missed, found.ungrounded) == (2, 1, 0, 0)


def test_a_question_that_failed_is_no_wrong_answer():
    failed = FOUR | {"b": answers("rrrfrwr")}
    table = chain(rows(failed)).set_index("stage")
    assert table.accuracy[:"anatomy"].tolist() == pytest.approx([3 / 4, 1, 1])
    numbers = ["accuracy", "ci_low", "ci_high", "reached", "given_reached"]
    assert table.loc["presence":, numbers].isna().all(axis=None)
    assert table.status["presence"] == "incomplete: 1 of 4 images not evaluated up to here"
    assert table.status["size"] == "incomplete: 1 of 3 images not evaluated up to here"
    found = chain_summary(rows(failed)).iloc[0]
    assert found.n == 4 and found.status == "incomplete: 1 of 4 images not evaluated"
    assert found.drop(["model", "condition", "n", "status"]).isna().all()


def test_models_and_conditions_are_told_apart():
    several = pd.concat([rows(FOUR), rows(FOUR, polarity="neutral"), rows({"a": FOUR["a"]}, "sft", "positive")])
    summary = chain_summary(several)
    assert summary[["model", "condition", "n"]].to_numpy().tolist() == [
        ["base", "neutral", 4], ["base", "plain", 4], ["sft", "positive", 1],
    ]  # fmt: skip
    assert list(summary) == CHAIN_SUMMARY and list(chain(several)) == CHAIN


def second_question(good: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([good, good[:1].assign(question_id="another")])


REFUSED = {
    "a question_id appears twice": lambda good: pd.concat([good, good[:1]]),
    "a stage of an image has two questions": second_question,
    "different questions": lambda good: pd.concat([good, good[1:].assign(model="sft")]),
    "contradicts the answer": lambda good: good.assign(answer="A"),
    "none of right": lambda good: good.assign(outcome="abstained", answer="B"),
    "no stage": lambda good: good.assign(question_type="Other Biological Attributes"),
    "a value is missing": lambda good: good.assign(answer=None),
    "missing column": lambda good: good.drop(columns="polarity"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_rows_that_are_no_chains_are_refused(why):
    good = rows(FOUR)
    for table in (chain, chain_summary):
        assert len(table(good))
        with pytest.raises(ValueError, match=why):
            table(REFUSED[why](good))
