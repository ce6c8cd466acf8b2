"""The trainers' scripts: their arguments, their checkpoints, and the weights that they end with."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from safemed.training import common, targets
from safemed.workflow.trainings import ALTERATIONS
from support.checkpoints import complete_checkpoints
from support.commands import here, kill_once
from support.paths import TEMPLATES
from support.settings import MONITORING


def training_arguments(data: Path, start: Path, folder: Path, variant: str = "instruct", altered: bool = False) -> list:
    """The arguments of a trainer's script, checkpoints and result below `folder`; altered: with altered questions."""
    alterations = ["--templates", TEMPLATES, "--alterations", ALTERATIONS] if altered else []
    return [
        "--data", data, "--start", start, "--stage", "test", "--name", f"test-{variant}", "--variant", variant,
        "--checkpoint", folder / "checkpoint", "--out", folder / "model", "--monitoring", json.dumps(MONITORING),
        *alterations,
    ]  # fmt: skip


def parsed(arguments: list, settings: dict) -> argparse.Namespace:
    """The arguments of a trainer's script, as it has read them."""
    return common.training_parser("").parse_args([*map(str, arguments), "--settings", json.dumps(settings)])


def trainer_arguments(folder: Path, settings: dict) -> dict:
    """The arguments of transformers' TrainingArguments, as the scripts make them."""
    return common.shared_arguments(parsed(training_arguments(folder, folder, folder), settings))


def refused(script: str, data: Path, start: Path, folder: Path, *more, settings: dict) -> str:
    """Run a trainer's script that must fail before it writes a model; returns the error's text."""
    with pytest.raises(Exception) as error:
        here(script, *training_arguments(data, start, folder), *more, settings=settings)
    assert not (folder / "model").exists()
    return str(error.value)


def plain_rows(questions: Dataset, variant: str) -> Dataset:
    """The rows of a training towards plain targets."""
    return common.training_rows(questions, variant, targets.plain(questions, variant))


def weights(folder: Path) -> bytes:
    """The trained weights, to the bit."""
    return (folder / "model" / "model.safetensors").read_bytes()


def update(model: Path, start: Path) -> torch.Tensor:
    """What a training has changed in all weights of a model folder, [D]."""
    before, after = (load_file(folder / "model.safetensors") for folder in (start, model))
    return torch.cat([(after[name] - before[name]).double().flatten() for name in sorted(before)])


def changed_tensors(model: Path, start: Path) -> set[str]:
    """The names of the tensors that a training has changed; asserts that both folders hold the same names."""
    before, after = (load_file(folder / "model.safetensors") for folder in (start, model))
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def kill_after_the_first_checkpoint(line: list[str], folder: Path, processes: int = 1) -> None:
    """Start a training of so many processes, and kill it once it has a checkpoint."""
    kill_once(lambda: complete_checkpoints(folder, processes), line)
    assert not (folder / "model").exists()
