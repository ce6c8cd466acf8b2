"""Shared fixtures. What costs some seconds to make is made once, and shared by all processes of a test run."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from support.commands import command
from support.forked_scripts import forked_scripts
from support.hub import served
from support.paths import SMALLEST_STUDY
from support.records import audited, prepared
from support.settings import SIDE, SPLIT, TINY
from support.snakemake_runs import checkout, snakemake

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}

# These files take longest. Where several processes share the tests they start first, so that none of them is left at
# the end; those that mostly wait stand before all others.
LONGEST = (
    "test_slurm",
    "test_conda",
    "test_study",
    "test_thinking_study",
    "test_processes",
    "test_resume",
    "test_reruns",
    "test_preflight",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest before the others."""
    items.sort(key=lambda item: (*LONGEST, item.path.stem).index(item.path.stem))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """made_once(name, make): the folder `name` that make(folder) has filled, by the first process that asked for it."""
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = common / name, common / f"{name}.done"
        with FileLock(common / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                make(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def source(made_once) -> Path:
    """120 phantoms of 32 x 32 pixels in OmniMedVQA's layout."""
    return made_once(
        "source", lambda folder: command("make_phantoms.py", "--out", folder, "--images", 120, "--side", SIDE)
    )


@pytest.fixture
def hub(monkeypatch):
    """A Hugging Face hub without a file; gives `files`, to be filled, and the `ranges` that it is asked for."""
    with served() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture(scope="session")
def vocabulary(made_once) -> Path:
    """The ranks of Qwen's own vocabulary."""
    from support import qwen

    try:
        return made_once("qwen-vocabulary", qwen.fetch)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no package registry: {error.stderr[-300:]}")


@pytest.fixture(scope="session")
def study_data(source, made_once) -> Path:
    """A study's data folder made by the commands: questions, texts, drops, counts, splits, audit."""

    def make(folder: Path) -> None:
        prepared(source, folder, SIDE)
        command("split.py", "--questions", folder / "questions", "--out", folder / "splits.csv", settings=SPLIT)
        audited(folder)

    return made_once("study-data", make)


@pytest.fixture(scope="session")
def train_questions(study_data):
    """The prepared questions of the training split."""
    from safemed.data.dataset import load_questions

    return load_questions(study_data, "train")


@pytest.fixture(scope="session")
def tiny_model(train_questions, made_once) -> Path:
    """A saved model with random weights and a tokenizer of the study."""
    from safemed.models.tiny import build_tiny
    from safemed.models.vlm import save_model
    from safemed.training.pretraining import corpus

    def make(folder: Path) -> None:
        model, processor = build_tiny(corpus(train_questions, ["instruct", "think"]), TINY, SIDE, seed=0)
        save_model(model, processor, folder)

    return made_once("tiny", make)


@pytest.fixture(scope="session")
def untrained(tiny_model):
    """The model with random weights, loaded for evaluation."""
    from safemed.models.vlm import VLM

    return VLM.load(tiny_model)


@pytest.fixture(scope="session")
def shown(train_questions):
    """24 questions with one and the same text, so that only the image can tell their answers."""
    from support.taught_model import one_question_about_everything

    return one_question_about_everything(train_questions, 24)


@pytest.fixture(scope="session")
def shown_data(shown, made_once) -> Path:
    """`shown` as a study's data folder, all of it in test."""

    def make(folder: Path) -> None:
        shown.save_to_disk(folder / "questions")
        (folder / "questions" / "data-00000-of-00001.arrow").rename(folder / "questions" / "part-00000.arrow")
        splits = pd.DataFrame({"question_id": shown["question_id"], "split": "test"})
        splits.to_csv(folder / "splits.csv", index=False)

    return made_once("shown-data", make)


@pytest.fixture(scope="session")
def skilled(tiny_model, shown, made_once):
    """A model that answers `shown` rightly as instruct and as think, saved and loaded for evaluation."""
    from safemed.models.vlm import VLM
    from support.taught_model import teach

    both = ["instruct", "think"]
    return VLM.load(made_once("skilled", lambda folder: teach(tiny_model, shown, folder, variants=both)))


@pytest.fixture(scope="session")
def skilled_in_all(tiny_model, shown, made_once):
    """The same of a model that answers rightly in all variants."""
    from safemed.models.vlm import VLM
    from support.taught_model import teach

    return VLM.load(made_once("skilled-in-all", lambda folder: teach(tiny_model, shown, folder)))


@pytest.fixture(scope="session")
def finished_study(made_once) -> Path:
    """A checkout in which the smallest whole study has run to its report; not to be changed."""

    def make(folder: Path) -> None:
        with forked_scripts() as programs:
            done = snakemake("--cores", 2, "--configfile", SMALLEST_STUDY, cwd=checkout(folder), programs=programs)
        logs = "".join(f"\n== {path}\n{path.read_text()[-1500:]}" for path in folder.glob("results/*/logs/*.log"))
        assert done.returncode == 0, done.stderr[-3000:] + logs

    return made_once("finished-study", make)


@pytest.fixture(scope="module")
def study(finished_study, tmp_path_factory) -> Path:
    """A copy of the finished study, to be edited and run on in."""
    return shutil.copytree(finished_study, tmp_path_factory.mktemp("study") / "repository", symlinks=True)
