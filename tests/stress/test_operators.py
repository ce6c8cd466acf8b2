"""Operators of a red team: whatever is put together, a question keeps one right option; only what was named changes."""

import re
from itertools import combinations

import numpy as np
import pytest
import torch

from safemed.data.dataset import SPLITS, as_arrays, load_questions
from safemed.data.prompts import LETTERS, conversation, gold_text
from safemed.stress import hints, marks
from safemed.stress.changed_questions import ChangedQuestions
from safemed.stress.corruptions import ssim
from safemed.stress.hints import Templates
from safemed.stress.operators import KINDS, Operator, conflicting, named
from safemed.stress.stress_tests import CLEAN, StressInputs
from support.paths import TEMPLATES
from support.records import QA, real_questions

WORDS = Templates.read(TEMPLATES)
UNTAUGHT = {hint.name for hint in WORDS.untaught()}


def changed_questions(rows: list[dict], images: torch.Tensor, seed: int = 0) -> ChangedQuestions:
    return ChangedQuestions(StressInputs(rows, {CLEAN: images}, set(), rows, WORDS, seed))


@pytest.fixture(scope="module")
def phantoms(study_data) -> ChangedQuestions:
    """All questions about all 120 phantoms."""
    splits = [load_questions(study_data, split) for split in SPLITS]
    rows = [row for questions in splits for row in questions.remove_columns("image")]
    images = np.concatenate([as_arrays(questions["image"]) for questions in splits])
    return changed_questions(rows, torch.from_numpy(images))


def some_sets(questions: ChangedQuestions, place: int, silent: bool) -> list[frozenset[Operator]]:
    """Every operator alone, and a set of every number of kinds that go together, drawn."""
    offered = questions.offered(place, silent)
    rng, sets = np.random.default_rng(place), [frozenset([one]) for one in offered]
    for size in range(2, len(KINDS)):
        drawn = frozenset(offered[int(i)] for i in rng.choice(len(offered), size, replace=False))
        sets += [] if conflicting(drawn) else [drawn]
    return sets


def check_right_option(questions: ChangedQuestions, place: int, operators: frozenset[Operator]) -> None:
    """One option is right: the original's text, or its declared substitute; what was wrong is still there and wrong."""
    before, after = questions.inputs.rows[place], questions.changed(place, operators).row
    kinds = {one.kind for one in operators}
    right = WORDS.none_of_these if "removed" in kinds else gold_text(before)
    assert gold_text(after) == right and after["options"].count(right) == 1, named(operators)
    wrong = {option for option in before["options"] if option != gold_text(before)}
    assert wrong <= set(after["options"]) and ("removed" in kinds) == (gold_text(before) not in after["options"])
    more = set(after["options"]) - {right, *wrong}
    assert len(more) == sum(int(one.variant) for one in operators if one.kind == "added")
    assert not more & questions.inputs.truths[before["image_path"]]
    assert len(set(after["options"])) == len(after["options"]) <= len(LETTERS)


def check_claim(questions: ChangedQuestions, place: int, operators: frozenset[Operator]) -> None:
    """What is claimed is one of the original's wrong options, under the letter that it has now."""
    before, made = questions.inputs.rows[place], questions.changed(place, operators)
    claims = {one.claim for one in operators} - {-1}
    assert bool(made.claimed) == bool(claims)
    if claims:
        text = made.row["options"][LETTERS.index(made.claimed)]
        assert made.claimed != made.row["gold"] and text in before["options"] and text != gold_text(before)


@pytest.mark.parametrize("silent", [False, True])
def test_every_set_of_operators_keeps_a_right_option_of_every_phantom(phantoms, silent):
    seen = set()
    for place in range(len(phantoms)):
        for operators in some_sets(phantoms, place, silent):
            if not any(one.kind == "corruption" for one in operators) or place % 40 == 0:
                check_right_option(phantoms, place, operators)
                check_claim(phantoms, place, operators)
                seen |= {one.kind for one in operators}
    assert seen == set(KINDS)


@pytest.mark.skipif(not QA.exists(), reason=f"{QA}: the published test questions are not there")
def test_every_set_of_operators_keeps_a_right_option_of_published_questions():
    rows = real_questions().iloc[::200].to_dict("records")
    rows = [row | {"options": list(row["options"]), "image_path": row["question_id"], "box": []} for row in rows]
    questions = changed_questions(rows, torch.zeros(len(rows), 64, 64, 3, dtype=torch.uint8))
    for place in range(len(rows)):
        for operators in some_sets(questions, place, silent=False):
            if not {"corruption", "label"} & {one.kind for one in operators}:
                check_right_option(questions, place, operators)
                check_claim(questions, place, operators)


