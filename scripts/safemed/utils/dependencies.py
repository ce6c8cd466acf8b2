"""What a script's result depends on: the meaning of its own code and of all that it imports from safemed.

A fingerprint changes with the code's meaning alone. Comments, docstrings and formatting leave it as it is, so that none
of them re-runs a stage or throws a checkpoint away.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2]
PACKAGE = "safemed"
WATCHES = "CHANGES_NO_RESULT"  # a module that sets this to True only watches: no result depends on it


def fingerprint(script: str, *modules: str) -> str:
    """32 hexadecimal digits that stand for the meaning of scripts/{script}, of further modules, and of all they import.

    modules: dotted names, such as safemed.report.tables.suite, that the script imports by a name it is given. Equal
    before and after an edit that leaves every syntax tree, docstrings aside, as it was. Raises FileNotFoundError for an
    unknown script or module.
    """
    files = sources(script, *modules)
    meant = "\n".join(f"{path}\n{_meaning(SCRIPTS.parent / path, _stamp(SCRIPTS.parent / path))}" for path in files)
    return hashlib.sha256(meant.encode()).hexdigest()[:32]


def sources(script: str, *modules: str) -> list[str]:
    """Paths, relative to the repository, of a script, of further modules and of all they import from safemed; sorted.

    A module that says CHANGES_NO_RESULT = True is left out, with what it alone imports. Raises FileNotFoundError for an
    unknown script or module.
    """
    found: set[Path] = set()
    waiting = [SCRIPTS / script, *(_file(module) for module in modules)]
    while waiting:
        path = waiting.pop()
        if path not in found and not (watches := _read(path, _stamp(path)))[1]:
            found.add(path)
            waiting += [file for name in watches[0] for file in _files(name)]
    return sorted(str(path.relative_to(SCRIPTS.parent)) for path in found)


def imported(path: Path) -> tuple[str, ...]:
    """The dotted names that a file imports from safemed, anywhere in it; of `from a import b`, both a and a.b."""
    return _read(path, _stamp(path))[0]


@cache
def _read(path: Path, stamp: tuple) -> tuple[tuple[str, ...], bool]:
    """The names imported by a file, and whether it only watches. stamp: what a change of the file changes."""
    tree = ast.parse(path.read_text())
    return tuple(sorted(set(_imports(ast.walk(tree))))), any(map(_says_that_it_watches, tree.body))


def _imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: relative imports are not followed; write {PACKAGE}. in full")
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.split(".")[0] == PACKAGE)


def _files(name: str) -> list[Path]:
    """The files that the import of a dotted name runs: the module, and the `__init__.py` of each package above it.

    Empty for a name that is no module but stands in one.
    """
    place = SCRIPTS.joinpath(*name.split("."))
    above = [SCRIPTS.joinpath(*name.split(".")[:depth], "__init__.py") for depth in range(1, name.count(".") + 2)]
    return [file for file in (place.with_suffix(".py"), *above) if file.is_file()]


def _file(module: str) -> Path:
    return SCRIPTS.joinpath(*module.split(".")).with_suffix(".py")


@cache
def _meaning(path: Path, stamp: tuple) -> str:
    """The syntax tree of a file without docstrings; comments and formatting are in no tree."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _stamp(path: Path) -> tuple[int, int]:
    """What a change of a file changes."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _says_that_it_watches(node: ast.AST) -> bool:
    named = isinstance(node, ast.Assign) and any(
        isinstance(name, ast.Name) and name.id == WATCHES for name in node.targets
    )
    return named and isinstance(node.value, ast.Constant) and node.value.value is True
