"""A real Slurm cluster on this machine: `snakemake --profile slurm` ends in the report through every fault.

One run of the smallest study meets them in turn: too little memory (make_base), scancel (train_sft), Slurm away for a
while (train_tower), the driver killed (among the evaluations). Others, which are slow, have a training that hangs until
its time is over, and a training on two nodes. Conda is not on every machine that runs these tests: the profile venv is
laid over the other, and all jobs have this environment. Slurm is installed, by apt-get, where INSTALL_SLURM=1 allows.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from benchmarks.slurm import accounting, summary, waits

from support.paths import ROOT, SMALLEST_STUDY, SUPPORT
from support.snakemake_runs import checkout, plan, snakemake
from support.trainings import update

pytestmark = pytest.mark.slurm

SCRIPT = SUPPORT / "slurm" / "cluster.sh"
SMALLEST = ["--configfile", SMALLEST_STUDY]
STUDY = [*SMALLEST, SUPPORT / "few-jobs.yaml"]
PROFILE = Path("workflow/profiles/slurm/config.yaml")
PROFILES = ["--profile", "slurm", "--profile", "workflow/profiles/venv"]
RESULTS = Path("results/smoke")
ON_GPUS = {"make_base", "train_sft", "train_tower", "train_grpo", "attack_model", "certify_model"}
ROWS = ("attacks", "certificates")
SFT_LOG = "train-sft-instruct.log"
AWAY = 20  # seconds


def unavailable() -> str | None:
    """Why there can be no cluster here."""
    if os.geteuid():
        return "Slurm's daemons are started by root"
    if cluster_script("free", folder=Path(tempfile.gettempdir()) / "none").returncode:
        return "this machine belongs to a Slurm cluster"
    if not shutil.which("slurmctld") and os.environ.get("INSTALL_SLURM") != "1":
        return "Slurm is not installed; INSTALL_SLURM=1 lets this test install it by apt-get"
    return None


def cluster_script(*arguments, folder: Path) -> subprocess.CompletedProcess:
    """Run cluster.sh; four CPUs are claimed, so that a job which hangs holds nothing up."""
    env = {**os.environ, "SLURM_SANDBOX": str(folder), "SLURM_CPUS": "4"}
    return subprocess.run(["bash", SCRIPT, *map(str, arguments)], env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def cluster():
    """The folder of a cluster that is up; its daemons are stopped in the end."""
    if reason := unavailable():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # short, for sockets, and open to the database's user
    if not shutil.which("slurmctld") and (done := cluster_script("install", folder=folder)).returncode:
        pytest.skip(f"apt-get cannot install Slurm: {done.stderr[-300:]}")
    done = cluster_script("start", folder=folder)
    try:
        assert done.returncode == 0, done.stderr
        yield folder
    finally:
        cluster_script("clean", folder=folder)


def cluster_checkout(folder: Path) -> Path:
    """A checkout with the profile, in which make_base is given too little memory at its first attempt."""
    return with_profile(checkout(folder))


def with_profile(folder: Path) -> Path:
    """Give a checkout that profile."""
    (folder / "slurm").symlink_to(os.readlink(ROOT / "slurm"))
    profile = yaml.safe_load((folder / PROFILE).read_text())
    asked = profile["set-resources"]
    asked["make_base"] = {**asked["make_base"], "mem_mb": "500 * attempt"}  # it takes some 750
    (folder / PROFILE).write_text(yaml.safe_dump(profile))
    return folder


def driver(folder: Path, *arguments) -> subprocess.Popen:
    """`snakemake --profile slurm` in the background, its words in driver.log."""
    line = [Path(sys.executable).with_name("snakemake"), *PROFILES, *arguments]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with open(folder / "driver.log", "w") as log:
        return subprocess.Popen(list(map(str, line)), cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)


def until(condition, what: str, process: subprocess.Popen, seconds: float = 1200):
    """The first true value of a condition, asked for twice a second while the driver lives."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert process.poll() is None, f"the driver ended ({process.returncode}) before {what}"
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.5)
    return value


def queue(folder: Path, state: str) -> dict[str, str]:
    """Job number -> rule and wildcards, of the folder's jobs in a state, RUNNING or PENDING."""
    told = subprocess.check_output(["squeue", "-h", "-t", state, "-o", "%A|%k|%Z"], text=True)
    jobs = [line.split("|") for line in told.splitlines()]
    return {number: comment for number, comment, place in jobs if Path(place) == folder}


