"""Shared fixtures; importing `helpers` puts `scripts/` on the path as running a script does."""

import os
from pathlib import Path

import pandas as pd
import pytest

from support.helpers import SIDE, SPLIT, TINY, command, one_question_about_everything, teach
from support.hub import served
from support.records import audited, prepared

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """120 phantoms of 32 x 32 pixels in OmniMedVQA's layout."""
    folder = tmp_path_factory.mktemp("phantoms") / "source"
    command("make_phantoms.py", "--out", folder, "--images", 120, "--side", SIDE)
    return folder


@pytest.fixture
def hub(monkeypatch):
    """A Hugging Face hub without a file; gives `files`, to be filled, and the `ranges` that it is asked for."""
    with served() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture(scope="session")
def study_data(source) -> Path:
    """A study's data folder made by the commands: questions, texts, drops, counts, splits, audit."""
    folder = source.parent / "data"
    prepared(source, folder, SIDE)
    command("split.py", "--questions", folder / "questions", "--out", folder / "splits.csv", settings=SPLIT)
    audited(folder)
    return folder


@pytest.fixture(scope="session")
def train_questions(study_data):
    """The prepared questions of the training split."""
    from safemed.data.dataset import load_questions

    return load_questions(study_data, "train")


@pytest.fixture(scope="session")
def tiny_model(train_questions, tmp_path_factory) -> Path:
    """A saved model with random weights and a tokenizer of the study."""
    from safemed.models.tiny import build_tiny
    from safemed.models.vlm import save_model
    from safemed.training.pretraining import corpus

    folder = tmp_path_factory.mktemp("models") / "tiny"
    model, processor = build_tiny(corpus(train_questions), TINY, SIDE, seed=0)
    save_model(model, processor, folder)
    return folder


@pytest.fixture(scope="session")
def untrained(tiny_model):
    """The model with random weights, loaded for evaluation."""
    from safemed.models.vlm import VLM

    return VLM.load(tiny_model)


@pytest.fixture(scope="session")
def shown(train_questions):
    """24 questions with one and the same text, so that only the image can tell their answers."""
    return one_question_about_everything(train_questions, 24)


@pytest.fixture(scope="session")
def shown_data(shown, tmp_path_factory) -> Path:
    """`shown` as a study's data folder, all of it in test."""
    folder = tmp_path_factory.mktemp("shown-data")
    shown.save_to_disk(folder / "questions")
    (folder / "questions" / "data-00000-of-00001.arrow").rename(folder / "questions" / "part-00000.arrow")
    pd.DataFrame({"question_id": shown["question_id"], "split": "test"}).to_csv(folder / "splits.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def skilled(tiny_model, shown, tmp_path_factory):
    """A model that answers `shown` rightly in both variants, saved and loaded for evaluation."""
    from safemed.models.vlm import VLM

    folder = tmp_path_factory.mktemp("models") / "skilled"
    teach(tiny_model, shown, folder)
    return VLM.load(folder)
