"""Where Snakemake is started: in the workflow's folder alone, with the tools that it needs, and one job a GPU."""

import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from snakemake.settings.types import ExecMode

from safemed.workflow import machine
from support.paths import ROOT, SMALLEST_STUDY
from support.programs import bare_path, nvidia_smi, program
from support.snakemake_runs import checkout, planned, snakemake

VENV = ["--profile", "slurm", "--profile", "workflow/profiles/venv"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy, in a folder with a name that a shell would take apart, in which nothing has run."""
    folder = checkout(tmp_path_factory.mktemp("machine") / 'my "repository\'s" $HOME & co')
    (folder / "slurm").symlink_to(os.readlink(ROOT / "slurm"))
    return folder


@pytest.fixture
def bare(tmp_path, monkeypatch) -> Path:
    """The only folder on the path but that of Snakemake: no Slurm, no conda, no GPU; programs can be put there."""
    folder = bare_path(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def refusal(*arguments, cwd: Path) -> list[str]:
    """What a start of Snakemake says that must end before anything is read or run."""
    done = snakemake(*arguments, cwd=cwd)
    assert done.returncode and not (cwd / "results").exists()
    return [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("Using profile")]


@pytest.mark.parametrize("copied", [False, True], ids=["an empty folder", "a copy of the config"])
def test_snakemake_started_elsewhere_is_told_where_to_go(copied, repository, tmp_path):
    if copied:
        shutil.copy(ROOT / "config.yaml", tmp_path)
    (line,) = refusal("-n", "-s", repository / "Snakefile", cwd=tmp_path)
    assert line.startswith("Snakemake runs in the workflow's folder, where results go, too: cd ")
    assert refusal("-n", "--directory", tmp_path, cwd=repository) == [line]
    assert planned(snakemake("-n", "data", "-s", repository / "Snakefile", "--directory", repository, cwd=tmp_path))


def test_the_profile_of_slurm_asks_for_slurm_and_conda_in_a_line_each(bare, repository):
    sbatch, folder, conda = refusal("--profile", "slurm", cwd=repository)
    assert sbatch.startswith("There is no sbatch here: start on a login node") and "no conda here" in conda
    assert folder == f"Slurm's jobs would not find {repository.resolve()}: give it a path without \" $ \\ `"
    (conda,) = refusal("-n", "--profile", "slurm", cwd=repository)
    assert "'--profile slurm --profile workflow/profiles/venv'" in conda
    assert refusal("--cores", 1, "--sdm", "conda", cwd=repository) == [conda]


def test_one_environment_for_all_nodes_needs_no_conda_and_changes_nothing_else(bare, repository):
    assert planned(snakemake("-n", "data", *VENV, cwd=repository))["prepare"] == 1
    assert [line.partition(":")[0] for line in refusal(*VENV, cwd=repository)][:1] == ["There is no sbatch here"]
    own = yaml.safe_load((ROOT / "workflow" / "profiles" / "venv" / "config.yaml").read_text())
    assert own == {"software-deployment-method": "env-modules"}
    assert "envmodules" not in "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))


def test_a_python_that_is_not_snakemakes_is_refused_before_any_job_finds_no_package(bare, repository, monkeypatch):
    monkeypatch.setattr(machine.sys, "prefix", "/my env")
    asked = SimpleNamespace(
        exec_mode=ExecMode.DEFAULT,
        basedir=str(repository),
        deployment_settings=SimpleNamespace(deployment_method=set()),
    )
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "argv", ["snakemake", "--cores", "1"])
    wrong = ["The jobs' python is not Snakemake's: . '/my env'/bin/activate, then start again"]
    assert machine.faults(asked) == wrong
    program(bare / "python", "/usr")
    assert machine.faults(asked) == wrong
    program(bare / "python", "/my env")
    assert machine.faults(asked) == []


@pytest.mark.parametrize("arguments, given", [(["--cores", "8"], {"gpu": 3}), (["--profile", "slurm"], {})])
def test_gpus_are_shared_on_one_machine_and_a_cluster_decides_for_itself(
    arguments, given, bare, repository, monkeypatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "argv", ["snakemake", *arguments])
    nvidia_smi(bare, 3)
    found: dict[str, int] = {}
    workflow = SimpleNamespace(exec_mode=ExecMode.DEFAULT, global_resources=found, register_resource=found.__setitem__)
    assert machine.share_gpus(workflow) == given.get("gpu", 0) and found == given


@pytest.fixture(scope="module")
def two_bases(repository, tiny_model) -> list:
    """The arguments of a run of two jobs that each ask for a GPU, and for no other job but those of the data."""
    models = {"instruct": str(tiny_model), "think": str(tiny_model)}
    study = {"model": {"name": models}, "variants": ["instruct", "think"], "resources": {"base_threads": 1}}
    (repository / "two.yaml").write_text(yaml.safe_dump(study))
    return ["base", "--cores", 2, "--configfile", SMALLEST_STUDY, "two.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("given, order", [([], "started finished " * 2), (["--resources", "gpu=2"], "started " * 2)])
def test_no_two_jobs_share_a_gpu_unless_they_are_told_to(given, order, bare, repository, two_bases, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    nvidia_smi(bare, 1)
    done = snakemake(*two_bases, "--forcerun", "make_base", *given, cwd=repository)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = re.findall(r"^(?:local)?rule make_base:|\(Rule: make_base\)", done.stderr, re.M)
    events = "".join("started " if line.endswith("make_base:") else "finished " for line in seen)
    assert len(seen) == 4 and events.startswith(order), events