def working(folder: Path, process: subprocess.Popen, rule: str, log: str) -> str:
    """The number of a rule's job, once its program runs, whose log then is there."""
    until((folder / RESULTS / "logs" / log).exists, f"{rule} at work", process)
    return next(number for number, comment in queue(folder, "RUNNING").items() if comment.startswith(f"rule_{rule}"))


@pytest.fixture(scope="module")
def story(cluster, tmp_path_factory) -> SimpleNamespace:
    """The run through all faults: what was seen and said on its way, and sacct's rows."""
    folder = cluster_checkout(tmp_path_factory.mktemp("cluster").resolve() / "repository")
    seen = SimpleNamespace(folder=folder, rc={}, words={}, drivers=[])
    try:
        disturb(seen, cluster)
        pick_up(seen)
        yield seen
    finally:
        end(seen.drivers)


def end(drivers: list[subprocess.Popen]) -> None:
    """End drivers that may still be there."""
    for process in drivers:
        process.kill()
        process.wait()


def disturb(seen: SimpleNamespace, cluster: Path) -> None:
    """From nothing to the first evaluations, where the driver is killed."""
    folder = seen.folder
    seen.drivers.append(process := driver(folder, *STUDY))
    number = working(folder, process, "train_sft", SFT_LOG)
    subprocess.run(["scancel", number], check=True)
    working(folder, process, "train_tower", "train-fare-instruct.log")
    done = cluster_script("outage", AWAY, folder=cluster)
    assert done.returncode == 0, done.stderr
    until(lambda: evaluations(folder) and queue(folder, "RUNNING"), "a second evaluation", process)
    process.kill()
    process.wait()


def pick_up(seen: SimpleNamespace) -> None:
    """What a user does who finds the driver gone, and what is said to each of these commands."""
    folder = seen.folder

    def say(step: str, *arguments) -> None:
        done = snakemake(*PROFILES, *STUDY, *arguments, cwd=folder)
        seen.rc[step], seen.words[step] = done.returncode, done.stdout + done.stderr

    say("at once")
    say("unlock", "--unlock")
    seen.living = queue(folder, "RUNNING") | queue(folder, "PENDING")
    say("while jobs live")
    subprocess.run(["scancel", "--state", "PENDING", *queue(folder, "PENDING")], check=True)
    while queue(folder, "RUNNING"):
        time.sleep(0.5)
    seen.finished = accounting(folder)
    say("when some have finished unseen")
    told = re.search(r"'(--touch --force [^']*)'", seen.words["when some have finished unseen"])
    say("touch", *told[1].split())
    say("again")


def evaluations(folder: Path) -> list[Path]:
    """The rows of the evaluations that are finished, relative to the checkout."""
    found = [path for kind in ROWS for path in (folder / RESULTS / kind).rglob("rows.parquet")]
    return sorted(path.relative_to(folder) for path in found if ".partial" not in str(path))


def programs(number: str, script: str) -> list[int]:
    """The processes of a job that run a script, without the shell around them."""
    told = subprocess.check_output(["scontrol", "listpids", number], text=True).splitlines()[1:]
    pids = ",".join(line.split()[0] for line in told)
    listed = subprocess.run(["ps", "-o", "pid=,args=", "-p", pids], capture_output=True, text=True).stdout
    processes = [line.split(maxsplit=1) for line in listed.splitlines()]
    return [int(pid) for pid, line in processes if line.startswith(f"python scripts/{script}")]


@pytest.fixture(scope="module")
def hanging(cluster, finished_study, tmp_path_factory) -> SimpleNamespace:
    """A training that hangs, of one minute at its first attempt: the folder and the driver's return code."""
    folder = tmp_path_factory.mktemp("hanging").resolve() / "repository"
    process = train_again(folder, finished_study, "train_minutes: 1")
    try:
        number = working(folder, process, "train_sft", SFT_LOG)
        for pid in until(lambda: programs(number, "train_sft.py"), "a training to stop", process):
            os.kill(pid, signal.SIGSTOP)
        yield SimpleNamespace(folder=folder, rc=process.wait(timeout=600))
    finally:
        end([process])


@pytest.fixture(scope="module")
def wide(cluster, finished_study, tmp_path_factory) -> SimpleNamespace:
    """A training by two processes on each of two nodes: the folder and the driver's return code."""
    folder = tmp_path_factory.mktemp("wide").resolve() / "repository"
    process = train_again(folder, finished_study, "train_nodes: 2, train_processes: 2")
    try:
        yield SimpleNamespace(folder=folder, rc=process.wait(timeout=600))
    finally:
        end([process])


