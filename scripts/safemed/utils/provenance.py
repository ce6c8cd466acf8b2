"""What a result came from, in one JSON beside it: settings, seed, code, packages, hardware."""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions
from itertools import pairwise
from pathlib import Path

from safemed.utils import files
from safemed.utils.dependencies import SCRIPTS, fingerprint

CHANGES_NO_RESULT = True

FILE = "provenance.json"
ALTERATIONS = "--alterations"  # the option that names a module, which the script imports by that name


def write(folder: Path, args: argparse.Namespace, script: str) -> None:
    """Write FILE for the result of a script's run into its folder. Nothing that is computed may depend on it."""
    (folder / FILE).write_text(json.dumps(record(args, script), indent=1, default=str) + "\n")


def record(args: argparse.Namespace, script: str) -> dict:
    """script; arguments (with settings and seed as given); code: a hash of the script, of the module of its alterations
    and of all that these import from safemed, and the commit, at the start; python and packages: every version
    installed; hardware; processes that shared the work; slurm_job; finished: UTC.
    """
    arguments = vars(args)
    return {
        "script": Path(script).name,
        "arguments": arguments,
        "code": code(Path(script).name, *modules(arguments)),
        "python": platform.python_version(),
        "packages": dict(sorted({d.metadata["Name"]: d.version for d in distributions()}.items())),
        "hardware": hardware(),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def modules(arguments: dict) -> list[str]:
    """The modules that a script imports by names among its arguments."""
    return [arguments["alterations"]] if arguments.get("alterations") else []


@cache
def code(script: str, *modules: str) -> dict:
    """hash and commit of a script and of further modules, as they were when this was first asked: at the import below,
    before the work.
    """
    return {"hash": fingerprint(script, *modules), "commit": _commit()}


def hardware() -> dict:
    """host, cpu, cores, memory_mb of this machine, and the names of the GPUs that the process sees."""
    torch = sys.modules.get("torch")  # a script that does not use it need not have it
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch else []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {"host": platform.node(), "cpu": _cpu(), "cores": os.cpu_count(), "memory_mb": memory, "gpus": gpus}


def collected(costs: list[Path], config: dict, products: dict) -> dict:
    """The config of a study, its products as `checked` gives them, and what each of the results beside these cost.json
    came from, by its folder.

    Packages and hardware that results have in common are told once: each names its own in `environment`.
    """
    results, environments = {}, []
    for path in costs:
        told = json.loads((path.parent / FILE).read_text())
        environment = {name: told.pop(name) for name in ("python", "packages", "hardware")}
        if environment not in environments:
            environments.append(environment)
        results[str(path.parent)] = told | {"environment": environments.index(environment)}
    return {"config": config, "products": products, "environments": environments, "results": results}


def checked(products: dict[str, str], results: Path) -> dict[str, dict]:
    """Place below a study's results -> code, the hash as given, and files: name -> hash of each file that is there."""
    return {
        place: {
            "code": code,
            "files": {path.name: files.content_hash(path) for path in sorted(results.glob(f"{place}.*"))},
        }
        for place, code in products.items()
    }


def _commit() -> str | None:
    """The commit of the scripts' own repository, with + after it if a tracked file was changed; None without one."""
    if not (SCRIPTS.parent / ".git").exists() or not shutil.which("git"):
        return None
    asked = ["git", "describe", "--always", "--abbrev=40", "--match=", "--dirty=+"]
    return subprocess.run(asked, cwd=SCRIPTS, capture_output=True, text=True).stdout.strip() or None


def _cpu() -> str:
    """The CPU's model name."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


if (SCRIPTS / Path(sys.argv[0]).name).is_file():
    _named = (name for option, name in pairwise(sys.argv) if option == ALTERATIONS and not name.startswith("--"))
    code(Path(sys.argv[0]).name, *_named)
