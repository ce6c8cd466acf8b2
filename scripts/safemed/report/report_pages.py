"""The documentation of the report's tables and figures, as Markdown, from the tables' docstrings and the captions."""

import re
from collections.abc import Mapping
from inspect import cleandoc

TABLES = """# Tables

This page is written by `scripts/write_reference.py` from the docstrings of the tables' functions; do not edit it.
[The report](report.md) says what all tables have in common: shares, intervals, missing numbers, chance and blind.
"""
FIGURES = """# Figures

This page is written by `scripts/write_reference.py` from the captions of the report; do not edit it. Each figure is
`figures/NAME.png` and `.pdf`, and `.csv` with the numbers drawn.
"""


def tables(docstrings: Mapping[str, str]) -> str:
    """A section for each table with all its columns. docstrings: the table's name -> its function's."""
    return "\n".join([TABLES, *(_table(name, cleandoc(text)) for name, text in docstrings.items())])


def figures(captions: Mapping[str, str]) -> str:
    """A section for each figure. captions: the figure's name -> its caption."""
    return "\n".join([FIGURES, *(f"## {name}\n\n{_plain(text.strip())}\n" for name, text in captions.items())])


def columns(docstring: str) -> dict[str, str]:
    """The columns that a table's docstring describes under "Columns:", several with one meaning as `first, second`.

    Raises ValueError where it describes none.
    """
    found = re.search(r"^Columns:\n(.*?)(?:\n\n|\Z)", cleandoc(docstring), flags=re.DOTALL | re.MULTILINE)
    if not found:
        raise ValueError(f'no "Columns:" in the docstring {docstring[:60]!r}')
    entries = re.split(r"\n(?=\S)", found[1])  # what goes on is indented
    named = (" ".join(entry.split()).partition(": ") for entry in entries)
    return {names: meaning for names, _, meaning in named}


def _table(name: str, docstring: str) -> str:
    first = docstring.split("\n\n")[0]
    summary = re.sub(r": one row of [A-Z_]+[^.]*", "", " ".join(first.split()))
    rows = [f"| {_code(names)} | {_plain(meaning)} |" for names, meaning in columns(docstring).items()]
    return "\n".join([f"## {name}.csv", "", _plain(summary), "", "| column | meaning |", "| --- | --- |", *rows, ""])


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split(", "))


def _plain(text: str) -> str:
    """Text that Markdown shows as it is; what stands between backticks stays code."""
    parts = text.split("`")
    return "`".join(re.sub(r"([*_|<\[\]])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))