def train_again(folder: Path, finished: Path, asked: str) -> subprocess.Popen:
    """The driver of a training in a copy of a finished study, with resources of its own."""
    with_profile(shutil.copytree(finished, folder, symlinks=True))
    (folder / "asked.yaml").write_text(f"resources: {{gpus: 0, {asked}}}\n")
    (folder / RESULTS / "logs" / SFT_LOG).unlink()
    return driver(folder, *SMALLEST, folder / "asked.yaml", "--force", RESULTS / "models" / "sft-instruct")


def attempts(folder: Path, rule: str) -> pd.DataFrame:
    """sacct's rows of a rule of one job, in the order in which it was tried."""
    jobs = accounting(folder)
    return jobs[jobs.Rule == rule].sort_values("Submit")


def test_the_study_ends_in_its_report(story):
    assert story.rc["again"] == 0, story.words["again"][-3000:]
    assert "at-grpo-instruct" in (story.folder / RESULTS / "report.html").read_text()


def test_every_job_is_a_slurm_job_of_the_account_on_the_partition_of_its_rule(story):
    planned = plan(*STUDY, cwd=checkout(story.folder.parent / "fresh"))
    jobs = accounting(story.folder)
    done = jobs[jobs.State == "COMPLETED"]
    local = {rule: planned.pop(rule) for rule in ("all", "write_report")}
    assert set(local.values()) == {1} and Counter(done.Rule) == planned and planned["certify_model"] == 2
    assert set(jobs.Account) == {"lab"}
    for rule, partition, asked, given in zip(jobs.Rule, jobs.Partition, jobs.ReqTRES, jobs.AllocTRES, strict=True):
        assert partition == ("gpu" if rule in ON_GPUS else "cpu")
        for resources in filter(None, (asked, given)):  # what never started was given nothing
            assert ("gres/gpu:a100=1" in resources) == ("gres/gpu=1" in resources) == (rule in ON_GPUS), rule


def test_jobs_on_the_one_gpu_never_overlap(story):
    jobs = accounting(story.folder)
    jobs = jobs[(jobs.Partition == "gpu") & (jobs.ElapsedRaw > 0)].sort_values("Start")
    assert len(jobs) >= 9 and (jobs.Start.to_numpy()[1:] >= jobs.End.to_numpy()[:-1]).all()


def test_the_rows_are_those_of_a_run_that_nothing_disturbed(story, finished_study):
    paths = evaluations(story.folder)
    assert len(paths) == 2 + 2 and set(paths) <= set(evaluations(finished_study))
    for path in paths:
        wanted, found = (
            pd.read_parquet(folder / path).drop(columns="seconds", errors="ignore")
            for folder in (finished_study, story.folder)
        )
        pd.testing.assert_frame_equal(wanted, found)


def test_a_job_out_of_memory_is_tried_again_with_more_of_it(story):
    tried = attempts(story.folder, "make_base")
    (log,) = (story.folder / ".snakemake" / "slurm_logs" / "rule_make_base").rglob(f"{tried.index[0]}.log")
    assert "exceeded memory limit" in log.read_text()  # with cgroups, its state would be OUT_OF_MEMORY
    assert tried.State.tolist() == ["FAILED", "COMPLETED"]
    assert tried.ReqMem.tolist() == ["500M", "1000M"] and tried.Timelimit.tolist() == ["01:00:00", "02:00:00"]


def test_a_training_ended_by_scancel_is_tried_again(story):
    tried = attempts(story.folder, "train_sft")
    assert tried.State.str.split().str[0].tolist() == ["CANCELLED", "COMPLETED"]
    assert tried.ReqMem.tolist() == ["3000M", "6000M"] and tried.Timelimit.tolist() == ["01:00:00", "02:00:00"]


@pytest.mark.slow  # two attempts of a minute and more
def test_a_training_that_hangs_is_ended_by_its_time_limit_and_tried_again_with_more(hanging, finished_study):
    tried = attempts(hanging.folder, "train_sft")
    over = len(tried) - 1  # on a machine with much else to do, two minutes may be short too
    assert hanging.rc == 0 and tried.State.tolist() == ["TIMEOUT"] * over + ["COMPLETED"] and over
    assert tried.Timelimit.tolist() == ["00:01:00", "00:02:00", "00:03:00"][: over + 1]
    assert tried.ReqMem.tolist() == ["3000M", "6000M", "9000M"][: over + 1]
    model = RESULTS / "models" / "sft-instruct" / "model.safetensors"
    assert (hanging.folder / model).read_bytes() == (finished_study / model).read_bytes()


