"""Hardened questions: options that do not tell the answer, in the same words for right and wrong."""

from collections import Counter
from itertools import combinations
from math import prod

import numpy as np
import pandas as pd
import pytest

from safemed.data import audit
from safemed.data.hardening import harden, make_pool, symmetric
from safemed.data.prompts import LETTERS, gold_text

FREQUENT = {"pneumonia": 40, "fibrosis": 90, "oedema": 60, "nodule": 150, "normal": 180, "effusion": 130, "mass": 110}


def asked(counts: dict[str, int], question_type="Disease Diagnosis", modality="CT") -> pd.DataFrame:
    """Questions right so many times, each beside distractors that are never right, the answer marked by a dot."""
    answers = [text for text, n in counts.items() for _ in range(n)]
    return pd.DataFrame(
        {
            "question_id": [f"{question_type}-{modality}-{i}" for i in range(len(answers))],
            "modality": modality,
            "dataset": "chest",
            "question_type": question_type,
            "image_path": [f"Images/{question_type}-{modality}-{i}.png" for i in range(len(answers))],
            "options": [["a bone", f"{text.upper()}.", "a tooth", "a nail"] for text in answers],
            "gold": "B",
        }
    )


def blind(questions: pd.DataFrame) -> float:
    """Accuracy of the option prior, learned from one half and tested on the other."""
    mixed = questions.sample(frac=1, random_state=0)
    return audit.prior_accuracy(mixed[::2], mixed[1::2]).mean()


def test_elementary_symmetric_polynomials_are_sums_of_products():
    weights = np.array([0.3, 2.0, 0.7, 1.1])
    expected = [sum(prod(part) for part in combinations(weights, k)) for k in range(4)]
    assert symmetric(weights, 3)[-1] == pytest.approx(expected)


def test_every_option_of_a_set_is_right_equally_often():
    pool = make_pool(Counter(FREQUENT))
    assert not pool.always and pool.n_options == 4
    weights = dict(zip(pool.others, pool.weights, strict=True))

    def together(answer, options):  # P(answer is right, these are its options)
        apart = [w for text, w in weights.items() if text != answer]
        drawn = prod(weights[text] for text in options if text != answer)
        return FREQUENT[answer] * drawn / symmetric(np.array(apart), 3)[-1, -1]

    for options in combinations(weights, 4):
        chances = [together(answer, options) for answer in options]
        assert chances == pytest.approx([chances[0]] * 4, rel=1e-6)


def test_sets_are_drawn_as_often_as_their_weights_say():
    pool, rng = make_pool(Counter(FREQUENT)), np.random.default_rng(0)
    drawn = Counter(frozenset(pool.distractors("normal", set(), rng)) for _ in range(20_000))
    weights = {t: w for t, w in zip(pool.others, pool.weights, strict=True) if t != "normal"}
    sets = [frozenset(part) for part in combinations(weights, 3)]
    wanted = np.array([prod(weights[text] for text in part) for part in sets])
    expected = wanted / wanted.sum() * 20_000
    statistic = sum((drawn[part] - e) ** 2 / e for part, e in zip(sets, expected, strict=True))
    assert sum(drawn.values()) == sum(drawn[part] for part in sets) == 20_000
    assert statistic < 43.8  # chi-square, 19 degrees of freedom, p = 0.001


def test_an_answer_too_frequent_to_hide_stands_in_every_set():
    pool = make_pool(Counter({"normal": 60, "cyst": 15, "mass": 13, "scar": 12}), most_options=3)
    assert pool.always == ["normal"]
    assert "normal" in pool.distractors("cyst", set(), np.random.default_rng(0))


def test_the_text_tells_the_answer_before_and_not_after():
    questions = asked(FREQUENT)
    assert blind(questions) == 1.0
    assert blind(harden(questions, seed=0)) < 0.3  # distractors drawn uniformly: 0.4


