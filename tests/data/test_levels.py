"""What is told of images, and the labels of a hierarchy that are made of it."""

import pandas as pd
from datasets import Dataset

from safemed.data import levels
from safemed.data.prompts import gold_text
from safemed.data.records import normalise


def questions(*rows: tuple) -> Dataset:
    """Questions of (image_path, modality, question_type, options, gold, finding)."""
    return Dataset.from_pandas(pd.DataFrame(rows, columns=levels.TOLD))


ASKED = questions(
    ("Images/MURA/patient01/study1/a.png", "X-ray", "Anatomy Identification", ["Foot", "Hand"], "B", None),
    ("Images/MURA/patient01/study1/a.png", "X-ray", "Disease Diagnosis", ["fracture", "normal"], "A", "fracture"),
    ("Images/MURA/patient01/study2/b.png", "X-ray", "Disease Diagnosis", ["fracture", "normal"], "A", "fracture"),
    ("Images/x/c.png", "CT", "Anatomy Identification", ["Hand.", "foot"], "A", None),
    ("Images/x/d.png", "CT", "Anatomy Identification", ["foot", "liver", "hand"], "C", None),
    ("Images/x/e.png", "CT", "Anatomy Identification", ["liver", "hand"], "A", None),
)


def test_each_image_has_what_its_name_and_its_questions_tell():
    told = levels.of_images(ASKED)
    assert told.image_path.tolist() == list(dict.fromkeys(ASKED["image_path"])) == told.image.tolist()
    assert told.subject.tolist() == ["MURA patient patient01"] * 2 + [None] * 3
    assert told.anatomy.tolist() == ["X-ray: hand", None, "CT: hand", "CT: hand", "CT: liver"]
    assert told.modality.tolist() == ["X-ray", "X-ray", "CT", "CT", "CT"]
    assert told.finding.tolist() == [None, "fracture", None, None, None]  # of the first question


def test_labels_are_equal_where_a_level_is_and_images_without_it_are_alone():
    found = levels.labels(levels.of_images(ASKED))
    assert list(found) == ["image", "subject", "anatomy", "modality"]
    assert found.image.nunique() == 5 and found.modality.tolist() == [0, 0, 1, 1, 1]
    assert found.subject.nunique() == 4 and found.subject.iloc[0] == found.subject.iloc[1]
    assert found.anatomy.nunique() == 4 and found.anatomy.iloc[2] == found.anatomy.iloc[3]


def test_a_level_that_nothing_tells_is_left_out():
    alone = questions(("a.png", "CT", "Disease Diagnosis", ["cyst", "mass"], "A", "cyst"))
    found = levels.labels(levels.of_images(alone))
    assert list(found) == ["image", "modality"]


def test_phantoms_tell_their_anatomy_and_no_subject(train_questions):
    found = levels.labels(levels.of_images(train_questions))
    assert list(found) == ["image", "anatomy", "modality"] and len(found) == found.image.nunique()
    inside = found.groupby("anatomy").modality.nunique()
    assert (inside == 1).all() and found.anatomy.nunique() > found.modality.nunique()


def test_anatomies_of_phantoms_are_the_names_that_are_answered_and_not_letters(train_questions):
    asked = [row for row in train_questions.remove_columns("image") if row["question_type"] == "Anatomy Identification"]
    named = {row["image_path"]: f"{row['modality']}: {normalise(gold_text(row))}" for row in asked}
    told = levels.of_images(train_questions).set_index("image_path")
    assert told.anatomy.dropna().to_dict() == named and len(set(named.values())) > 8
    by_name = {name: set(told.index[told.anatomy == name]) for name in set(named.values())}
    letters = {name: {row["gold"] for row in asked if row["image_path"] in by_name[name]} for name in by_name}
    assert max(map(len, letters.values())) > 1  # one name stands under several letters


def test_findings_and_modalities_of_phantoms_are_names(train_questions):
    told = levels.of_images(train_questions)
    for level in ("modality", "finding"):
        assert set(told[level].dropna()) == set(train_questions[level]) - {None}
        assert told[level].nunique() > 2 and told[level].dropna().str.len().gt(1).all()
