"""The environments: they hold what the rules' programs import and no more, resolve, and are what the rules run in."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from importlib.metadata import packages_distributions, requires
from importlib.util import find_spec
from itertools import dropwhile
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from safemed.utils import dependencies
from support.hub import REVISION, served
from support.paths import ROOT, SMALLEST_STUDY
from support.snakemake_runs import checkout, rules, snakemake

ENVS = ROOT / "envs"
KINDS = sorted(path.stem for path in ENVS.glob("*.yaml"))
EQUIPMENT = ROOT / "tests" / "support" / "conda"
# What torch's CUDA build brings, and fixes itself; the CPU build has none of it.
CUDA = re.compile("nvidia-|cuda-|triton")
# To be free on the disk: three of the environments have torch.
GIGABYTES = 30 if any(map(CUDA.match, requires("torch"))) else 10
# Targets that together run every rule but those that fetch and unpack the archive.
EVERYTHING = ["--", "all", "replay"]
SMALLEST = ["--configfile", SMALLEST_STUDY, *EVERYTHING]
# What is fetched: a file of a dataset, and a model of one file.
REPO, FILE, CONTENT, MODEL = "someone/Some", "Some.zip", os.urandom(300_000), "someone/Tiny"
TREE = json.dumps([{"type": "file", "path": "config.json", "size": 2, "oid": "0"}]).encode()
# What an environment must not hold: a module of its rules' programs, a package, and an output of such a rule.
FOREIGN = [
    ("report/tables/rows.py", "torch", "report", "tables/cost.csv"),
    ("probes.py", "trl", "attack", "sanity/sft-instruct"),
    ("certifier.py", "torchattacks", "certify", "certificates/at-grpo-instruct/choice-sigma0.25/1-of-2"),
    ("splits.py", "matplotlib", "data", "data/splits.csv"),
]


class Job(NamedTuple):
    """A planned job: its rule, the environment that the rule names, and the words of its command."""

    rule: str
    kind: str
    words: tuple[str, ...]


def requirements(name: str) -> list[str]:
    """What a file of envs/ gives to pip."""
    text = (ENVS / name).read_text()
    if name.endswith(".txt"):
        return [line for line in text.splitlines() if line and not line.startswith("#")]
    return next(part["pip"] for part in yaml.safe_load(text)["dependencies"] if isinstance(part, dict))


def pins(lines: list[str]) -> dict[str, str]:
    """Distribution -> version; every line must be `name==version`."""
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines]
    assert all(found), f"not exact: {[line for line, pin in zip(lines, found, strict=True) if not pin]}"
    return {canonicalize_name(pin[1]): pin[2] for pin in found}


def installed_afterwards(kind: str) -> dict[str, str]:
    """The pins of an environment's post-deploy script."""
    script = ENVS / f"{kind}.post-deploy.sh"
    return pins(re.findall(r"pip install --no-deps (\S+)", script.read_text())) if script.exists() else {}


def test_every_pin_is_exact_and_the_same_wherever_it_stands():
    prose = [(ROOT / name).read_text() for name in ("Makefile", "README.md")]
    places = [
        *(pins(requirements(f"{kind}.yaml")) for kind in KINDS),
        *(installed_afterwards(kind) for kind in KINDS),
        *(pins(re.findall(r"[\w.-]+==[\w.]+", text)) for text in prose),
        pins(requirements("local.txt")),
        pins(requirements("constraints.txt")),
    ]
    assert all(places[: len(KINDS)]) and places[2 * len(KINDS)].keys() == {"torchattacks"}
    versions: dict[str, set] = {}
    for name, version in (pin for place in places for pin in place.items()):
        versions.setdefault(name, set()).add(version)
    assert not {name: found for name, found in versions.items() if len(found) > 1}
    least = re.search(r'min_version\("(.*?)"\)', (ROOT / "Snakefile").read_text())[1]
    assert versions["snakemake"].pop().startswith(least)


def test_the_interpreter_of_every_environment_is_the_same():
    dependencies = [yaml.safe_load((ENVS / f"{kind}.yaml").read_text())["dependencies"] for kind in KINDS]
    found = {tuple(line for line in lines if isinstance(line, str)) for lines in dependencies}
    assert len(found) == 1 and [line.partition("=")[0] for line in found.pop()] == ["python", "pip"]


def kind_of(rule: str) -> str:
    """The environment that a rule names, or the rule that it uses."""
    return re.findall(r'conda:\s+"../../envs/(\w+)\.yaml"', rules()[rule])[-1]


