"""The GPUs of a machine: which of them a program may use, and one of several for each program."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from itertools import takewhile
from pathlib import Path
from typing import IO

CHANGES_NO_RESULT = True  # any GPU of a machine will do
VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: list[IO] = []  # the lock of this program's GPU, until it ends


def visible() -> list[str]:
    """The names of the GPUs that CUDA shows to a program: those of CUDA_VISIBLE_DEVICES, or all that nvidia-smi lists.

    CUDA itself is not asked, nor torch: the first that does fixes what a program sees.
    """
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()
    numbers = [str(number) for number in range(sum(line.startswith("GPU ") for line in listed))]
    if VISIBLE not in os.environ:
        return numbers
    named = [name.strip() for name in os.environ[VISIBLE].split(",")]
    # CUDA looks no further than the first that is not there.
    return [*takewhile(lambda name: name in numbers or name.startswith(("GPU-", "MIG-")), named)]


def take_one() -> None:
    """Leave this program one of several visible GPUs, which no other that called this has, until it ends.

    The first where all are taken. Nothing changes where at most one is visible, nor in the processes of torchrun, which
    have one each. To be called before CUDA is used, which reads CUDA_VISIBLE_DEVICES once.
    """
    if "LOCAL_RANK" in os.environ or len(names := visible()) < 2:
        return
    os.environ[VISIBLE] = next(filter(_locked, names), names[0])


def _locked(name: str) -> bool:
    """Whether no other program of this user has a GPU; if so, this one has it from now on."""
    file = open(Path(tempfile.gettempdir()) / f"safemed-{os.getuid()}-gpu-{name}.lock", "a")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _held.append(file)
    return True
