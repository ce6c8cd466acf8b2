"""What the driver itself costs on a Slurm cluster: how long a job waits for Snakemake, and how long for Slurm.

    snakemake --profile slurm --configfile tests/support/smallest-study.yaml && python benchmarks/slurm.py .

Of all jobs that were submitted from a folder, by sacct and Snakemake's logs: seconds from the end of the last job that
a job needs to its submission (the driver must have noticed), from there to its start (the queue; where nothing else
ran, Slurm alone), and both together.
"""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

FIELDS = (
    "JobIDRaw", "State", "Submit", "Start", "End", "ElapsedRaw", "Account", "Partition", "ReqMem", "Timelimit",
    "ReqTRES", "AllocTRES", "Comment", "WorkDir",
)  # fmt: skip


def accounting(folder: Path) -> pd.DataFrame:
    """sacct's row of each job that was submitted from a folder, indexed by its number; times are datetimes."""
    line = ["sacct", "--allocations", "--duplicates", "--parsable2", "--starttime", "now-7days"]
    told = subprocess.run([*line, f"--format={','.join(FIELDS)}"], capture_output=True, text=True, check=True).stdout
    header, *rows = (row.split("|") for row in told.splitlines())
    jobs = pd.DataFrame(rows, columns=header).set_index("JobIDRaw")
    for name in ("Submit", "Start", "End"):
        jobs[name] = pd.to_datetime(jobs[name], errors="coerce")
    jobs["ElapsedRaw"] = jobs.ElapsedRaw.astype(int)
    jobs["Rule"] = jobs.Comment.str.extract(r"^rule_(.*?)(?:_wildcards_.*)?$")[0]
    return jobs[[Path(place).resolve() == folder.resolve() for place in jobs.WorkDir]]


def submissions(folder: Path) -> dict[str, tuple[set[str], set[str]]]:
    """Slurm's number of a job -> its inputs and its outputs, by Snakemake's logs; a retried job has several numbers."""
    found = {}
    for log in sorted(folder.glob(".snakemake/log/*.snakemake.log")):
        files, jobs = {}, {}
        for line in log.read_text().splitlines():
            if told := re.match(r"    (input|output|jobid): (.*)", line):
                files[told[1]] = set(told[2].split(", "))
                if told[1] == "jobid" and "output" in files:  # else of a job that failed, told before
                    jobs[told[2]] = files.get("input", set()), files["output"]
                    files = {}
            if told := re.match(r"Job (\d+) has been submitted with SLURM jobid (\d+)", line):
                found[told[2]] = jobs[told[1]]
    return found


def waits(folder: Path) -> pd.DataFrame:
    """Seconds that each job waited for the driver, for Slurm, and for both, after the last job that it needed ended.

    Only first attempts of what needed another job of the same run. `alone`: no other job ran between the two times.
    """
    jobs, files = accounting(folder), submissions(folder)
    done, seen, rows = jobs[jobs.State == "COMPLETED"], set(), []
    for number, job in jobs.loc[[number for number in jobs.index if number in files]].sort_values("Submit").iterrows():
        inputs, outputs = files[number]
        needed = done.loc[[other for other in done.index if other in files and inputs & files[other][1]]]
        if not needed.empty and not outputs & seen and job.State == "COMPLETED":
            ended, others = needed.End.max(), jobs.drop(number)
            rows.append(
                {
                    "rule": job.Rule,
                    "driver": (job.Submit - ended).total_seconds(),
                    "queue": (job.Start - job.Submit).total_seconds(),
                    "both": (job.Start - ended).total_seconds(),
                    "alone": not ((others.Start < job.Start) & (others.End > job.Submit)).any(),
                }
            )
        seen |= outputs
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """The medians in words."""
    alone = table[table.alone].queue.median()
    return (
        f"median seconds of {len(table)} jobs: from the end of what a job needs to its submission "
        f"{table.driver.median():.0f} (largest {table.driver.max():.0f}), from submission to start "
        f"{table.queue.median():.0f}, where nothing else ran {alone:.0f}"
    )


def main() -> None:
    table = waits(Path(sys.argv[1]))
    print(f"{table.to_string(index=False)}\n{summary(table)}")


if __name__ == "__main__":
    main()
