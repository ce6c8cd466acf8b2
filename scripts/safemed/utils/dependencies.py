"""What a script's result depends on: the meaning of its own code and of all that it imports from safemed.

A fingerprint changes with the code's meaning alone. Comments, docstrings and formatting leave it as it is, so that none
of them re-runs a stage or throws a checkpoint away.
"""

import ast
import hashlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

SCRIPTS = Path(__file__).resolve().parents[2]
PACKAGE = "safemed"
WATCHES = "CHANGES_NO_RESULT"  # a module that sets this to True only watches: no result depends on it
IMPORTS = (ast.Import, ast.ImportFrom)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
MEANS_NOTHING = ("ctx", "type_comment", "type_ignores")


class Code(NamedTuple):
    """What is read off a file of code.

    imports: the dotted names that it imports from safemed, anywhere in it; of `from a import b`, both a and a.b.
    watches: whether it says CHANGES_NO_RESULT = True.
    meaning: hexadecimal digits that stand for its syntax tree without docstrings.
    """

    imports: tuple[str, ...]
    watches: bool
    meaning: str


def fingerprint(script: str, *modules: str) -> str:
    """32 hexadecimal digits that stand for the meaning of scripts/{script}, of further modules, and of all they import.

    modules: dotted names, such as safemed.report.tables.suite, that the script imports by a name it is given. Equal
    before and after an edit that leaves every syntax tree, docstrings aside, as it was. Raises FileNotFoundError for an
    unknown script or module.
    """
    meant = "".join(f"{path} {code.meaning}\n" for path, code in sorted(_codes(script, modules).items()))
    return hashlib.sha256(meant.encode()).hexdigest()[:32]


def sources(script: str, *modules: str) -> list[str]:
    """Paths, relative to the repository, of a script, of further modules and of all they import from safemed; sorted.

    A module that says CHANGES_NO_RESULT = True is left out, with what it alone imports. Raises FileNotFoundError for an
    unknown script or module.
    """
    return sorted(_codes(script, modules))


def imported(path: Path) -> tuple[str, ...]:
    """The dotted names that a file imports from safemed, anywhere in it; of `from a import b`, both a and a.b."""
    return _read(str(path), _stamp(str(path))).imports


# Every plan takes some seventy fingerprints of two hundred files, and every script one. So what follows spares time:
# strings stand for paths, and each tree is walked through once.


def _codes(script: str, modules: tuple[str, ...]) -> dict[str, Code]:
    """Path relative to the repository -> code, of all that is a source."""
    root, found, seen = str(SCRIPTS), {}, set()
    waiting = [f"{root}/{script}", *(f"{root}/{module.replace('.', '/')}.py" for module in modules)]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        code = _read(path, _stamp(path))
        if not code.watches:
            found[f"{SCRIPTS.name}{path.removeprefix(root)}"] = code
            waiting += [file for name in code.imports for file in _files(root, name) if file not in seen]
    return found


@cache
def _read(path: str, stamp: tuple) -> Code:
    """The code of a file. stamp: what a change of the file changes."""
    tree, told, names = ast.parse(Path(path).read_text()), [], set()
    watches = any(map(_says_that_it_watches, tree.body))
    _tell(tree, told, names)
    return Code(tuple(sorted(names)), watches, hashlib.sha256("\n".join(told).encode()).hexdigest())


def _tell(node: ast.AST, told: list[str], names: set[str]) -> None:
    """Add the kind of a node, its fields and all below it to `told`, and what they import from safemed to `names`.

    Left out are docstrings, type comments, and whether a name is read or set, which follows from its place.
    """
    kind = type(node)
    told.append(kind.__name__)
    if kind in IMPORTS:
        names.update(name for name in _names(node) if name.partition(".")[0] == PACKAGE)
    for field in kind._fields:
        if field in MEANS_NOTHING:
            continue
        value = getattr(node, field, None)
        if field == "body" and kind in DOCUMENTED and ast.get_docstring(node, clean=False) is not None:
            value = value[1:] or [ast.Pass()]
        if isinstance(value, ast.AST):
            _tell(value, told, names)
        elif isinstance(value, list):
            told.append("[")
            for own in value:
                _tell(own, told, names) if isinstance(own, ast.AST) else told.append(repr(own))
            told.append("]")
        else:
            told.append(repr(value))


def _names(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        return (alias.name for alias in node.names)
    if node.level:
        raise ValueError(f"line {node.lineno}: relative imports are not followed; write {PACKAGE}. in full")
    return iter((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))


def _files(root: str, name: str) -> Iterator[str]:
    """The files that the import of a dotted name runs: the module, and the `__init__.py` of each package above it.

    Empty for a name that is no module but stands in one.
    """
    parts = name.split(".")
    above = ["/".join([root, *parts[:depth], "__init__.py"]) for depth in range(1, len(parts) + 1)]
    return filter(os.path.isfile, ["/".join([root, *parts]) + ".py", *above])


def _stamp(path: str) -> tuple[int, int]:
    """What a change of a file changes."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def _says_that_it_watches(node: ast.AST) -> bool:
    named = isinstance(node, ast.Assign) and any(
        isinstance(name, ast.Name) and name.id == WATCHES for name in node.targets
    )
    return named and isinstance(node.value, ast.Constant) and node.value.value is True
