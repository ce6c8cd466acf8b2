"""Write docs/results.md and the README's result rows from the tables of one finished study.

    python scripts/write_results.py results/phantoms

The study's figures that the page shows are copied beside it. All of the study's results must come from one commit.
"""

import argparse
import json
import shutil
from pathlib import Path

from safemed.report import inputs
from safemed.report.results_page import readme as readme_rows
from safemed.report.results_page.page import FIGURES, page
from safemed.report.results_page.study import Study
from safemed.utils import files, provenance

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    try:
        write(args.study, args.docs, args.readme)
    except ValueError as error:
        raise SystemExit(f"{args.study}: {error}") from error


def write(folder: Path, docs: Path, readme: Path) -> None:
    """Write both texts and copy the figures; nothing is written where one of them cannot be made."""
    study = read_study(folder)
    figures = [name for name in FIGURES if (folder / "figures" / f"{name}.png").exists()]
    written = {
        docs / "results.md": page(study, figures),
        readme: readme_rows.filled(readme.read_text(), readme_rows.block(study)),
    }
    for name in figures:
        with files.atomic_file(docs / f"{name}.png") as copy:
            shutil.copyfile(folder / "figures" / f"{name}.png", copy)
    for path, text in written.items():
        with files.atomic_file(path) as file:
            file.write_text(text)


def read_study(folder: Path) -> Study:
    """The tables of a study's folder and their provenance; ValueError where it has none."""
    known = folder / "tables" / provenance.FILE
    if not known.exists():
        raise ValueError(f"no tables/{provenance.FILE}; name the folder of a finished study, such as results/phantoms")
    tables = {path.stem: inputs.read_table(path) for path in sorted(known.parent.glob("*.csv"))}
    return Study(tables, json.loads(known.read_text()))


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("study", type=Path, help="the study's folder, results/{study}")
    arguments.add_argument("--docs", type=Path, default=ROOT / "docs", help="where results.md and its figures go")
    arguments.add_argument("--readme", type=Path, default=ROOT / "README.md", help="the page whose rows are filled")
    return arguments


if __name__ == "__main__":
    main()
