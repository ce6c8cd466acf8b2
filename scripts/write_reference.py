"""Write the pages of docs/ that are made from the code: config.md, tables.md and figures.md."""

import argparse
from importlib import import_module
from pathlib import Path

import yaml

from safemed.report import config_page, products, report_pages
from safemed.utils import files
from safemed.workflow import config_files

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
CAPTIONS = ROOT / "workflow" / "report"


def main(argv: list[str] | None = None) -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of the pages")
    args = arguments.parse_args(argv)
    for name, text in pages().items():
        with files.atomic_file(args.out / name) as file:
            file.write_text(text)


def pages() -> dict[str, str]:
    """File name -> text."""
    docstrings = {table.name: docstring(table.dotted) for table in products.TABLES}
    captions = {figure.name: (CAPTIONS / f"{figure.caption}.rst").read_text() for figure in products.FIGURES}
    return {
        "config.md": config_page.page(yaml.safe_load(SCHEMA.read_text()), config_files.read()),
        "tables.md": report_pages.tables(docstrings),
        "figures.md": report_pages.figures(captions),
    }


def docstring(dotted: str) -> str:
    """The docstring of a function, by its whole name."""
    module, _, name = dotted.rpartition(".")
    return getattr(import_module(module), name).__doc__


if __name__ == "__main__":
    main()