def planned(folder: Path, *arguments) -> list[Job]:
    """The jobs of a dry run, without targets."""
    done = snakemake("-n", "--printshellcmds", "--cores", 2, *arguments, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    blocks = re.findall(r"^(?:local)?rule (\w+):\n.*?^Shell command: (.*?)$", done.stdout, re.M | re.S)
    commands = [(rule, line.rpartition("&& ")[2].partition(" > ")[0]) for rule, line in blocks if line != "None"]
    return [Job(rule, kind_of(rule), tuple(shlex.split(command))) for rule, command in commands]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> list[Job]:
    """Jobs of every rule, with the default config."""
    folder = checkout(tmp_path_factory.mktemp("plans") / "repository")
    archive = ["--until", "unpack_archive", "--config", 'data={"source": "hub"}', "--", "data"]
    model = [
        "--until",
        "download_model",
        "--config",
        f'model={{"name": "{MODEL}", "revision": "{REVISION}"}}',
        "--",
        "base",
    ]
    return planned(folder, *EVERYTHING) + planned(folder, *archive) + planned(folder, *model)


def parts(root: Path, job: Job) -> list[Path]:
    """Our files that a job's program is made of: a script's, or the workflow's where the program is Snakemake."""
    if job.words[0] == "python":
        named = [word.rpartition(".")[0] for word in job.words if word.startswith("safemed.")]  # a function it calls
        return [root / path for path in dependencies.sources(Path(job.words[1]).name, *named)]
    workflow = [root / "Snakefile", *(root / "workflow" / "rules").glob("*.smk")]
    text = "\n".join(map(Path.read_text, workflow))
    lines = re.findall(r"^from (safemed[\w.]*) import (.*)", text, re.M)
    modules = [name for module, names in lines for name in (module, *(f"{module}.{n}" for n in names.split(", ")))]
    scripts = [f"{name.replace('.', '/')}.py" for name in modules]
    found = [script for script in scripts if (root / "scripts" / script).is_file()]
    return workflow + [root / path for script in found for path in dependencies.sources(script)]


def imported(path: Path) -> set[str]:
    """The packages that a file imports, but for safemed and the standard library."""
    text = path.read_text()
    if path.suffix != ".py":  # rules are not Python, their import lines are
        text = "\n".join(re.findall(r"^(?:import|from) .*", text, re.M))
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"safemed"}


def used(root: Path, jobs: list[Job], kind: str) -> set[str]:
    """The distributions that the programs of an environment's rules use: what they import, and two used unimported."""
    owners, found = packages_distributions(), set()
    programs = {job.words[:4]: job for job in jobs if job.kind == kind}  # a script, and the function it is to call
    for job in programs.values():
        for path in parts(root, job):
            found |= {owner for name in imported(path) for owner in owners.get(name, [name])}
            found |= {"pyarrow"} if "parquet(" in path.read_text() else set()  # pandas reads and writes it with this
        found |= {"pygments"} if "--report" in job.words else set()  # colours the code in Snakemake's report
    return {canonicalize_name(name) for name in found}


