"""What an earlier run left behind: Slurm jobs that go on without a driver, and outputs that nobody has a record of."""

import os
import subprocess
from pathlib import Path

from snakemake.exceptions import WorkflowError

MADE_BY_SNAKEMAKE = ("rule_", "group_")  # how the comments of its Slurm jobs begin


def refuse(workflow, folder: Path) -> None:
    """Raise WorkflowError where an earlier driver's jobs live in Slurm, or an output has no record of how it was made.

    A living job would be a second writer of what this driver makes again. Of an output without a record Snakemake does
    not know the settings and the code that made it, so that a change of them would go unseen: a folder of results that
    was renamed or copied from elsewhere, or what a Slurm job finished after its driver had been killed.
    """
    if workflow.executor_plugin.name == "touch":  # the way to keep such outputs
        return
    if workflow.executor_plugin.name == "slurm" and (living := living_jobs(folder)):
        raise WorkflowError(
            f"Slurm has jobs that an earlier Snakemake submitted from here ({', '.join(living.values())}): end them by "
            f"'scancel {' '.join(living)}' (they go on from their checkpoints when they are made again), or wait."
        )
    if unrecorded := outputs_without_record(workflow):
        outputs = " ".join(unrecorded)
        raise WorkflowError(
            "There is no record here of the settings and code that made these outputs (copied, renamed or finished when "
            f"no Snakemake was there): {outputs}. If the config and the code are still the same, keep them: add "
            f"'--touch --force {outputs}' to your command, once. Otherwise move them away."
        )


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
    """The outputs of jobs that need not run, and of which Snakemake has no record though it did not run them here."""
    return [
        str(output)
        for job in workflow.dag.jobs
        if not (workflow.dag.needrun(job) or job.is_local or workflow.persistence.has_metadata(job))
        for output in job.output
    ]
