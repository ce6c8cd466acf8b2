"""Write docs/results.md and the README's result rows from the tables of finished studies.

    python scripts/write_results.py results/evidence results/phantoms

The README's rows are of the first study; further ones add the tables and figures that those before them lack. The
tables, provenance.json and all figures, as PNG and PDF, go into docs/results/, where whoever doubts a number of the
page finds it. All results must be of the scripts as this checkout has them.
"""

import argparse
import json
import shutil
from pathlib import Path

from safemed.report import inputs
from safemed.report.results_page import readme as readme_rows
from safemed.report.results_page.page import page
from safemed.report.results_page.study import Study, check_code, together
from safemed.utils import dependencies, files, provenance

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("png", "pdf")  # of figures


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    try:
        write(args.studies, args.docs, args.readme)
    except ValueError as error:
        raise SystemExit(f"{error}") from error


def write(folders: list[Path], docs: Path, readme: Path) -> None:
    """Write both texts, and what they are made from beside them; nothing where one of them cannot be made."""
    study = together([read_study(folder) for folder in folders])
    check_code(study.provenance, code_here)
    figures = [path for suffix in SHOWN for path in _first(folders, f"figures/*.{suffix}").values()]
    drawn = [path.stem for path in figures if path.suffix == ".png"]
    tables = [path for name, path in _first(folders, "tables/*.csv").items() if name in study.tables]
    written = {
        docs / "results.md": page(study, drawn),
        readme: readme_rows.filled(readme.read_text(), readme_rows.block(study)),
    }
    beside = (docs / "results").resolve()
    if beside.exists() and (
        not (beside / provenance.FILE).exists() or any(beside in one.resolve().parents for one in folders)
    ):
        raise ValueError(
            f"{beside}: it would be replaced, and was not written by this script; name another folder by --docs"
        )
    with files.atomic_folder(beside) as folder:
        for path in [*figures, *tables]:
            shutil.copyfile(path, folder / path.name)
        (folder / provenance.FILE).write_text(json.dumps(_told(study.provenance), indent=1) + "\n")
    for path, text in written.items():
        with files.atomic_file(path) as file:
            file.write_text(text)


def _told(known: dict) -> dict:
    """What the page says of where results came from, without what names a machine or a place on it."""
    machines = [one | {"hardware": one["hardware"] | {"host": ""}} for one in known["environments"]]
    kept = ("script", "code", "finished")
    results = {folder: {key: result[key] for key in kept} for folder, result in known["results"].items()}
    return known | {"environments": machines, "results": results}


def _first(folders: list[Path], pattern: str) -> dict[str, Path]:
    """Name -> the file of that name in the first of the folders that has one, of those that a pattern finds."""
    return {path.stem: path for folder in reversed(folders) for path in sorted(folder.glob(pattern))}


def code_here(script: str) -> str | None:
    """The hash of a script's code as this checkout has it; None where it has no such script."""
    try:
        return dependencies.fingerprint(script)
    except FileNotFoundError:
        return None


def read_study(folder: Path) -> Study:
    """The tables of a study's folder and their provenance; ValueError where it has none."""
    if not (folder / "tables" / provenance.FILE).exists():
        raise ValueError(
            f"{folder}: no tables/{provenance.FILE}; name the folder of a finished study, such as results/phantoms"
        )
    return read_tables(folder / "tables")


def read_tables(folder: Path) -> Study:
    """The tables of a folder and provenance.json beside them, of results/{study} or of docs."""
    tables = {path.stem: inputs.read_table(path) for path in sorted(folder.glob("*.csv"))}
    return Study(tables, json.loads((folder / provenance.FILE).read_text()))


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("studies", type=Path, nargs="+", help="the studies' folders, results/{study}")
    arguments.add_argument(
        "--docs", type=Path, default=ROOT / "docs", help="where results.md and the folder results/ go"
    )
    arguments.add_argument("--readme", type=Path, default=ROOT / "README.md", help="the page whose rows are filled")
    return arguments


if __name__ == "__main__":
    main()
