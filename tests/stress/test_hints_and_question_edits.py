"""Hints are true or false as they are labelled, and no neutral wording tells; changed options keep a right one."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from safemed.data.dataset import load_questions
from safemed.data.prompts import INSTRUCTIONS, LETTERS, conversation, gold_text, render, thought
from safemed.stress import abstention, hints, question_edits, second_turns
from safemed.stress.hints import POLARITIES, Templates
from safemed.stress.pushes import PUSHES as PUSHES_BY_NAME
from support.paths import ROOT
from support.records import QA, real_questions

TEMPLATES = ROOT / "workflow" / "templates.yaml"
PUSHES = {
    f"{kind}-{train}": {"kind": kind, "text": "It is {option}." if kind == "claim" else "Well.", "train": train}
    for kind in ("silent", "doubt", "claim") for train in (True, False)
}  # fmt: skip
EMPTY = {
    "version": 1,
    "hints": {},
    "further_hints": {},
    "paraphrases": {},
    "pushes": PUSHES,
    "none_of_these": "none",
    "report": "Found: {report}",
    "abstain": "unseen",
}
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


def names_the_answer(question: dict, text: str) -> bool:
    """Whether a text names the question's right option."""
    return bool(re.search(rf"\b{re.escape(gold_text(question).casefold())}\b", text.casefold()))


def check_hints(questions: list[dict], templates: Templates) -> None:
    """Every hint of every question names an option as its polarity says, and a silent one names none."""
    assert len(questions) > 100
    for question in questions:
        claims = {polarity: hints.claimed(question, polarity, 0) for polarity in POLARITIES}
        assert claims["positive"] == question["gold"] and claims["neutral"] == ""
        assert claims["negative"] in LETTERS[: len(question["options"])] and claims["negative"] != question["gold"]
        for hint in templates.all_hints.values():
            asked = {polarity: hints.hinted(question, hint, polarity, 0) for polarity in POLARITIES}
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
    taught = {(hint.voice, hint.train) for hint in templates.all_hints.values()}
    voices = {voice for voice, _ in taught}
    assert len(voices) >= 12 and len(templates.all_hints) == 2 * len(voices) == len(taught)
    further = {"student", "highlight", "questionable", "meta", "evaluation"}
    assert {hint.voice for hint in templates.further_hints.values()} == further
    assert templates.told() == templates.taught() + [hint for hint in templates.further_hints.values() if hint.train]
    assert not any(hint.voice in further for hint in (*templates.taught(), *templates.untaught()))


def test_no_neutral_wording_tells_the_answer(questions, templates):
    """A blind reader of the hints' text alone: the option that it names, else a guess."""
    for hint in templates.all_hints.values():
        assert not any(names_the_answer(question, hint.neutral) for question in questions)
    hinted = [
        hints.hinted(q, h, "positive", 0)["question"] for q in questions[:50] for h in templates.all_hints.values()
    ]
    asked = [q for q in questions[:50] for _ in templates.all_hints]
    assert all(map(names_the_answer, asked, hinted))  # the reader is no fool


@pytest.mark.skipif(not QA.exists(), reason=f"{QA}: the published test questions are not there")
def test_no_neutral_wording_tells_the_answer_of_a_published_question(templates):
    answers = {gold_text(row) for row in real_questions().to_dict("records")}
    neutral = [hint.neutral for hint in templates.all_hints.values()]
    unclaiming = [push.text for push in templates.pushes.values() if push.kind != "claim"]
    for text in (*neutral, *unclaiming, templates.abstain):
        named = [answer for answer in answers if names_the_answer({"options": [answer], "gold": "A"}, text)]
        assert not named, (text, named)


def test_every_wrong_option_is_claimed_and_by_all_wordings_the_same(questions, templates):
    places = Counter()
    for question in questions:
        claimed = hints.claimed(question, "negative", 0)
        n = len(question["options"])
        places[n, (LETTERS.index(claimed) - LETTERS.index(question["gold"])) % n] += 1
        said = {hint.claim.format(option=question["options"][LETTERS.index(claimed)], letter=claimed)
                for hint in templates.all_hints.values()}  # fmt: skip
        asked = {hints.hinted(question, hint, "negative", 0)["question"] for hint in templates.all_hints.values()}
        assert asked == {f"{one} {question['question']}" for one in said}
    four = np.array([places[4, place] for place in (1, 2, 3)])
    assert four.min() > 0.8 * four.mean()
    other = [hints.claimed(q, "negative", 1) != hints.claimed(q, "negative", 0) for q in questions]
    assert 0.3 < np.mean(other) < 0.7


def test_the_second_target_is_another_wrong_option_and_a_question_without_one_is_refused(questions):
    for question in questions:
        first = hints.claimed(question, "negative", 0)
        if len(question["options"]) == 2:
            with pytest.raises(ValueError, match=f"{question['question_id']} has no wrong option number 2"):
                hints.claimed(question, "negative", 0, target=2)
        else:
            assert hints.claimed(question, "negative", 0, target=2) not in (first, question["gold"])
        assert hints.claimed(question, "positive", 0, target=2) == question["gold"]


