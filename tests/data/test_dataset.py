"""The prepared questions are read by split, by part, and as a subset that does not depend on their order."""

import pandas as pd
import pytest

from safemed.data import dataset
from safemed.data.dataset import SPLITS, subset


def test_subset_is_the_same_whatever_the_order_and_changes_with_the_seed(train_questions):
    n = 40
    chosen = subset(train_questions, n, 0)["question_id"]
    assert len(set(chosen)) == n
    assert list(chosen) == list(subset(train_questions, n, 0)["question_id"])
    assert set(chosen) == set(subset(train_questions.shuffle(seed=3), n, 0)["question_id"])
    assert set(chosen) != set(subset(train_questions, n, 1)["question_id"])
    assert set(subset(train_questions, n // 2, 0)["question_id"]) < set(chosen)
    fewer = train_questions.filter(lambda question: question["question_id"] != chosen[0])
    assert set(chosen[1:]) < set(subset(fewer, n, 0)["question_id"])
    assert len(set(subset(train_questions, n, 0)["modality"])) >= 6


def test_a_split_of_fewer_questions_than_are_asked_for_is_told(train_questions, caplog):
    assert len(subset(train_questions, len(train_questions), 0)) == len(train_questions) and not caplog.text
    assert len(subset(train_questions, 10**6, 0)) == len(train_questions)
    assert f"1000000 questions are asked for, and the split has {len(train_questions)}" in caplog.text


def test_load_questions_gives_the_split_of_splits_csv(study_data):
    splits = pd.read_csv(study_data / "splits.csv")
    for name in SPLITS:
        expected = splits.question_id[splits.split == name].tolist()
        assert list(dataset.load_questions(study_data, name)["question_id"]) == expected and expected
    with pytest.raises(ValueError, match="split"):
        dataset.load_questions(study_data, "dev")


def test_a_part_of_a_split_is_all_of_it_that_fits(study_data, train_questions):
    part = dataset.load_questions(study_data, "train", {"modality": "CT", "question_type": "Disease Diagnosis"})
    expected = train_questions.filter(lambda q: q["modality"] == "CT" and q["question_type"] == "Disease Diagnosis")
    assert list(part["question_id"]) == list(expected["question_id"]) and len(part)
    with pytest.raises(ValueError, match="no question .* with .*Staging"):
        dataset.load_questions(study_data, "train", {"question_type": "Staging"})


def test_splits_of_other_questions_are_refused(study_data, tmp_path):
    (tmp_path / "questions").symlink_to(study_data / "questions")
    pd.read_csv(study_data / "splits.csv")[1:].to_csv(tmp_path / "splits.csv", index=False)
    with pytest.raises(ValueError, match="re-run split_questions"):
        dataset.load_questions(tmp_path, "train")