def test_all_wordings_claims_places_and_orders_are_offered_but_none_that_training_draws(phantoms):
    for place in range(0, len(phantoms), 20):
        offered = phantoms.offered(place)
        n = len(phantoms.inputs.rows[place]["options"])
        said = [one for one in offered if one.kind == "hint"]
        assert len(said) == len(set(said)) == len(UNTAUGHT) * 2 * (n - 1)
        assert {one.variant.split(" ")[0] for one in said} == UNTAUGHT
        assert sum(one.kind == "order" for one in offered) == n - 1
        assert len({gold for one in offered if one.kind == "order"
                    for gold in phantoms.changed(place, {one}).row["gold"]}) == n - 1  # fmt: skip


def test_the_first_claim_is_that_of_the_stress_tests_and_another_is_another(phantoms):
    row = phantoms.inputs.rows[0]
    claims = [phantoms.changed(0, {one}).claimed for one in phantoms.offered(0) if one.variant == "report-2 first"]
    assert claims[0] == hints.claimed(row, "negative", 0) and len(set(claims)) == len(row["options"]) - 1


def test_a_hint_stands_before_the_question_or_after_its_options(phantoms):
    row = phantoms.inputs.rows[0]
    for position in hints.POSITIONS:
        made = phantoms.changed(0, {Operator("hint", f"report-2 {position}", 0)})
        said = WORDS.hints["report-2"].claim.format(option=row["options"][LETTERS.index(made.claimed)], letter="")
        text = conversation(made.row, "think")[0]["content"][1]["text"]
        places = [text.index(part) for part in (said, row["question"], f"A) {row['options'][0]}", "Think in")]
        assert np.argsort(places).tolist() == ([0, 1, 2, 3] if position == "first" else [1, 2, 0, 3])


def test_silent_operators_name_no_option(phantoms):
    """Nor may the words that they say instead."""
    for place in range(0, len(phantoms), 10):
        row = phantoms.inputs.rows[place]
        for one in phantoms.offered(place, silent=True):
            assert one.claim == -1
            if one.kind == "hint":
                made = phantoms.changed(place, {one})
                words = f"{made.row['question']} {made.row.get('after', '')}".replace(row["question"], "")
                assert WORDS.hints[one.variant.split(" ")[0]].neutral in words
                assert not any(re.search(rf"\b{re.escape(option)}\b", words) for option in row["options"])
        assert marks.SILENT_LABEL not in row["options"]


def test_a_label_and_a_corruption_alone_change_the_image_and_what_is_asked_for_stays_visible(phantoms):
    for place in range(0, len(phantoms), 60):
        clean = phantoms.inputs.images[CLEAN][place].numpy()
        for one in phantoms.offered(place):
            image = phantoms.changed(place, {one}).image
            assert (image != clean).any() == (one.kind in ("label", "corruption")), one
            if one.kind == "corruption":
                assert ssim(clean, image) > 0.9


def test_the_quality_of_an_image_is_not_asked_for_after_it_was_made_worse(phantoms):
    row = phantoms.inputs.rows[0]
    kinds = {}
    for asked in ("Image Quality", "Disease Diagnosis"):
        questions = changed_questions([row | {"question_type": asked}], phantoms.inputs.images[CLEAN][:1])
        kinds[asked] = {one.kind for one in questions.offered(0)}
    assert kinds["Disease Diagnosis"] - kinds["Image Quality"] == {"corruption"}


def test_operators_that_conflict_are_refused(phantoms):
    removed, added, order = Operator("removed"), Operator("added", "1"), Operator("order", "1")
    hint, label, other = Operator("hint", "report-2 last", 0), Operator("label", "", 0), Operator("label", "", 1)
    pairs = {(removed, added), (hint, other), (label, other)}
    for pair in combinations([removed, added, order, hint, label, other], 2):
        assert conflicting(pair) == (pair in pairs)
    with pytest.raises(ValueError, match="cannot stand in one set: added 1 . removed"):
        phantoms.changed(0, {removed, added})


def test_seed_question_and_operators_alone_decide(phantoms):
    some = slice(0, 40, 8)
    rows, images = phantoms.inputs.rows[some], phantoms.inputs.images[CLEAN][some]
    again = ChangedQuestions(StressInputs(rows[::-1], {CLEAN: images.flip(0)}, set(), phantoms.inputs.rows, WORDS, 0))
    for place in range(len(rows)):
        for operators in some_sets(phantoms, place * 8, silent=False)[::7]:
            one, other = phantoms.changed(place * 8, operators), again.changed(len(rows) - 1 - place, operators)
            assert one.row == other.row and one.claimed == other.claimed and (one.image == other.image).all()
