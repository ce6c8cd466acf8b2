"""Folders of programs that stand in for a machine's own: one without Slurm, conda or a GPU, or with some GPUs."""

import shutil
from pathlib import Path

TOOLS = ("bash", "sh", "env", "uname", "which", "dirname", "true")  # what Snakemake itself calls


def bare_path(folder: Path) -> Path:
    """Make a folder that can be all of PATH."""
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    return folder


def program(path: Path, *lines: str) -> None:
    """Write a program that prints some lines."""
    path.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    path.chmod(0o755)


def nvidia_smi(folder: Path, gpus: int) -> None:
    """Write an nvidia-smi that lists so many GPUs."""
    program(folder / "nvidia-smi", *(f"GPU {i}: NVIDIA H100 (UUID: GPU-{i})" for i in range(gpus)))
