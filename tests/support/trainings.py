"""The trainers' scripts: their arguments, their checkpoints, and the weights that they end with."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from support.commands import here, kill_once


def training_arguments(data: Path, start: Path, folder: Path, variant: str = "instruct") -> list:
    """The arguments of a trainer's script, checkpoints and result below `folder`."""
    return [
        "--data", data, "--start", start, "--stage", "test", "--name", f"test-{variant}", "--variant", variant,
        "--checkpoint", folder / "checkpoint", "--out", folder / "model",
    ]  # fmt: skip


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


def complete_checkpoints(folder: Path) -> list[Path]:
    """What a killed run can go on from."""
    return [*folder.glob("checkpoint/checkpoint-*/trainer_state.json"), *folder.glob("checkpoint/base.pt")]


def kill_after_the_first_checkpoint(line: list[str], folder: Path) -> None:
    """Start a training, and kill it once it has a checkpoint."""
    kill_once(lambda: complete_checkpoints(folder), line)
    assert not (folder / "model").exists()
