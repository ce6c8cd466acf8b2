"""The environments of the rules: their pins, and which rule names which."""

import re
import shlex
from importlib.metadata import requires
from pathlib import Path
from typing import NamedTuple

import yaml
from packaging.utils import canonicalize_name

from support.paths import ROOT
from support.rules import rules
from support.snakemake_runs import snakemake

ENVS = ROOT / "envs"
KINDS = sorted(path.stem for path in ENVS.glob("*.yaml"))
# What torch's CUDA build brings, and fixes itself; the CPU build has none of it.
CUDA = re.compile("nvidia-|cuda-|triton")
HAS_CUDA = any(map(CUDA.match, requires("torch")))
# What an environment must not hold: a module of its rules' programs, a package, and an output of such a rule.
FOREIGN = [
    ("report/tables/cost.py", "torch", "report", "tables/cost.csv"),
    ("evaluation/diagnostics.py", "trl", "attack", "sanity/sft-instruct"),
    ("certificates/certifier.py", "torchattacks", "certify", "certificates/at-grpo-instruct/choice-sigma0.25/1-of-2"),
    ("data/splits.py", "matplotlib", "data", "data/splits.csv"),
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


def conda_pin(name: str) -> str:
    """The version of a package that the environments take from conda-forge."""
    return re.search(rf"^  - {name}=([\d.]+)$", (ENVS / "data.yaml").read_text(), re.M)[1]


def rules_with_environment() -> set[str]:
    """The rules that name an environment."""
    return {name for name, text in rules().items() if re.search("^ +conda:$", text, re.M)}


def kind_of(rule: str) -> str:
    """The environment that a rule names."""
    return re.findall(r'conda:\s+"../../envs/(\w+)\.yaml"', rules()[rule])[-1]


def planned_jobs(folder: Path, *arguments) -> list[Job]:
    """The jobs of a dry run, without targets."""
    done = snakemake("-n", "--printshellcmds", "--cores", 2, *arguments, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    blocks = re.findall(r"^(?:local)?rule (\w+):\n.*?^Shell command: (.*?)$", done.stdout, re.M | re.S)
    commands = [
        (rule, line.rpartition("&& ")[2].partition(" 2> ")[0].partition(" > ")[0])
        for rule, line in blocks
        if line != "None"
    ]
    return [Job(rule, kind_of(rule), tuple(shlex.split(command))) for rule, command in commands]
