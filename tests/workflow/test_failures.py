"""What failed stands at the end of a run, with its last error, and what a later attempt made good does not."""

import subprocess
import sys

from safemed.workflow import failures
from support.paths import ROOT
from support.snakemake_runs import snakemake

SNAKEFILE = """
import sys
sys.path.insert(0, "{scripts}")
from safemed.workflow import failures

rule all:
    input: expand("out/{{name}}", name=["good", "bad", "late", "dumb"])

rule work:
    output: "out/{{name}}"
    log: "logs/work-{{name}}.log"
    resources: attempt=lambda wildcards, attempt: attempt
    shell: '''
        case {{wildcards.name}}-{{resources.attempt}} in
            good-*|late-2) touch {{output}};;
            late-1) echo "MemoryError: the first attempt" > {{log}}; exit 1;;
            bad-*) printf 'Traceback\\n  File\\nValueError: bad images\\n  0%%| 0/3\\n' > {{log}}; exit 1;;
            *) exit 1;;
        esac
        '''

onerror:
    print(failures.summarise(log), file=sys.stderr)
"""


def test_a_run_ends_with_what_failed_for_good(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(scripts=ROOT / "scripts"))
    done = snakemake("--cores", 1, "--retries", 1, "--keep-going", cwd=tmp_path)
    assert done.returncode
    summary = done.stderr.split("2 failed:\n")[1]
    assert "work (name=bad)\n    ValueError: bad images\n    logs/work-bad.log" in summary
    assert "work (name=dumb)\n    nothing was logged" in summary
    assert "late" not in summary and "good" not in summary and "MemoryError" not in summary


def test_the_last_error_of_many_processes_is_named_and_not_torchruns(tmp_path):
    (tmp_path / "work.py").write_text("raise KeyError('augmentation')\n")
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    done = subprocess.run([*line, str(tmp_path / "work.py")], capture_output=True, text=True)
    assert done.stderr.index("ChildFailedError") > done.stderr.index("KeyError: 'augmentation'")
    (tmp_path / "job.log").write_text(done.stderr)
    assert failures.last_error(tmp_path / "job.log") == "KeyError: 'augmentation'"


def test_a_log_without_an_error_ends_with_its_last_line(tmp_path):
    (tmp_path / "job.log").write_text("step 3\nstep 4\n\n")
    assert failures.last_error(tmp_path / "job.log") == "step 4"


def test_what_the_executor_says_is_told_too(tmp_path):
    """A job that Slurm ends has no error of its own."""
    status = "SLURM-job '7' failed, SLURM status is: 'TIMEOUT'."
    said = ["rule work:", "    log: work.log", "    jobid: 3", "    wildcards: name=a", "", "Error in rule work:"]
    said += [f"    message: {status}", "    jobid: 3", "    log: work.log", ""]
    (tmp_path / "snakemake.log").write_text("\n".join(said))
    assert f"work (name=a)\n    {status}\n" in failures.summarise([tmp_path / "snakemake.log"])


def test_terminal_codes_in_an_error_are_shown_and_not_obeyed(tmp_path):
    (tmp_path / "job.log").write_text("ValueError: question \x1b[2J\x1b]0;title\x07\n")
    assert failures.last_error(tmp_path / "job.log") == "ValueError: question \\x1b[2J\\x1b]0;title\\x07"
