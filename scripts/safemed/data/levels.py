"""What an image shows, from itself to its kind: the levels of a hierarchy that contrastive losses and probes read."""

import pandas as pd
from datasets import Dataset

from safemed.data.clinical_stages import STAGE_OF
from safemed.data.prompts import gold_text
from safemed.data.records import normalise
from safemed.data.splits import subject

LEVELS = ("image", "subject", "anatomy", "modality")  # of the hierarchy, each within the next where it is told
TOLD = ["image_path", "modality", "question_type", "options", "gold", "finding"]  # columns that levels are read from


def of_images(questions: Dataset) -> pd.DataFrame:
    """What is told of each image that the questions show: a row each, in the order of its first question.

    Columns image_path, image (the path again), subject, anatomy, modality and finding; None where nothing tells it.
    subject is what the file name tells (`splits.subject`), anatomy the modality with the text of the right answer to a
    question for the anatomy, so that the same word in two modalities is two anatomies. finding is the record's: the
    probe of towers votes on it, and it is no level of HSAT's hierarchy, which would train the tower on diagnoses.
    """
    table = questions.select_columns(TOLD).to_pandas()
    first = table.drop_duplicates("image_path").set_index("image_path")
    asked = table[table.question_type.map(STAGE_OF.get) == "anatomy"].drop_duplicates("image_path")
    names = [f"{row['modality']}: {normalise(gold_text(row))}" for row in asked.to_dict("records")]
    anatomy = pd.Series(names, index=asked.image_path, dtype=object)
    told = pd.DataFrame(
        {
            "image": first.index,
            "subject": [subject(path) for path in first.index],
            "anatomy": anatomy.reindex(first.index),
            "modality": first.modality,
            "finding": first.finding,
        },
        index=first.index,
    )
    return told.astype(object).where(told.notna(), None).reset_index()


def labels(told: pd.DataFrame) -> pd.DataFrame:
    """A number for each image (the index) at each of LEVELS that is told of any image, equal where it is the same.

    told: of `of_images`. An image of which a level is not told is alone there, like no other.
    """
    known = [level for level in LEVELS if told[level].notna().any()]
    filled = {level: told[level].where(told[level].notna(), "alone: " + told.image_path) for level in known}
    return pd.DataFrame({level: pd.factorize(values)[0] for level, values in filled.items()}, index=told.image_path)
