"""The machine that Snakemake is started on: the folder it runs in, the tools it needs there, and its GPUs."""

import contextlib
import io
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from snakemake.cli import parse_args
from snakemake.settings.types import DeploymentMethod, ExecMode

from safemed.utils import gpus

GPU = "gpu"  # the resource that the rules ask for
EXPANDED = set('"$`\\')  # what a shell reads even between double quotes
INSTEAD = "'--profile slurm --profile workflow/profiles/venv', or without --sdm on one machine"


def faults(workflow) -> list[str]:
    """Why this workflow cannot be run from here, a line each; none where it can, nor in a job that was submitted.

    Rules name configs, scripts and results from the workflow's own folder. A dry run needs no cluster.
    """
    home = Path(workflow.basedir).resolve()
    if workflow.exec_mode != ExecMode.DEFAULT:
        return []
    if Path.cwd().resolve() != home:
        return [f"Snakemake runs in the workflow's folder, where results go, too: cd {shlex.quote(str(home))}"]
    given, conda = _given(), DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
    found = []
    if given.executor == "slurm" and not given.dryrun:
        found += _slurm(home)
    if conda and not shutil.which("conda"):
        found.append(f"There is no conda here: install it, or use the environment of Snakemake itself by {INSTEAD}")
    if not conda and not _is_own_python():
        found.append(f"The jobs' python is not Snakemake's: . {shlex.quote(sys.prefix)}/bin/activate, then start again")
    return found


def _slurm(home: Path) -> Iterator[str]:
    if not shutil.which("sbatch"):
        yield "There is no sbatch here: start on a login node of the cluster, or without --profile slurm"
    if EXPANDED & set(str(home)):  # the executor's scripts put paths into double quotes
        yield f"Slurm's jobs would not find {home}: give it a path without {' '.join(sorted(EXPANDED))}"


def share_gpus(workflow) -> int:
    """Let no more jobs start here at once than this machine has GPUs for, and return that number.

    0, and no limit, where there is none, where a cluster decides, and where --resources gpu=N does.
    """
    if workflow.exec_mode != ExecMode.DEFAULT or GPU in workflow.global_resources:
        return 0
    found = len(gpus.visible()) if _given().executor in (None, "local") else 0
    if found:
        workflow.register_resource(GPU, found)
    return found


def _given() -> Namespace:
    """What the command line and its profiles say: the executor is chosen only once the rules are read."""
    with contextlib.redirect_stderr(io.StringIO()):  # which profile is used has been said
        return parse_args(sys.argv[1:])[1]


def _is_own_python() -> bool:
    """Whether the `python` of a shell has the environment that this one has."""
    if not shutil.which("python"):
        return False
    asked = subprocess.run(["python", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    return Path(asked.stdout.strip()).resolve() == Path(sys.prefix).resolve()
