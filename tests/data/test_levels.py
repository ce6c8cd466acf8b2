"""What is told of images, and the labels of a hierarchy that are made of it."""

import pandas as pd
from datasets import Dataset

from safemed.data import levels


def questions(*rows: tuple) -> Dataset:
    """Questions of (image_path, modality, question_type, gold, finding)."""
    return Dataset.from_pandas(pd.DataFrame(rows, columns=levels.TOLD))


ASKED = questions(
    ("Images/MURA/patient01/study1/a.png", "X-ray", "Anatomy Identification", "Hand", None),
    ("Images/MURA/patient01/study1/a.png", "X-ray", "Disease Diagnosis", "fracture", "fracture"),
    ("Images/MURA/patient01/study2/b.png", "X-ray", "Disease Diagnosis", "fracture", "fracture"),
    ("Images/x/c.png", "CT", "Anatomy Identification", "hand ", None),
    ("Images/x/d.png", "CT", "Anatomy Identification", "hand", None),
)


def test_each_image_has_what_its_name_and_its_questions_tell():
    told = levels.of_images(ASKED)
    assert told.image_path.tolist() == list(dict.fromkeys(ASKED["image_path"])) == told.image.tolist()
    assert told.subject.tolist() == ["MURA patient patient01"] * 2 + [None] * 2
    assert told.anatomy.tolist() == ["X-ray: hand", None, "CT: hand", "CT: hand"]
    assert told.modality.tolist() == ["X-ray", "X-ray", "CT", "CT"]
    assert told.finding.tolist() == [None, "fracture", None, None]  # of the first question


def test_labels_are_equal_where_a_level_is_and_images_without_it_are_alone():
    found = levels.labels(levels.of_images(ASKED))
    assert list(found) == ["image", "subject", "anatomy", "modality"]
    assert found.image.nunique() == 4 and found.modality.tolist() == [0, 0, 1, 1]
    assert found.subject.nunique() == 3 and found.subject.iloc[0] == found.subject.iloc[1]
    assert found.anatomy.nunique() == 3 and found.anatomy.iloc[2] == found.anatomy.iloc[3]


def test_a_level_that_nothing_tells_is_left_out():
    found = levels.labels(levels.of_images(questions(("a.png", "CT", "Disease Diagnosis", "cyst", "cyst"))))
    assert list(found) == ["image", "modality"]


def test_phantoms_tell_their_anatomy_and_no_subject(train_questions):
    found = levels.labels(levels.of_images(train_questions))
    assert list(found) == ["image", "anatomy", "modality"] and len(found) == found.image.nunique()
    inside = found.groupby("anatomy").modality.nunique()
    assert (inside == 1).all() and found.anatomy.nunique() > found.modality.nunique()
