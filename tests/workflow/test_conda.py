"""The rules run in environments of their own, made by a conda from pip's packages and this machine's Python.

Each environment has what its rules need, and a job has nothing of another environment.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from itertools import dropwhile
from pathlib import Path
from tempfile import mkdtemp

import pytest

from support.environments import ENVS, FOREIGN, HAS_CUDA, KINDS, Job, conda_pin, planned_jobs, rules_with_environment
from support.hub import REVISION, served
from support.paths import SMALLEST_STUDY, SUPPORT
from support.snakemake_runs import checkout, snakemake

pytestmark = [pytest.mark.conda, pytest.mark.slow]

EQUIPMENT = SUPPORT / "conda"
# To be free on the disk: three of the environments have torch.
GIGABYTES = 30 if HAS_CUDA else 10
STUDY = ["--configfile", SMALLEST_STUDY, SUPPORT / "few-jobs.yaml", "--", "all"]
SMALLEST = ["--configfile", SMALLEST_STUDY, "--", "all", "replay"]
# What is fetched: a file of a dataset, and a model of one file.
REPO, FILE, CONTENT, MODEL = "someone/Some", "Some.zip", os.urandom(300_000), "someone/Tiny"
TREE = json.dumps([{"type": "file", "path": "config.json", "size": 2, "oid": "0"}]).encode()


@pytest.fixture(scope="module")
def conda(tmp_path_factory):
    """A conda on the path, and a folder for what it makes: some gigabytes, which are removed in the end."""
    folder = tmp_path_factory.mktemp("conda")
    if ".".join(map(str, sys.version_info[:2])) != conda_pin("python"):
        pytest.skip(f"the channel has this machine's Python, which is not {conda_pin('python')}")
    if shutil.disk_usage(folder).free < GIGABYTES * 2**30:
        pytest.skip(f"less than {GIGABYTES} GB are free below {folder}")
    python = folder / "equipment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "-r", EQUIPMENT / "requirements.txt"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package registry: {done.stderr[-300:]}")
    channel = ["--out", folder / "channels" / "conda-forge", "--pip", conda_pin("pip")]
    subprocess.run([python, EQUIPMENT / "channel.py", *channel], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(EQUIPMENT / "bin"), prepend=os.pathsep)
        patch.setenv("CONDA_STAND_IN_PYTHON", str(python))
        patch.setenv("CONDA_CHANNEL_ALIAS", (folder / "channels").as_uri())
        patch.setenv("RATTLER_CACHE_DIR", str(folder / "cache"))
        # Most modules are never imported: the first job that imports one compiles it.
        patch.setenv("PIP_NO_COMPILE", "1")
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        patch.setenv("PYTHONPATH", str(folder / "elsewhere"))
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def study(conda) -> Path:
    """A checkout with the environments of its rules, which tell what runs in them."""
    folder = checkout(conda / "repository")
    done = snakemake("--sdm", "conda", "--conda-create-envs-only", "--cores", 1, *STUDY, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in KINDS:
        (packages,) = prefix(folder, kind).glob("lib/python*/site-packages")
        shutil.copy(EQUIPMENT / "probe.py", packages / "environment_probe.py")
        (packages / "environment_probe.pth").write_text("import environment_probe\n")
    return folder


def prefix(study: Path, kind: str) -> Path:
    """Where Snakemake has made an environment: beside a copy of its file."""
    text = (ENVS / f"{kind}.yaml").read_text()
    (copy,) = [path for path in (study / ".snakemake" / "conda").glob("*.yaml") if path.read_text() == text]
    return copy.with_suffix("")


def records(study: Path, *arguments) -> list[dict]:
    """Run some targets with conda; what the probe says of every interpreter that ended."""
    with pytest.MonkeyPatch.context() as patch:
        probed = Path(mkdtemp(dir=study.parent))
        patch.setenv("PROBE", str(probed))
        done = snakemake("--sdm", "conda", "--cores", 2, *arguments, cwd=study)
    logs = "".join(f"\n== {path}\n{path.read_text()[-1500:]}" for path in study.glob("results/*/logs/*.log"))
    assert done.returncode == 0, done.stderr[-3000:] + logs
    return [json.loads(path.read_text()) for path in probed.iterdir()]


def program(words: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """A command's words from its program's name on, with no interpreter before it."""
    name, *given = dropwhile(lambda word: word.startswith("-") or Path(word).name.startswith("python"), words)
    return Path(name).name, *given


def run(study: Path, *arguments) -> list[tuple[Job, dict]]:
    """Run some targets with conda; each job, and the record of its interpreter."""
    jobs = planned_jobs(study, *arguments)
    found = {program(record["words"]): record for record in records(study, *arguments)}
    assert found.keys() >= {program(job.words) for job in jobs}
    return [(job, found[program(job.words)]) for job in jobs]


@pytest.fixture(scope="module")
def a_study(study) -> list[tuple[Job, dict]]:
    """Jobs of a short study from the images to its report, and the records of their interpreters."""
    return run(study, *STUDY)


@pytest.fixture(scope="module")
def every_rule(a_study, study) -> list[tuple[Job, dict]]:
    """Jobs of every rule: those of the smallest study that the short one lacks, downloads, an unpacking."""
    done = a_study + run(study, *SMALLEST)
    with served() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(study / "cache"))
        hub.files[f"/datasets/{REPO}/resolve/{REVISION}/{FILE}"] = CONTENT
        hub.files |= {f"/api/models/{MODEL}/tree/{REVISION}": TREE, f"/{MODEL}/resolve/{REVISION}/config.json": b"{}"}
        named = json.dumps({"hub": {"repo": REPO, "revision": REVISION, "file": FILE}})
        done += run(study, "--config", f"data={named}", "--", f"resources/{FILE}")
        named = json.dumps({"name": MODEL, "revision": REVISION})
        done += run(study, "--config", f"model={named}", "--until", "download_model", "--", "base")
    assert (study / "resources" / FILE).read_bytes() == CONTENT
    shutil.make_archive(str(study / "phantoms"), "zip", study / "results" / "smoke" / "data", "source")
    return done + run(study, "--until", "unpack_archive", "--config", 'data={"source": "phantoms.zip"}', "--", "data")


def test_every_rule_runs_in_its_own_environment(every_rule, study):
    assert {job.rule: record["prefix"] for job, record in every_rule} == {
        job.rule: str(prefix(study, job.kind)) for job, _ in every_rule
    }
    assert len({record["prefix"] for _, record in every_rule}) == len(KINDS)


def test_there_is_a_job_of_every_rule(every_rule):
    assert {job.rule for job, _ in every_rule} == rules_with_environment()


def test_no_job_sees_packages_of_another_environment_or_of_the_users(every_rule, study):
    library, scripts = Path(os.__file__).parent, study / "scripts"
    for job, record in every_rule:
        for origin in map(Path, record["origins"].values()):
            standard = library in origin.parents and not {"site-packages", "dist-packages"} & set(origin.parts)
            assert standard or {Path(record["prefix"]), scripts} & set(origin.parents), (job.rule, origin)
        assert not record["user_site"] and not [path for path in record["path"] if path.endswith("elsewhere")]


def test_the_attacks_have_torchattacks_and_no_torchvision(study):
    look = "import importlib.util as u, torchattacks; print(torchattacks.__file__, u.find_spec('torchvision'))"
    home = prefix(study, "attack")
    out = subprocess.run([home / "bin" / "python", "-c", look], capture_output=True, text=True, check=True).stdout
    assert out.startswith(str(home)) and out.endswith(" None\n")


@pytest.mark.parametrize("module, package, kind, output", FOREIGN, ids=[kind for *_, kind, _ in FOREIGN])
def test_a_job_fails_that_imports_what_its_environment_lacks(module, package, kind, output, every_rule, study):
    """Although the environment that Snakemake runs in has it."""
    assert find_spec(package)
    path = study / "scripts" / "safemed" / module
    before = path.read_text()
    path.write_text(before + f"\nimport {package}\n")
    made = f"results/smoke/{output}"
    done = snakemake("--sdm", "conda", "--cores", 1, "--configfile", SMALLEST_STUDY, "--", made, cwd=study)
    path.write_text(before)
    logs = [log.read_text() for log in study.glob("results/smoke/logs/*.log")]
    assert done.returncode and [log for log in logs if f"No module named '{package}'" in log]


def test_processes_that_share_a_training_are_started_by_its_environments_torchrun(every_rule, study):
    (study / "shared.yaml").write_text("resources: {train_processes: 2}\n")  # --config would make the number a text
    shared = ["--configfile", SMALLEST_STUDY, "shared.yaml", "--", "sft"]
    started = [(program(record["words"])[0], record["prefix"]) for record in records(study, *shared)]
    home = str(prefix(study, "train"))
    assert Counter(started)["train_sft.py", home] == 2 and Counter(started)["torchrun", home] == 1
