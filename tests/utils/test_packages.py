"""The packages stand in an order: each imports only those before it, and nobody imports what Snakemake alone does."""

import ast
from pathlib import Path

import pytest

from support.paths import ROOT, SCRIPTS

ORDER = [
    "utils",
    "data",
    "models",
    "stress",
    "attacks",
    "retrieval",
    "evaluation",
    "training",
    "certificates",
    "preflight",
    "report",
]
RESULTLESS = {"write_reference.py", "write_results.py", "preflight.py"}  # no result of a study depends on these
APART = "workflow"  # may import any
LIBRARY = SCRIPTS / "safemed"


def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """All import statements of a file, wherever they stand."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def empty(path: Path) -> bool:
    """Whether a file holds no code; a docstring is none."""
    return not [node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.Expr)]


def packages_imported(path: Path) -> set[str]:
    """The packages of safemed that a file imports; '' for safemed itself."""
    found = set()
    for node in imports(path):
        names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module == "safemed":
            names = [f"safemed.{alias.name}" for alias in node.names]
        found |= {f"{name}.".split(".")[1] for name in names if name.split(".")[0] == "safemed"}
    return found


def test_the_order_names_every_package():
    packages = {path.name for path in LIBRARY.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == {*ORDER, APART} and [path.name for path in LIBRARY.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_those_before_it(package):
    allowed = {package, *ORDER[: ORDER.index(package)]}
    files = sorted((LIBRARY / package).rglob("*.py"))
    wrong = {str(path.relative_to(LIBRARY)): packages_imported(path) - allowed for path in files}
    assert len(files) > 1 and not {path: names for path, names in wrong.items() if names}


def test_nothing_but_snakemake_imports_what_stands_apart():
    scripts = sorted(path for path in SCRIPTS.glob("*.py") if path.name not in RESULTLESS)
    assert scripts and not [path.name for path in scripts if APART in packages_imported(path)]


def test_imports_are_absolute_and_packages_run_no_code():
    files = sorted(LIBRARY.rglob("*.py"))
    assert not [path for path in files for node in imports(path) if isinstance(node, ast.ImportFrom) and node.level]
    assert not [path for path in files if path.name == "__init__.py" and not empty(path)]


def test_the_tests_mirror_the_packages():
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*ORDER, APART, "support"}
