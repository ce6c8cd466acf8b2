"""Command lines of trainings that are each killed once they have a checkpoint: by SIGKILL, long before their end.

killed_trainings.py JOBS: a JSON list of {"line": a script and its arguments, "folder": of checkpoints and model}. Each
is a process of its own, forked from this one, which has imported what takes seconds.
"""

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import datasets  # noqa: F401
import peft  # noqa: F401
import torch  # noqa: F401
import transformers  # noqa: F401
import trl  # noqa: F401

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "scripts")]

from support.checkpoints import complete_checkpoints  # noqa: E402


def killed(line: list[str], folder: str) -> None:
    """Run one of the jobs, and kill it."""
    child = os.fork()
    if not child:
        sys.argv = line
        runpy.run_path(line[0], run_name="__main__")
        os._exit(0)
    deadline = time.monotonic() + 120
    while not complete_checkpoints(Path(folder)):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), f"{line[0]} ended before it had a checkpoint"
        assert time.monotonic() < deadline, f"{line[0]} has no checkpoint"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, f"{line[0]} ended before it was killed"


if __name__ == "__main__":
    for job in json.loads(Path(sys.argv[1]).read_text()):
        killed(**job)
