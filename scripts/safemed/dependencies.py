"""Which of our own files a script's result depends on: itself and all that it imports from safemed."""

import ast
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]


def sources(script: str) -> list[str]:
    """Paths, relative to the repository, of scripts/{script} and of all it imports from safemed; sorted.

    Raises FileNotFoundError for an unknown script.
    """
    found: set[Path] = set()
    waiting = [SCRIPTS / script]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imported(path)
    return sorted(str(path.relative_to(SCRIPTS.parent)) for path in found)


def _imported(path: Path) -> list[Path]:
    """The safemed modules that a file imports, `from safemed import x` and `from safemed.x import y` alike."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    files = [SCRIPTS.joinpath(*name.split(".")).with_suffix(".py") for name in names if name.startswith("safemed.")]
    return [file for file in files if file.exists()]
