"""What the tests of the trainers share."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from datasets import Dataset


@pytest.fixture(scope="session")
def questions(train_questions) -> Dataset:
    """Eight questions on eight different images."""
    paths = train_questions["image_path"]
    first = [i for i, path in enumerate(paths) if path not in paths[:i]]
    return train_questions.select(first[:: len(first) // 8][:8])


@pytest.fixture(scope="session")
def learned(shown_data, tmp_path_factory) -> Path:
    """The questions that the skilled model has learned, but for a few in the training split."""
    folder = shutil.copytree(shown_data, tmp_path_factory.mktemp("learned") / "data")
    splits = pd.read_csv(folder / "splits.csv", dtype=str)
    splits["split"] = ["train" if i % 4 else "val" for i in range(len(splits))]
    splits.to_csv(folder / "splits.csv", index=False)
    return folder
