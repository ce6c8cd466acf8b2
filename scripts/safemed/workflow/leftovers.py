"""What an earlier run left behind: Slurm jobs that go on without a driver, and outputs that nobody has a record of."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile
from snakemake.persistence.file import FilePersistence
from snakemake.settings.types import ExecMode

MADE_BY_SNAKEMAKE = ("rule_", "group_")  # how the comments of its Slurm jobs begin
TOUCH = {"--touch", "-t"}  # the way to keep outputs without a record


def refuse_moved(workflow, results: str) -> None:
    """Raise WorkflowError where a study's folder holds outputs and Snakemake has a record of none of them.

    So it was renamed, or copied from elsewhere. Called when the rules are read, for a run that has nothing to do never
    starts. The way out, --touch, is told from the command line: no executor is chosen yet.
    """
    if workflow.exec_mode != ExecMode.DEFAULT or TOUCH & set(sys.argv):
        return
    records = FilePersistence(nolock=True)
    found = sorted(_outputs(workflow, results))
    if found and not any(records.metadata(IOFile(path)) for path in found):
        raise _no_record(found)


def refuse(workflow, folder: Path) -> None:
    """Raise WorkflowError where an earlier driver's jobs live in Slurm, or an output that is used has no record.

    A living job would be a second writer of what this driver makes again. Of an output without a record Snakemake does
    not know the settings and the code that made it, so a change of them would go unseen: it was copied from
    elsewhere, or a Slurm job finished it after its driver had been killed. Called when a run starts.
    """
    if workflow.touch:
        return
    if workflow.executor_plugin.name == "slurm" and (living := living_jobs(folder)):
        raise WorkflowError(
            f"Slurm has jobs that an earlier Snakemake submitted from here ({', '.join(living.values())}): end them by "
            f"'scancel {' '.join(living)}' (they go on from their checkpoints when they are made again), or wait."
        )
    if unrecorded := outputs_without_record(workflow):
        raise _no_record(unrecorded)


def living_jobs(folder: Path) -> dict[str, str]:
    """Slurm job id -> rule and wildcards, of the jobs that Snakemake submitted from a folder and that live."""
    line = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%A|%k|%Z"]
    asked = subprocess.run(line, capture_output=True, text=True)
    if asked.returncode:
        raise WorkflowError(f"squeue does not say which jobs live: {asked.stderr}")
    jobs = [job.split("|", 2) for job in asked.stdout.splitlines()]
    return {
        number: comment
        for number, comment, place in jobs
        if comment.startswith(MADE_BY_SNAKEMAKE) and Path(place).resolve() == folder.resolve()
    }


def outputs_without_record(workflow) -> list[str]:
    """The outputs of jobs that need not run and of which Snakemake has no record.

    Those of local rules are left out: a download may have been put there by hand.
    """
    return [
        str(output)
        for job in workflow.dag.jobs
        if not (workflow.dag.needrun(job) or workflow.persistence.has_metadata(job))
        if job.rule.name not in workflow._localrules
        for output in job.output
    ]


def _no_record(outputs: Iterable[str]) -> WorkflowError:
    named = " ".join(outputs)
    return WorkflowError(
        f"There is no record here of the settings and code that made these outputs: {named}. They were renamed, copied "
        "or finished when no Snakemake was there. If config and code are still the same, keep them: run Snakemake once "
        f"with '--touch --force {named}' in the place of other targets. Otherwise move them away."
    )


def _outputs(workflow, results: str) -> set[str]:
    """The files and folders in a study's folder that some rule names as its output."""
    named = [str(out) for rule in workflow.rules for out in rule.output]
    patterns = {re.sub(r"(\{[^{}]+\})+", "*", out) for out in named if out.startswith(f"{results}/")}
    return {str(path) for pattern in patterns for path in Path().glob(pattern)}
