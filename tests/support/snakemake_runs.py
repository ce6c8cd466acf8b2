"""Snakemake in a checkout: real runs, and what a dry run plans.

Every run is a process of its own. It is forked from one that has imported Snakemake's modules, and none of ours, which
saves the seconds of these imports; safemed is imported from the checkout.
"""

import contextlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from support.paths import ROOT

RULE_FILES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
COPIED = ("Snakefile", "config.yaml", "scripts", "workflow", "envs")
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "snakemake.cli", "snakemake.dag", "snakemake.report", "snakemake.scheduling.job_scheduler",
        "snakemake.workflow", "snakemake_executor_plugin_slurm", "jsonschema", "pandas", "pygments", "scipy.stats",
    ]
)  # fmt: skip


def snakemake(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    """Run Snakemake to its end, with the commands of this interpreter's environment first on the path."""
    line = ["snakemake", *map(str, arguments)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
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


def rules() -> dict[str, str]:
    """Rule -> its text, of all rule files; after the text of the rule that it uses."""
    texts = "".join(path.read_text() for path in RULE_FILES)
    parts = re.split(r"^(?:use )?rule (?:(\w+) as )?(\w+)(?: with)?:\n", texts, flags=re.M)[1:]
    found: dict[str, str] = {}
    for base, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        found[name] = found.get(base, "") + text
    return found
