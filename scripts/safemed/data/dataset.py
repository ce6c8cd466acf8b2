"""The prepared questions: an Arrow dataset and the splits beside it, as every later stage reads them."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, Features, List, Value, concatenate_datasets
from datasets import Image as ImageFeature
from PIL import Image

from safemed.utils.draws import draw
from safemed.utils.files import read_csv

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
SPLIT_COLUMNS = ("question_id", "image_key", "group", "split")  # of splits.csv, all of them text
UNUSED = "unused"  # a prepared question that the split scheme gives to none of them
IDENTITY = "identity.json"  # in the questions' folder: changes when any text or image does
FEATURES = Features(
    {
        "question_id": Value("string"),
        "dataset": Value("string"),
        "modality": Value("string"),
        "question_type": Value("string"),
        "question": Value("string"),
        "options": List(Value("string")),
        "gold": Value("string"),
        "finding": Value("string"),
        "image_path": Value("string"),
        "image_key": Value("string"),
        "dhash": Value("string"),
        "box": List(Value("int32")),  # x0, y0, x1, y1 of the lesion in the image's pixels; [] where it is not known
        "organ": List(Value("int32")),  # the same of the organ
        "image": ImageFeature(),
    }
)


def read_questions(folder: Path) -> Dataset:
    """All prepared questions, memory-mapped. Raises FileNotFoundError where the folder holds none."""
    parts = sorted(folder.glob("part-*.arrow"))
    if not parts:
        raise FileNotFoundError(f"{folder}: no part-*.arrow; run the rule prepare")
    return concatenate_datasets([Dataset.from_file(str(part)) for part in parts])


def read_splits(folder: Path, questions: Dataset) -> pd.DataFrame:
    """splits.csv, a row a prepared question, in their order; ValueError where it is not of these questions."""
    splits = read_csv(folder / "splits.csv", SPLIT_COLUMNS)
    if splits["question_id"].tolist() != list(questions["question_id"]):
        raise ValueError(f"{folder / 'splits.csv'} is not of the questions beside it; re-run split_questions")
    return splits


def load_questions(folder: Path, split: str, only: dict[str, str] | None = None) -> Dataset:
    """The prepared questions of one split, in the order of splits.csv.

    folder: a study's data folder, holding `questions` (Arrow) and splits.csv (question_id, split). only: a column ->
    the one value kept, such as {"modality": "CT"}. Raises ValueError for an unknown split, or where nothing is left.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    questions = read_questions(folder / "questions")
    wanted = (read_splits(folder, questions)["split"] == split).to_numpy()
    for column, value in (only or {}).items():
        wanted = wanted & (np.array(questions[column]) == value)
    if not wanted.any():
        raise ValueError(
            f"{folder / 'splits.csv'}: no question in split {split!r}{f' with {only}' if only else ''}; "
            "audit/composition.csv says what there is, and the rule audit_questions why"
        )
    return questions.select(np.flatnonzero(wanted))


def subset(questions: Dataset, n: int, seed: int) -> Dataset:
    """At most n questions drawn by a hash of their ids: the same ones for the same (questions, n, seed).

    A question's rank does not depend on the others, so few change when questions come or go. Fewer than n are told.
    """
    if len(questions) < n:
        log.warning("%d questions are asked for, and the split has %d: all of them are taken", n, len(questions))
    ids = list(questions["question_id"])  # a Dataset reads a whole row for each id that is asked of it
    order = sorted(range(len(ids)), key=lambda i: draw(seed, ids[i], "subset"))
    return questions.select(sorted(order[:n]))


def as_array(image: Image.Image) -> np.ndarray:
    """A prepared image as uint8 [H, W, 3]."""
    return np.asarray(image.convert("RGB"))


def as_arrays(images: Iterable[Image.Image]) -> np.ndarray:
    """Prepared images as uint8 [B, H, W, 3]."""
    return np.stack([as_array(image) for image in images])
