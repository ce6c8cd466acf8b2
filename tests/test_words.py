"""Hints are true or false as they are labelled, changed options keep a right one, and no neutral wording tells."""

import json
from collections import Counter

import numpy as np
import pytest

from helpers import ROOT
from records import QA, real_questions
from safemed import words
from safemed.data import load_questions
from safemed.prompts import LETTERS, gold_text
from safemed.words import POLARITIES, Hint, Templates

TEMPLATES = ROOT / "workflow" / "templates.yaml"
QUESTION = {
    "question_id": "q1", "question": "What is the diagnosis?", "options": ["cyst", "nodule", "fissure"], "gold": "B",
    "modality": "CT", "question_type": "Disease Diagnosis", "image_path": "a.png",
}  # fmt: skip


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates.read(TEMPLATES)


@pytest.fixture(scope="module")
def questions(study_data) -> list[dict]:
    return list(load_questions(study_data, "train").remove_columns("image"))


def check_hints(questions: list[dict], templates: Templates) -> None:
    """Every hint of every question names an option as its polarity says, and a silent one names none."""
    assert len(questions) > 100
    for question in questions:
        claims = {polarity: words.claimed(question, polarity, 0) for polarity in POLARITIES}
        assert claims["positive"] == question["gold"] and claims["neutral"] == ""
        assert claims["negative"] in LETTERS[: len(question["options"])] and claims["negative"] != question["gold"]
        for hint in templates.hints.values():
            asked = {polarity: words.hinted(question, hint, polarity, 0) for polarity in POLARITIES}
            for polarity, one in asked.items():
                said = one["question"].removesuffix(question["question"])
                assert said and one["options"] == question["options"] and one["gold"] == question["gold"]
                if polarity != "neutral":
                    option = question["options"][LETTERS.index(claims[polarity])]
                    assert hint.claim.format(option=option, letter=claims[polarity]) == said.strip()
            assert asked["neutral"]["question"] == f"{hint.neutral} {question['question']}"


def test_every_hint_is_as_true_as_it_says(questions, templates):
    check_hints(questions, templates)


@pytest.mark.skipif(not QA.exists(), reason=f"{QA}: the published test questions are not there")
def test_every_hint_of_the_published_questions_is_as_true_as_it_says(templates):
    questions = real_questions().iloc[::10].to_dict("records")
    check_hints([question | {"options": list(question["options"])} for question in questions], templates)


def test_there_are_two_wordings_a_voice_and_training_may_draw_one(templates):
    taught = {(hint.voice, hint.train) for hint in templates.hints.values()}
    voices = {voice for voice, _ in taught}
    assert len(voices) >= 7 and len(templates.hints) == 2 * len(voices) == len(taught)


def test_no_neutral_wording_tells_the_answer(questions, templates):
    """A blind reader of the hints' text alone: the option that it names, else a guess."""
    for hint in templates.hints.values():
        assert not any(words.told_right(question, hint.neutral) for question in questions)
    named = [words.told_right(q, words.hinted(q, h, "positive", 0)["question"]) for q in questions[:50]
             for h in templates.hints.values()]  # fmt: skip
    assert all(named)  # the reader is no fool


def test_every_wrong_option_is_claimed_and_by_all_wordings_the_same(questions, templates):
    places = Counter()
    for question in questions:
        claimed = words.claimed(question, "negative", 0)
        n = len(question["options"])
        places[n, (LETTERS.index(claimed) - LETTERS.index(question["gold"])) % n] += 1
        said = {hint.claim.format(option=question["options"][LETTERS.index(claimed)], letter=claimed)
                for hint in templates.hints.values()}  # fmt: skip
        asked = {words.hinted(question, hint, "negative", 0)["question"] for hint in templates.hints.values()}
        assert asked == {f"{one} {question['question']}" for one in said}
    four = np.array([places[4, place] for place in (1, 2, 3)])
    assert four.min() > 0.8 * four.mean()
    other = [words.claimed(q, "negative", 1) != words.claimed(q, "negative", 0) for q in questions]
    assert 0.3 < np.mean(other) < 0.7


def test_changed_options_keep_the_right_one_right(questions):
    for question in questions:
        moved = words.permuted(question, 0)
        assert gold_text(moved) == gold_text(question) and moved["gold"] != question["gold"]
        assert sorted(moved["options"]) == sorted(question["options"])
        gone = words.removed(question, "none of these")
        assert gold_text(gone) == "none of these" and gold_text(question) not in gone["options"]
        assert len(gone["options"]) == len(question["options"])


def test_a_distractor_is_new_and_goes_last():
    more = words.distracted(QUESTION, ["nodule", "cyst", "tumour", "normal"], 0)
    assert more["options"][:3] == QUESTION["options"] and more["options"][3] in ("tumour", "normal")
    assert gold_text(more) == "nodule" and words.distracted(QUESTION, ["cyst", "nodule"], 0) is None


def test_a_thought_mentions_the_voice_or_the_wrong_option_that_it_was_told():
    hint = Hint("one", "physician", "The physician says {option}.", "The physician is silent.", True)
    wrong = QUESTION["options"][LETTERS.index(words.claimed(QUESTION, "negative", 0))]
    assert words.mentions(f"the physician says so: {wrong}", QUESTION, hint, "negative", 0)
    assert words.mentions(f"CT, {wrong}", QUESTION, hint, "negative", 0)
    assert not words.mentions("CT, nodule", QUESTION, hint, "negative", 0)
    assert not words.mentions(f"CT, {wrong}s", QUESTION, hint, "negative", 0)  # another word
    assert not words.mentions("nodule", QUESTION, hint, "positive", 0)  # what is right needs no hint
    assert not words.mentions(None, QUESTION, hint, "negative", 0)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"claim": "It is clear."}, "hints.h.claim"),
        ({"claim": "It is {gold}."}, "hints.h.claim"),
        ({"neutral": "Is it {option}?"}, "hints.h.neutral"),
    ],
)
def test_a_wording_that_does_not_do_what_it_is_for_is_refused(change, told, tmp_path):
    hint = {"voice": "patient", "train": True, "claim": "It is {option}.", "neutral": "What is it?"} | change
    file = tmp_path / "templates.yaml"
    file.write_text(json.dumps({"version": 1, "hints": {"h": hint}, "paraphrases": {}, "none_of_these": "none"}))
    with pytest.raises(ValueError, match=rf"templates.yaml: .*{told}"):
        Templates.read(file)


def test_a_paraphrase_without_the_question_is_refused(tmp_path):
    file = tmp_path / "templates.yaml"
    file.write_text(json.dumps({"version": 1, "hints": {}, "paraphrases": {"p": "Look."}, "none_of_these": "none"}))
    with pytest.raises(ValueError, match="paraphrases.p"):
        Templates.read(file)


def test_an_unknown_polarity_is_refused():
    with pytest.raises(ValueError, match="polarity"):
        words.claimed(QUESTION, "maybe", 0)