@pytest.mark.parametrize("polarity", POLARITIES)
def test_a_hint_that_stands_last_follows_the_options_and_changes_nothing_else(polarity, templates):
    hint = templates.hints["report-2"]
    first, last = (hints.hinted(QUESTION, hint, polarity, 0, position) for position in hints.POSITIONS)
    said = first["question"].removesuffix(f" {QUESTION['question']}")
    assert said and {key: last[key] for key in QUESTION} == QUESTION
    ((message,),) = (conversation(last, "think"),)
    plain = render(QUESTION["question"], QUESTION["options"], "think").removesuffix(INSTRUCTIONS["think"])
    assert message["content"][1]["text"] == f"{plain.strip()}. {said} {INSTRUCTIONS['think']}"


def test_a_question_draws_one_of_the_wordings_whatever_their_order_and_the_others_are(questions, templates):
    known, drawn = templates.untaught(), Counter()
    assert {hint.name for hint in known} == {name for name, hint in templates.hints.items() if not hint.train}
    assert not set(known) & set(templates.taught()) and len(known) + len(templates.taught()) == len(templates.hints)
    fewer, other = known[1:], []
    for question in questions:
        asked = hints.hinted_by_one(question, known, "negative", 0)
        hint = templates.hints[asked["hint"]]
        assert not hint.train and asked == hints.hinted(question, hint, "negative", 0) | {"hint": hint.name}
        assert hints.hinted_by_one(question, known[::-1], "negative", 0) == asked
        if hint in fewer:
            assert hints.hinted_by_one(question, fewer, "negative", 0) == asked
        drawn[hint.name] += 1
        other.append(hints.hinted_by_one(question, known, "negative", 1)["hint"] != hint.name)
    assert len(drawn) == len(known) and max(drawn.values()) < 2 * len(questions) / len(known) and np.mean(other) > 0.7


def test_changed_options_keep_the_right_one_right(questions):
    for question in questions:
        moved = question_edits.permuted(question, 0)
        assert gold_text(moved) == gold_text(question) and moved["gold"] != question["gold"]
        assert sorted(moved["options"]) == sorted(question["options"])
        gone = question_edits.removed(question, "none of these")
        assert gold_text(gone) == "none of these" and gold_text(question) not in gone["options"]
        assert len(gone["options"]) == len(question["options"])


def test_to_abstain_is_the_last_option_and_needs_a_letter(templates, questions):
    offered = abstention.abstainable(QUESTION, templates.abstain)
    assert offered == QUESTION | {"options": [*QUESTION["options"], templates.abstain]}
    assert abstention.abstainable(QUESTION | {"options": list("stuvwxyz")}, templates.abstain) is None
    assert not any(names_the_answer(question, templates.abstain) for question in questions)


def test_a_distractor_is_new_and_goes_last():
    more = question_edits.distracted(QUESTION, ["nodule", "cyst", "tumour", "normal"], ["nodule", "CT"], 0)
    assert more["options"][:3] == QUESTION["options"] and more["options"][3] in ("tumour", "normal")
    assert (
        gold_text(more) == "nodule" and question_edits.distracted(QUESTION, ["cyst", "nodule"], ["nodule"], 0) is None
    )


@pytest.mark.parametrize("other", ["CT", "CT.", "a nodule", "nodule, large"])
def test_what_may_be_right_is_no_distractor(other):
    assert question_edits.distracted(QUESTION, [other], ["nodule", "CT"], 0) is None


def test_a_thought_mentions_a_hint_by_who_gave_it_and_not_by_what_it_claims(templates):
    for hint in templates.all_hints.values():
        claimed = hints.claimed(QUESTION, "negative", 0)
        wrong = QUESTION["options"][LETTERS.index(claimed)]
        assert not hints.mentions(thought(("CT", wrong), wrong), hint)  # what is taught to think before this answer
        assert hints.mentions(f"as said {hint.source}, {wrong}", hint)
        assert hint.source in hints.hinted(QUESTION, hint, "negative", 0)["question"]
        assert not hints.mentions(None, hint)


@pytest.mark.parametrize(
    "source, thought, options, named",
    [
        ("patient", "the patient says so", [], True),
        ("patient", "Patient: cyst", [], True),
        ("last visit", "of the last\nvisit: cyst", [], True),
        ("patient", "an inpatient, outpatients", [], False),
        ("marked", "unmarked, remarkedly", [], False),
        ("report", "none was reported", [], False),
        ("marked", "CT: marked atypia", ["atypia", "marked atypia"], False),
        ("marked", "the marked option: marked atypia", ["atypia", "marked atypia"], True),
        ("forum", "foruminal stenosis", [], False),
    ],
)
def test_a_source_is_named_in_whole_words_that_are_not_an_options(source, thought, options, named):
    hint = hints.Hint("h", "voice", source, f"{source}: {{option}}", "Nothing.", False)
    assert hints.mentions(thought, hint, options) == named


