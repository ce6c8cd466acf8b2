"""The environments hold what their rules' programs import and no more, and resolve to what is pinned."""

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.environments import (
    CUDA,
    ENVS,
    FOREIGN,
    KINDS,
    Job,
    conda_pin,
    installed_afterwards,
    pins,
    planned_jobs,
    requirements,
    rules_with_environment,
)
from support.hub import REVISION
from support.paths import ROOT, STUDIES
from support.settings import SMALLEST
from support.snakemake_runs import checkout


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


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> list[Job]:
    """Jobs of every rule, with all evaluations, and of those that are given further modules by name."""
    folder = checkout(tmp_path_factory.mktemp("plans") / "repository")
    studies = ["--configfile", *(STUDIES[name] for name in ("full", "evidence", "retrieval", "words"))]
    everything = [f"evaluations={json.dumps(SMALLEST['evaluations'])}", 'training={"sft": {"targets": "own"}}']
    fetched = ['data={"source": "hub", "questions": "hardened"}']
    fetched += [f'model={{"name": "someone/Model", "revision": "{REVISION}"}}']
    return [
        *planned_jobs(folder, "all", "fare", "replay", "preflight", *studies, "--config", *everything),
        *planned_jobs(folder, "base", "--config", *fetched),
    ]


def modules(job: Job) -> list[str]:
    """The modules that a job's program is given by name, alone or with a function of theirs."""
    named = [word for word in job.words if word.startswith("safemed.")]
    return [name for word in named for name in (word, word.rpartition(".")[0])]


def parts(root: Path, job: Job) -> set[Path]:
    """Our files that a job's program is made of: a script's, or the workflow's where the program is Snakemake.

    Those are among them which change no result: they are imported all the same.
    """
    files = [root / job.words[1]]
    if job.words[0] != "python":
        files = [root / "Snakefile", *(root / "workflow" / "rules").glob("*.smk")]
    found, waiting = set(), [*files, *(file for name in modules(job) for file in files_of(root, name))]
    while waiting:
        if (path := waiting.pop()) not in found:
            found.add(path)
            waiting += [file for name in ours(path) for file in files_of(root, name)]
    return found


def files_of(root: Path, name: str) -> list[Path]:
    """The file of a module, by its dotted name; none for a name that is not a module."""
    return [path for path in [root.joinpath("scripts", *name.split(".")).with_suffix(".py")] if path.is_file()]


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file, as when it was first asked for; of rules, which are not Python, of their imports."""
    text = path.read_text()
    return ast.parse(text if path.suffix == ".py" else "\n".join(re.findall(r"^(?:import|from) .*", text, re.M)))


@functools.cache
def ours(path: Path) -> set[str]:
    """The dotted names that a file imports from safemed; of `from a import b`, a and a.b."""
    nodes = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in (node for node in nodes if isinstance(node, ast.ImportFrom)):
        names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.partition(".")[0] == "safemed"}


@functools.cache
def imported(path: Path) -> set[str]:
    """The packages that a file imports, but for safemed and the standard library."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"safemed"}


@functools.cache
def distributions_of_packages() -> Mapping[str, list[str]]:
    """Package -> the distributions that have it, of all that is installed here."""
    return packages_distributions()


def used(root: Path, jobs: list[Job], kind: str) -> set[str]:
    """The distributions that the programs of an environment's rules use: what they import, and two used unimported."""
    owners, found = distributions_of_packages(), set()
    programs = {(job.words[:2], *modules(job)): job for job in jobs if job.kind == kind}
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
    assert {job.rule for job in jobs} == rules_with_environment()
    assert {job.kind for job in jobs} == set(KINDS)


@pytest.mark.parametrize("module, package, kind, output", FOREIGN, ids=[kind for *_, kind, _ in FOREIGN])
def test_an_import_that_the_environment_lacks_is_found(module, package, kind, output, jobs, tmp_path):
    copy = checkout(tmp_path / "repository")
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


@pytest.mark.conda
@pytest.mark.slow
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
