"""Write docs/results.md and the README's result rows from the tables of finished studies.

    python scripts/write_results.py results/evidence results/phantoms

The README's rows are of the first study; further ones add the tables and figures that those before them lack. The
tables, provenance.json and all figures, as PNG and PDF, go into docs/results/, where whoever doubts a number of the
page finds it. All results, tables and figures must be of the code as this checkout has it.
"""

import argparse
import json
import shutil
from itertools import product
from pathlib import Path

from safemed.report import inputs, products
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
    studies = {folder: read_study(folder) for folder in folders}
    study = together([*studies.values()])
    check_code(study.provenance, hash_here)
    origin = {name: folder for folder in reversed(folders) for name in studies[folder].tables if name in study.tables}
    tables = [(table, origin[table.name]) for table in products.TABLES if table.name in origin]
    figures = _figures(folders, origin)
    kept = [folder / f"{figure.place}.{suffix}" for figure, folder in figures for suffix in SHOWN]
    kept += [folder / f"{table.place}.csv" for table, folder in tables]
    shown = {made.place: _checked(made, folder, studies[folder].provenance) for made, folder in [*tables, *figures]}
    drawn = [figure.name for figure, _ in figures]
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
        for path in kept:
            shutil.copyfile(path, folder / path.name)
        (folder / provenance.FILE).write_text(json.dumps(_told(study.provenance, shown), indent=1) + "\n")
    for path, text in written.items():
        with files.atomic_file(path) as file:
            file.write_text(text)


def _told(known: dict, shown: dict) -> dict:
    """Where results and what is shown came from, without what names a machine or a place on it."""
    machines = [one | {"hardware": one["hardware"] | {"host": ""}} for one in known["environments"]]
    kept = ("script", "code", "finished", "environment")
    results = {folder: {key: result[key] for key in kept} for folder, result in known["results"].items()}
    return known | {"products": shown, "environments": machines, "results": results}


def _figures(folders: list[Path], origin: dict[str, Path]) -> list[tuple[products.Figure, Path]]:
    """Each figure and the first folder that has it, whose tables that it is drawn from are those that the page shows.

    origin: name of a table -> the folder that it is shown from.
    """
    found = {}
    for figure, folder in product(products.FIGURES, folders):
        there = all((folder / f"{figure.place}.{suffix}").exists() for suffix in SHOWN)
        if there and all(origin.get(name) == folder for name in figure.tables):
            found.setdefault(figure.name, (figure, folder))
    return [*found.values()]


def _checked(made: products.Product, folder: Path, known: dict) -> dict:
    """What provenance.json says of a table or figure.

    Raises ValueError where it was made by other code than that of this checkout, or its file is another by now, such as
    that of a study laid over this one.
    """
    found = provenance.checked({made.place: hash_here(made.script, made.module)}, folder)[made.place]
    told = known.get("products", {}).get(made.place, {"code": None})
    for key, problem in (
        ("code", "not made by the code as it is here"),
        ("files", f"changed since tables/{provenance.FILE}"),
    ):
        if found[key] != told.get(key):
            raise ValueError(
                f"{folder}/{made.place}: {problem}. Run the study again, which makes it and tables/{provenance.FILE} "
                "anew; if the study does not make it any more, move it away"
            )
    return found


def hash_here(script: str, *modules: str) -> str | None:
    """The hash of a script's code and of further modules as this checkout has them; None where it lacks one."""
    try:
        return dependencies.fingerprint(script, *modules)
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
