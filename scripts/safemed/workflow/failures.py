"""What failed in a run of the workflow, told once more at its end: rule, wildcards, last error, and the job's log."""

import re
from collections.abc import Iterable
from pathlib import Path

from safemed.utils.cli import CONTROL

BLOCK = re.compile(r"^(?:local)?rule (?P<rule>\w+):\n(?P<said>(?:    .*\n)+)", re.M)
ERROR = re.compile(
    r"^Error in rule \w+(?:, .*)?:\n    message: (?P<message>.*)\n(?:    .*\n)*?    jobid: (?P<job>\d+)\n", re.M
)
FINISHED = re.compile(r"^Finished jobid: (?P<job>\d+)\b", re.M)
# Of a training's processes, their own error and not that of torchrun, which follows it.
LAST_WORDS = re.compile(
    r"(?:\[rank\d+\]: )?((?!torch\.distributed\.elastic)[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*)"
)


def summarise(snakemake_logs: Iterable[str]) -> str:
    """A paragraph a job that failed and was not made up for by a later attempt, first failed first.

    snakemake_logs: Snakemake's own logs of the run. Paths in them are relative to the working directory.
    """
    text = "".join(Path(path).read_text() for path in snakemake_logs)
    jobs = {job["jobid"]: job for job in map(_fields, BLOCK.finditer(text))}
    finished = {match["job"] for match in FINISHED.finditer(text)}
    messages = {match["job"]: match["message"] for match in ERROR.finditer(text)}
    failed = {job: message for job, message in messages.items() if job not in finished}
    summarise = [_paragraph(jobs[job], message) for job, message in failed.items() if job in jobs]
    return "\n".join(["", f"{len(failed)} failed:", *summarise])


def last_error(log: Path) -> str:
    """The last line of a job's log that names an error, or else its last line at all; terminal codes are shown."""
    lines = (
        [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    )
    named = [match[1] for line in lines if (match := LAST_WORDS.match(line))]
    return (named or lines or ["nothing was logged: it did not start, or was killed"])[-1].translate(CONTROL)


def _fields(block: re.Match) -> dict:
    """A job as Snakemake announced it: rule, jobid, log, wildcards."""
    said = dict(line.strip().split(": ", 1) for line in block["said"].splitlines() if ": " in line)
    return {"rule": block["rule"], **{name: said.get(name, "") for name in ("jobid", "log", "wildcards")}}


def _paragraph(job: dict, message: str) -> str:
    """One failed job: rule and wildcards, what the executor says (Slurm's status), the job's last error, its log."""
    summarise = f"({job['wildcards']})" if job["wildcards"] else ""
    log = job["log"].split(", ")[0]
    lines = [message if message != "None" else "", last_error(Path(log)) if log else "it has no log", log]
    return "\n    ".join([f"  {job['rule']} {summarise}".rstrip(), *filter(None, lines)])
