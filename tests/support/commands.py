"""The scripts, run as the rules run them: to their end, in this process, or until they are killed."""

import json
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from support.paths import ROOT, SCRIPTS

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]


def command_line(script: str, *arguments, settings: dict | None = None) -> list[str]:
    """How a rule calls a script."""
    given = [] if settings is None else ["--settings", json.dumps(settings)]
    return [sys.executable, str(SCRIPTS / script), *map(str, arguments), *given]


def by_two_processes(line: list[str]) -> list[str]:
    """The command line of a script, started by torchrun in two processes."""
    return [*TORCHRUN, *line[1:]]


def finish(line: list[str], fails: bool = False) -> str:
    """Run a command line to its end; asserts that it succeeds, or `fails`, and returns what it wrote to stderr."""
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert bool(done.returncode) == fails, done.stderr[-3000:]
    return done.stderr


def command(script: str, *arguments, settings: dict | None = None, fails: bool = False) -> str:
    """Run a script as a rule does; asserts that it succeeds, or `fails`, and returns what it wrote to stderr."""
    return finish(command_line(script, *arguments, settings=settings), fails)


def here(script: str, *arguments, settings: dict | None = None) -> None:
    """Run a script in this process, which saves the seconds of its imports."""
    before = sys.argv
    sys.argv = command_line(script, *arguments, settings=settings)[1:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.argv = before


def evaluation_arguments(data: Path, weights: Path | str, out: Path) -> list:
    """What a rule gives every script that evaluates a model, of a thinking one."""
    model = ["--weights", weights, "--model", "sft-think", "--method", "sft", "--variant", "think"]
    return ["--data", data, *model, "--out", out]


def kill_once(ready: Callable[[], object], line: list[str]) -> None:
    """Start a command, and kill all its processes without warning once something is there, long before its end."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None and time.monotonic() < deadline, "nothing to kill it at appeared"
        time.sleep(0.01)
    for one in (*psutil.Process(process.pid).children(recursive=True), process):  # torchrun's have their own sessions
        one.kill()
    process.wait()


def killed_after(least: int, line: list[str], shards: Path) -> list[Path]:
    """Start a job, kill it once it has written `least` shards, and return those it left."""
    kill_once(lambda: len(list(shards.glob("[0-9]*.json"))) >= least, line)
    return list(shards.glob("[0-9]*.json"))
