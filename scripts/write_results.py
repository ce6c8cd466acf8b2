"""Write docs/results.md and the README's result rows from the tables of finished studies.

    python scripts/write_results.py results/evidence results/phantoms

The README's rows are of the first study; further ones add the tables and figures that those before them lack. The
figures that the page shows are copied beside it. All results must be of the scripts as this checkout has them.
"""

import argparse
import json
import shutil
from pathlib import Path

from safemed.report import inputs
from safemed.report.results_page import readme as readme_rows
from safemed.report.results_page.page import FIGURES, page
from safemed.report.results_page.study import Study, check_code, together
from safemed.utils import dependencies, files, provenance

ROOT = Path(__file__).resolve().parents[1]


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    try:
        write(args.studies, args.docs, args.readme)
    except ValueError as error:
        raise SystemExit(f"{error}") from error


def write(folders: list[Path], docs: Path, readme: Path) -> None:
    """Write both texts and copy the figures; nothing is written where one of them cannot be made."""
    study = together([read_study(folder) for folder in folders])
    check_code(study.provenance, code_here)
    drawn = {path.stem: path for folder in reversed(folders) for path in (folder / "figures").glob("*.png")}
    figures = [name for name in FIGURES if name in drawn]
    written = {
        docs / "results.md": page(study, figures),
        readme: readme_rows.filled(readme.read_text(), readme_rows.block(study)),
    }
    for name in figures:
        with files.atomic_file(docs / f"{name}.png") as copy:
            shutil.copyfile(drawn[name], copy)
    for path, text in written.items():
        with files.atomic_file(path) as file:
            file.write_text(text)


def code_here(script: str) -> str | None:
    """The hash of a script's code as this checkout has it; None where it has no such script."""
    try:
        return dependencies.fingerprint(script)
    except FileNotFoundError:
        return None


def read_study(folder: Path) -> Study:
    """The tables of a study's folder and their provenance; ValueError where it has none."""
    known = folder / "tables" / provenance.FILE
    if not known.exists():
        raise ValueError(
            f"{folder}: no tables/{provenance.FILE}; name the folder of a finished study, such as results/phantoms"
        )
    tables = {path.stem: inputs.read_table(path) for path in sorted(known.parent.glob("*.csv"))}
    return Study(tables, json.loads(known.read_text()))


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("studies", type=Path, nargs="+", help="the studies' folders, results/{study}")
    arguments.add_argument("--docs", type=Path, default=ROOT / "docs", help="where results.md and its figures go")
    arguments.add_argument("--readme", type=Path, default=ROOT / "README.md", help="the page whose rows are filled")
    return arguments


if __name__ == "__main__":
    main()
