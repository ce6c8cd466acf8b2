"""A pickle that would run code."""

import os
from pathlib import Path

import torch


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, sprung: Path):
        self.sprung = sprung

    def __reduce__(self):
        return os.mkdir, (str(self.sprung),)


def set_trap(path: Path, sprung: Path) -> None:
    """Write a file of torch.save that makes the folder `sprung` when it is unpickled; it is shown to do so once."""
    torch.save({"step": Trap(sprung)}, path)
    with open(path, "rb") as file:
        torch.load(file, weights_only=False)
    assert sprung.is_dir()
    sprung.rmdir()
