"""What failed stands at the end of a run, with its last error, and what a later attempt made good does not."""

from helpers import ROOT, snakemake
from safemed import failures

SNAKEFILE = """
import sys
sys.path.insert(0, "{scripts}")
from safemed import failures

rule all:
    input: expand("out/{{name}}", name=["good", "bad", "late", "dumb"])

rule work:
    output: "out/{{name}}"
    log: "logs/work-{{name}}.log"
    params: attempt=lambda wildcards, output: None
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
    print(failures.told(log), file=sys.stderr)
"""


def test_a_run_ends_with_what_failed_for_good(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(scripts=ROOT / "scripts"))
    done = snakemake("--cores", 1, "--retries", 1, "--keep-going", cwd=tmp_path)
    assert done.returncode
    summary = done.stderr.split("2 failed:\n")[1]
    assert "work (name=bad)\n    ValueError: bad images\n    logs/work-bad.log" in summary
    assert "work (name=dumb)\n    nothing was logged" in summary
    assert "late" not in summary and "good" not in summary and "MemoryError" not in summary


def test_the_last_error_of_many_processes_is_named(tmp_path):
    log = tmp_path / "job.log"
    log.write_text("[rank1]: KeyError: 'view'\nW1125 Sending process 7 closing signal\ntorch exits\n")
    assert failures.last_error(log) == "KeyError: 'view'"
    log.write_text("step 3\nslurmstepd: error: Detected 1 oom_kill event\n")
    assert failures.last_error(log).startswith("slurmstepd: error")
    log.write_text("step 3\nstep 4\n\n")
    assert failures.last_error(log) == "step 4"