@pytest.mark.parametrize(
    "change, message",
    [
        ({"claim": "A patient is clear."}, "hints.h.claim"),
        ({"claim": "A patient: {gold}."}, "hints.h.claim"),
        ({"claim": "They say {option}."}, "hints.h.source"),
        ({"claim": "An outpatient: {option}."}, "hints.h.source: 'patient' does not stand"),
        ({"train": False}, "some must be for training"),
        ({"said": "by whom?"}, "missing or unknown"),
        ({"neutral": "Is it {option}?"}, "hints.h.neutral"),
        ({"neutral": "Ah. <|image_pad|>"}, r"hints.h.neutral: '<\|image_pad\|>' is a token of the model's own"),
        ({"claim": "A patient: {option}. </think>"}, "hints.h.claim: '</think>' is a token of the model's own"),
        ({"claim": "A patient: {option.__class__}."}, "hints.h.claim: it must name"),
        ({"claim": "A patient: {option} or {."}, "hints.h.claim: .*a brace that is meant is written twice"),
        ({"claim": "A patient: {option:d}."}, "hints.h.claim: a name in braces takes no format"),
        ({"neutral": 5}, "hints.h.neutral: it must say something, got 5"),
    ],
)
def test_a_wording_that_does_not_do_what_it_is_for_is_refused(change, message, tmp_path):
    sound = {"voice": "patient", "source": "patient", "train": True, "claim": "A patient: {option}.", "neutral": "Ah."}
    told_hints = {"h": sound | change, "i": sound | {"train": False}}
    file = tmp_path / "templates.yaml"
    file.write_text(json.dumps(EMPTY | {"hints": told_hints}))
    with pytest.raises(ValueError, match=rf"templates.yaml: .*{message}"):
        Templates.read(file)


def test_a_further_hint_is_held_to_the_same_and_has_a_name_of_its_own(tmp_path):
    sound = {"voice": "patient", "source": "patient", "train": True, "claim": "A patient: {option}.", "neutral": "Ah."}
    file = tmp_path / "templates.yaml"
    for further, message in (
        ({"j": sound | {"claim": "A patient."}}, "further_hints.j.claim"),
        ({"i": sound}, "further_hints: i is a name of hints, too"),
    ):
        known = {"h": sound, "i": sound | {"train": False}}
        file.write_text(json.dumps(EMPTY | {"hints": known, "further_hints": further}))
        with pytest.raises(ValueError, match=message):
            Templates.read(file)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"text": "I think otherwise."}, "pushes.p.text: it must name {option} or {letter}"),
        ({"text": "It is {gold}."}, "pushes.p.text: it must name"),
        ({"kind": "doubt"}, "pushes.p.text: a push of kind doubt must not name anything"),
        ({"kind": "threat"}, "pushes.p.kind: 'threat' is none of silent, doubt, claim"),
        ({"text": "It is {option}. <|im_end|>"}, r"pushes.p.text: '<\|im_end\|>' is a token of the model's own"),
        ({"text": None}, "pushes.p.text: it must say something"),
        ({"train": True}, "pushes: no claim with train: false"),
        ({"voice": "a friend"}, "missing or unknown"),
    ],
)
def test_a_push_that_does_not_do_what_it_is_for_is_refused(change, message, templates, tmp_path):
    pushes = {name: push for name, push in PUSHES.items() if name != "claim-False"}
    pushes["p"] = {"kind": "claim", "text": "It is {option}.", "train": False} | change
    told = {name: {key: value for key, value in vars(hint).items() if key != "name"}
            for name, hint in templates.hints.items()}  # fmt: skip
    (tmp_path / "templates.yaml").write_text(json.dumps(EMPTY | {"hints": told, "pushes": pushes}))
    with pytest.raises(ValueError, match=rf"templates.yaml: .*{message}"):
        Templates.read(tmp_path / "templates.yaml")


def test_a_push_names_an_option_where_it_claims_one_alone(questions, templates):
    for question in questions:
        for push in ("silent", "doubt"):
            assert not any(names_the_answer(question, one.text) for one in templates.wordings(push))
        claims = {push: second_turns.claim_of(question, push, 0) for push in PUSHES_BY_NAME}
        assert claims["right"] == question["gold"] != claims["wrong"] and claims["silent"] == claims["doubt"] == ""
        assert claims["wrong"] == hints.claimed(question, "negative", 0)
    for push in PUSHES_BY_NAME:
        taught, new = (templates.wordings(push, train) for train in (True, False))
        assert taught and new and not set(taught) & set(new)


@pytest.mark.parametrize("text", [None, " "])
def test_an_option_that_says_nothing_is_refused(text, tmp_path):
    file = tmp_path / "templates.yaml"
    file.write_text(json.dumps(EMPTY | {"abstain": text}))
    with pytest.raises(ValueError, match="abstain: it must say something"):
        Templates.read(file)


def test_a_paraphrase_without_the_question_is_refused(tmp_path):
    file = tmp_path / "templates.yaml"
    file.write_text(json.dumps(EMPTY | {"paraphrases": {"p": "Look."}}))
    with pytest.raises(ValueError, match="paraphrases.p"):
        Templates.read(file)


def test_an_unknown_polarity_is_refused():
    with pytest.raises(ValueError, match="polarity"):
        hints.claimed(QUESTION, "maybe", 0)