@pytest.mark.slow  # six processes on two cores
def test_a_training_on_two_nodes_takes_the_steps_of_one_process(wide, finished_study):
    tried = attempts(wide.folder, "train_sft")
    assert wide.rc == 0 and tried.State.tolist() == ["COMPLETED"], (wide.folder / "driver.log").read_text()
    assert "cpu=4" in tried.AllocTRES.iloc[0] and "node=2" in tried.AllocTRES.iloc[0]
    model = RESULTS / "models" / "sft-instruct"
    assert json.loads((wide.folder / model / "cost.json").read_text())["processes"] == 4
    base = finished_study / RESULTS / "models" / "base"
    one, two = update(finished_study / model, base), update(wide.folder / model, base)
    assert one.norm() > 0 and (one - two).norm() < 0.02 * one.norm()


def test_while_slurm_is_away_jobs_go_on_and_none_is_forgotten(story):
    tried = attempts(story.folder, "train_tower")
    assert tried.State.tolist() == ["COMPLETED"]


def test_after_the_driver_is_killed_nothing_finished_is_made_again(story):
    jobs = accounting(story.folder)
    done, known = jobs[jobs.State == "COMPLETED"], story.finished[story.finished.State == "COMPLETED"]
    assert not done.Comment.duplicated().any() and len(known) > 8


def test_no_driver_starts_beside_the_living_jobs_of_another(story):
    assert story.rc["at once"] != 0 and "--unlock" in story.words["at once"]
    assert story.rc["unlock"] == 0
    assert story.living and story.rc["while jobs live"] != 0
    named = re.search(r"scancel ([\d ]+)", story.words["while jobs live"])[1].split()
    assert named and set(named) <= set(story.living)  # some may have ended since


def test_what_was_finished_unseen_is_kept_with_a_record_of_its_settings(story):
    assert story.rc["when some have finished unseen"] != 0 and story.rc["touch"] == 0
    unseen = re.search(r"--touch --force ([^']*)'", story.words["when some have finished unseen"])[1].split()
    assert unseen and all((story.folder / path).exists() for path in unseen)
    changed = story.folder / "changed.yaml"
    changed.write_text("attack: {questions: 11}\n")
    assert not plan(*STUDY, cwd=story.folder)
    assert plan(*STUDY, changed, cwd=story.folder)["attack_model"] == 2


def faults(story) -> pd.DataFrame:
    """What each fault cost: seconds of work that were lost, and from there to the next attempt's start."""
    rows = []
    for fault, rule in (("out of memory", "make_base"), ("scancel", "train_sft")):
        tried = attempts(story.folder, rule)
        first, last = tried.iloc[0], tried.iloc[-1]
        asked = [f"{a} -> {b}" for a, b in ((first.ReqMem, last.ReqMem), (first.Timelimit, last.Timelimit))]
        back = (tried.iloc[1].Start - first.End).total_seconds()
        rows.append([fault, rule, first.State.split()[0], len(tried) - 1, *asked, tried.ElapsedRaw[:-1].sum(), back])
    jobs = accounting(story.folder)
    fare, following = (attempts(story.folder, rule).iloc[0] for rule in ("train_tower", "train_grpo"))
    late = (following.Start - fare.End).total_seconds()
    rows.append([f"Slurm away {AWAY} s", "train_tower", fare.State, 0, "", "", 0, late])
    ended = jobs[jobs.State.str.startswith("CANCELLED") & (jobs.Rule != "train_sft")]
    rows.append(["driver killed", "evaluations", "", len(ended), "", "", ended.ElapsedRaw.sum(), float("nan")])
    names = ["fault", "rule", "state", "repeated", "memory", "limit", "lost s", "back after s"]
    return pd.DataFrame(rows, columns=names)


def test_faults_cost_no_more_than_the_attempt_that_they_met(story, capsys):
    table, overhead = faults(story), waits(story.folder)
    with capsys.disabled():
        print(f"\n{table.to_string(index=False)}\n\n{overhead.to_string(index=False)}\n{summary(overhead)}")
    assert (table.repeated[:2] >= 1).all() and table["lost s"].iloc[-2:].sum() == 0
    assert overhead.driver.median() < 60 and overhead[overhead.alone].queue.median() <= 5