def test_answers_keep_their_meaning_and_lose_their_marks():
    questions = asked(FREQUENT)
    hardened = harden(questions, seed=0)
    assert hardened["question_id"].tolist() == questions["question_id"].tolist()
    for before, after in zip(questions.to_dict("records"), hardened.to_dict("records"), strict=True):
        assert gold_text(after) == gold_text(before).removesuffix(".")
        assert len(set(after["options"])) == 4
        assert set(after["options"]) <= {text.upper() for text in FREQUENT}
    shares = hardened["gold"].value_counts(normalize=True)
    assert all(0.2 < shares[letter] < 0.3 for letter in LETTERS[:4])


def test_one_form_an_answer():
    questions = asked({"cyst": 6, "mass": 6})
    questions.at[0, "options"] = ["a_bone", "Cyst", "a tooth", "a nail"]
    options = harden(questions, seed=0)["options"].explode()
    assert set(options) == {"CYST", "MASS"}


def test_modality_questions_are_answered_by_the_modality_among_modalities():
    parts = [asked({"some scan": 8, "a scan": 4}, "Modality Recognition", m) for m in ("CT", "MR", "X-ray", "OCT")]
    questions = pd.concat(parts, ignore_index=True)
    hardened = harden(questions, seed=0)
    assert [gold_text(row) for row in hardened.to_dict("records")] == questions["modality"].tolist()
    assert all(sorted(options) == ["CT", "MR", "OCT", "X-ray"] for options in hardened["options"])


def test_a_question_whose_pool_holds_one_answer_is_left_out():
    questions = pd.concat([asked(FREQUENT), asked({"liver": 5}, "Anatomy Identification")], ignore_index=True)
    assert len(harden(questions, seed=0)) == sum(FREQUENT.values())


def test_a_closed_question_is_answered_by_yes_or_no_alone():
    answers = {"yes": 10, "No, the tail is normal": 6, "No, the head is normal": 4, "cyst": 7, "nodule": 5, "mass": 4}
    hardened = harden(asked(answers), seed=0)
    closed = hardened[hardened["options"].map(lambda options: "Yes" in options)]
    assert all(sorted(options) == ["No", "Yes"] for options in closed["options"])
    assert Counter(gold_text(row) for row in closed.to_dict("records")) == {"Yes": 10, "No": 10}
    assert set(hardened.drop(closed.index)["options"].explode()) == {"CYST", "NODULE", "MASS"}


def test_no_two_options_can_both_be_right():
    cysts = {"cyst": 9, "cyst of the kidney": 8, "kidney cyst": 7}
    hardened = harden(asked(FREQUENT | cysts), seed=0)
    assert len(hardened) == sum(FREQUENT.values()) + sum(cysts.values())
    for options in hardened["options"]:
        assert len(options) == 4 and sum("CYST" in text for text in options) <= 1


def test_an_answer_right_for_another_question_on_the_image_is_no_distractor():
    questions = asked({"chest": 40, "lungs": 40, "spine": 40, "knee": 40, "hip": 40})
    questions["image_path"] = [f"Images/{i % 80}.png" for i in range(len(questions))]  # chest and spine share pictures
    hardened = harden(questions, seed=0)
    both = hardened[hardened["options"].map(lambda options: {"CHEST", "SPINE"} <= set(options))]
    assert len(both) and not both["image_path"].isin(questions["image_path"][:40]).any()


def test_a_question_without_a_distractor_is_left_out():
    hardened = harden(asked({"fusiform": 4, "round": 5, "mixed: fusiform, round": 6}), seed=0)
    assert [len(options) for options in hardened["options"]] == [2] * 9


def test_a_finding_that_begins_with_no_is_not_a_no():
    answers = {"No abnormality detected": 6, "Cyst": 6, "Mass": 6, "Nodule": 6}
    hardened = harden(asked(answers), seed=0)
    assert len(hardened) == 24 and all("NO ABNORMALITY DETECTED" in options for options in hardened["options"])


def test_hardening_is_seeded_a_question_at_a_time():
    questions = asked(FREQUENT)
    again = harden(questions.sample(frac=1, random_state=1), seed=0).sort_index()
    assert harden(questions, seed=0)["options"].tolist() == again["options"].tolist()
    assert harden(questions, seed=1)["options"].tolist() != again["options"].tolist()
