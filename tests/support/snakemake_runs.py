"""Snakemake in a checkout: real runs, and what a dry run plans.

Every run is a process of its own. It is forked from one that has imported Snakemake's modules, which saves the seconds
of these imports. None of ours may be among them, so this module imports none: a checkout's Snakefile finds its own.
"""

import contextlib
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from support.paths import ROOT

COPIED = ("Snakefile", "config.yaml", "scripts", "workflow", "envs")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "snakemake.cli", "snakemake.dag", "snakemake.report", "snakemake.scheduling.job_scheduler",
        "snakemake.workflow", "snakemake_executor_plugin_slurm", "jsonschema", "pandas", "pygments", "scipy.stats",
    ]
)  # fmt: skip


def snakemake(*arguments, cwd: Path, programs: Path | None = None) -> subprocess.CompletedProcess:
    """Run Snakemake to its end, with the commands of this interpreter's environment first on the path.

    programs: a folder to be put before them.
    """
    line = ["snakemake", *map(str, arguments)]
    first = [programs, Path(sys.executable).parent] if programs else [Path(sys.executable).parent]
    environment = {**os.environ, "PATH": os.pathsep.join([*map(str, first), os.environ["PATH"]])}
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        process = FORKS.Process(target=_run, args=(line, cwd, environment, streams))
        process.start()
        process.join()
        return subprocess.CompletedProcess(line, process.exitcode, *(path.read_text() for path in streams))


def _run(line: list[str], cwd: Path, environment: dict[str, str], streams: list[Path]) -> None:
    """Become a `snakemake` of its own: its folder, environment, arguments and streams."""
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = line

    from snakemake.cli import main

    main()


def plan(*arguments, cwd: Path) -> Counter:
    """Rule -> number of jobs that a run would start."""
    return planned(snakemake("-n", *arguments, cwd=cwd))


def planned(done: subprocess.CompletedProcess) -> Counter:
    """Rule -> number of jobs, of a dry run's output."""
    assert done.returncode == 0, done.stdout + done.stderr
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal ", done.stdout + done.stderr, re.DOTALL)
    assert table or "Nothing to be done" in done.stdout + done.stderr
    return Counter({name: int(n) for name, n in (line.split() for line in table[1].splitlines())} if table else {})


def commands(done: subprocess.CompletedProcess, script: str) -> list[dict[str, list[str]]]:
    """The options of each planned command of a script, of a dry run's output with --printshellcmds."""
    lines = re.findall(rf"^Shell command: .*?scripts/{script} (.*?) > \S+ 2>&1$", done.stdout, re.M)
    found = []
    for words in map(shlex.split, lines):
        places = [i for i, word in enumerate(words) if word.startswith("--")]
        ends = [*places[1:], len(words)]
        found.append({words[i]: words[i + 1 : end] for i, end in zip(places, ends, strict=True)})
    return found


def checkout(folder: Path) -> Path:
    """A copy of what a study needs of the repository, to run and to edit in."""
    folder.mkdir(parents=True)
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


@contextlib.contextmanager
def replaced(path: Path, old: str, new: str) -> Iterator[None]:
    """Within the block, the file's one `old` reads `new`."""
    before = path.read_text()
    assert before.count(old) == 1, f"{path} holds {before.count(old)} of {old!r}"
    path.write_text(before.replace(old, new))
    try:
        yield
    finally:
        path.write_text(before)
