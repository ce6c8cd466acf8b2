"""What a killed driver leaves behind: Slurm's jobs go on without it, and nobody records what those have finished."""

import os
import subprocess
from pathlib import Path

from snakemake.exceptions import WorkflowError

MADE_BY_SNAKEMAKE = ("rule_", "group_")  # how the comments of its Slurm jobs begin


def refuse_leftovers(workflow, folder: Path) -> None:
    """Raise WorkflowError where jobs of an earlier driver live in Slurm, or have ended well without a record.

    A living one would be a second writer of what this driver makes again. Of one that ended unseen Snakemake does not
    know the settings, so that a change of them would go unseen too. Does nothing where jobs are not Slurm's.
    """
    if workflow.executor_plugin.name != "slurm":
        return
    if living := living_jobs(folder):
        raise WorkflowError(
            f"Slurm has jobs that an earlier Snakemake submitted from here ({', '.join(living.values())}): end them by "
            f"'scancel {' '.join(living)}' (they go on from their checkpoints when they are made again), or wait."
        )
    if unrecorded := outputs_without_record(workflow):
        outputs = " ".join(unrecorded)
        raise WorkflowError(
            "Slurm jobs finished these outputs when no Snakemake was there to record with which settings: "
            f"{outputs}. If the config is still the same, keep them: add '--touch --force {outputs}' to your command, "
            "once. Otherwise remove them."
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