def needs(names: set[str]) -> set[str]:
    """Some distributions and all that they ask to have installed beside them."""
    found, waiting = set(), [(name, "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) not in found:
            found.add((name, extra))
            for line in map(Requirement, requires(name) or []):
                if line.marker is None or line.marker.evaluate({"extra": extra}):
                    waiting += [(canonicalize_name(line.name), wanted) for wanted in ("", *line.extras)]
    return {name for name, _ in found if not CUDA.match(name)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_environment_pins_what_its_rules_programs_import_and_what_that_needs_and_no_more(kind, jobs):
    wanted, afterwards = used(ROOT, jobs, kind), installed_afterwards(kind).keys()
    assert wanted and afterwards <= wanted
    assert needs(wanted - afterwards) == pins(requirements(f"{kind}.yaml")).keys()


def test_every_rule_that_names_an_environment_is_looked_at(jobs):
    assert {job.rule for job in jobs} == {rule for rule, text in rules().items() if "    conda:\n" in text}
    assert {job.kind for job in jobs} == set(KINDS)


@pytest.mark.parametrize("module, package, kind, output", FOREIGN, ids=[kind for *_, kind, _ in FOREIGN])
def test_an_import_that_the_environment_lacks_is_found(module, package, kind, output, jobs, tmp_path, monkeypatch):
    copy = checkout(tmp_path / "repository")
    monkeypatch.setattr(dependencies, "SCRIPTS", copy / "scripts")
    path = copy / "scripts" / "safemed" / module
    path.write_text(f"{path.read_text()}\n\ndef late():\n    import {package}\n")
    assert used(copy, jobs, kind) - used(ROOT, jobs, kind) == {package}
    assert package not in pins(requirements(f"{kind}.yaml")) | installed_afterwards(kind)


@pytest.fixture(scope="module")
def pip(tmp_path_factory) -> Path:
    """The pip of the environments, to be run from its wheel; skips where no package registry answers."""
    folder = tmp_path_factory.mktemp("pip")
    line = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", f"pip=={conda_pin('pip')}"]
    done = subprocess.run([*line, "--dest", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package registry: {done.stderr[-300:]}")
    return next(folder.glob("*.whl")) / "pip"


def conda_pin(name: str) -> str:
    """The version of a package that the environments take from conda-forge."""
    return re.search(rf"^  - {name}=([\d.]+)$", (ENVS / "data.yaml").read_text(), re.M)[1]


@pytest.mark.parametrize("name", [*(f"{kind}.yaml" for kind in KINDS), "local.txt"])
def test_pip_needs_no_version_but_those_that_are_pinned(name, pip, tmp_path):
    """What stands in conda's files is whole by itself; the default environment's comes with its constraints."""
    asked, report = tmp_path / "requirements.txt", tmp_path / "report.json"
    asked.write_text("\n".join(requirements(name)))
    constraints = ["-c", ENVS / "constraints.txt"] if name == "local.txt" else []
    dry = [sys.executable, pip, "install", "--dry-run", "--ignore-installed", "--quiet", "--report", report]
    done = subprocess.run([*dry, "-r", asked, *constraints], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [part["metadata"] for part in json.loads(report.read_text())["install"]]
    resolved = {canonicalize_name(part["name"]): part["version"].partition("+")[0] for part in found}
    known = pins(requirements(name)) | (pins(requirements("constraints.txt")) if constraints else {})
    assert {name: version for name, version in resolved.items() if not CUDA.match(name)} == known


@pytest.fixture(scope="module")
def conda(pip, tmp_path_factory):
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
        pytest.skip(f"no py-rattler: {done.stderr[-300:]}")
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
    done = snakemake("--sdm", "conda", "--conda-create-envs-only", "--cores", 1, *SMALLEST, cwd=folder)
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
        told = Path(mkdtemp(dir=study.parent))
        patch.setenv("PROBE", str(told))
        done = snakemake("--sdm", "conda", "--cores", 2, *arguments, cwd=study)
    logs = "".join(f"\n== {path}\n{path.read_text()[-1500:]}" for path in study.glob("results/*/logs/*.log"))
    assert done.returncode == 0, done.stderr[-3000:] + logs
    return [json.loads(path.read_text()) for path in told.iterdir()]


def program(words: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """A command's words from its program's name on, with no interpreter before it."""
    name, *given = dropwhile(lambda word: word.startswith("-") or Path(word).name.startswith("python"), words)
    return Path(name).name, *given


def run(study: Path, *arguments) -> list[tuple[Job, dict]]:
    """Run some targets with conda; each job, and the record of its interpreter."""
    jobs = planned(study, *arguments)
    told = {program(record["words"]): record for record in records(study, *arguments)}
    assert told.keys() >= {program(job.words) for job in jobs}
    return [(job, told[program(job.words)]) for job in jobs]


@pytest.fixture(scope="module")
def ran(study) -> list[tuple[Job, dict]]:
    """Jobs of every rule, and the records of their interpreters: the smallest study, downloads, an unpacking."""
    done = run(study, *SMALLEST)
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


def test_every_rule_runs_in_its_own_environment(ran, study):
    assert {job.rule for job, _ in ran} == {rule for rule, text in rules().items() if "    conda:\n" in text}
    assert {job.rule: record["prefix"] for job, record in ran} == {
        job.rule: str(prefix(study, job.kind)) for job, _ in ran
    }
    assert len({record["prefix"] for _, record in ran}) == len(KINDS)


def test_no_job_sees_packages_of_another_environment_or_of_the_users(ran, study):
    library, scripts = Path(os.__file__).parent, study / "scripts"
    for job, record in ran:
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
def test_a_job_fails_that_imports_what_its_environment_lacks(module, package, kind, output, ran, study):
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


def test_processes_that_share_a_training_are_started_by_its_environments_torchrun(ran, study):
    (study / "shared.yaml").write_text("resources: {train_processes: 2}\n")  # --config would make the number a text
    shared = ["--configfile", SMALLEST_STUDY, "shared.yaml", "--", "sft"]
    started = [(program(record["words"])[0], record["prefix"]) for record in records(study, *shared)]
    home = str(prefix(study, "train"))
    assert Counter(started)["train_sft.py", home] == 2 and Counter(started)["torchrun", home] == 1
