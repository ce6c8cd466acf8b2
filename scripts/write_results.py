"""Write docs/results.md, docs/results/{study}/ and the README's result rows from the tables of finished studies.

    python scripts/write_results.py results/evidence results/rewards results/towers

The README's rows are of the first study, and each claim of docs/results.md takes its number from the first that has
it. A study's folder holds its page, and beside it its tables, provenance.json and all figures, as PNG and PDF, where
whoever doubts a number of the page finds it. All results, tables and figures must be of the code of this checkout.
docs/results/ is replaced as a whole: name all studies that are to have a page.
"""

import argparse
import json
import shutil
from pathlib import Path

from safemed.report import inputs, products
from safemed.report.results_page import readme as readme_rows
from safemed.report.results_page.front import front
from safemed.report.results_page.page import page
from safemed.report.results_page.study import PAGE, Study, check_alike, check_code
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
    """Write all pages, and what they are made from beside them; nothing where one of them cannot be made."""
    studies = [read_study(folder) for folder in folders]
    _check_names(studies)
    check_alike(studies)
    hashes = [_hashes(study, folder) for study, folder in zip(studies, folders, strict=True)]
    rows = readme_rows.filled(readme.read_text(), readme_rows.block(studies))
    beside = (docs / "results").resolve()
    _check_place(beside, folders)
    claimed = front(studies)
    with files.atomic_folder(beside) as made:
        for study, folder, shown in zip(studies, folders, hashes, strict=True):
            _keep(study, folder, shown, made / study.name)
    for path, text in ((docs / "results.md", claimed), (readme, rows)):
        with files.atomic_file(path) as file:
            file.write_text(text)


def _hashes(study: Study, folder: Path) -> dict[str, dict]:
    """The place of each table and figure that a study has -> hashes of its code and of the files that are shown.

    Refuses a study of other code than this checkout's, and files that have changed.
    """
    check_code(study.provenance, hash_here)
    tables = [table for table in products.TABLES if table.name in study.tables]
    figures = [one for one in products.FIGURES if all((folder / f"{one.place}.{suffix}").exists() for suffix in SHOWN)]
    return {made.place: _checked(made, folder, study.provenance) for made in (*tables, *figures)}


def _check_names(studies: list[Study]) -> None:
    """Raise ValueError where two studies have one name, and so one page."""
    names = [study.name for study in studies]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(
            f"several studies are named {', '.join(twice)}: each needs a page of its own, name one of them"
        )


def _check_place(beside: Path, folders: list[Path]) -> None:
    """Raise ValueError where the pages' folder, which is replaced, holds anything but pages of studies."""
    there = [one for one in beside.iterdir() if not one.name.startswith(".")] if beside.exists() else []
    for one in there:
        if not (one / provenance.FILE).exists():
            raise ValueError(f"{one}: no page of a study, and its folder would be replaced: move it away")
    if any(beside in one.resolve().parents for one in folders):
        raise ValueError(f"{beside}: it would be replaced, and holds a study; name another folder by --docs")


def _keep(study: Study, folder: Path, shown: dict[str, dict], to: Path) -> None:
    """Put a study's page, tables, figures and provenance into a new folder."""
    to.mkdir()
    for place, made in shown.items():
        for name in made["files"]:
            shutil.copy((folder / place).with_name(name), to)
    drawn = [path.stem for path in to.glob("*.png")]
    (to / PAGE).write_text(page(study, drawn))
    (to / provenance.FILE).write_text(json.dumps(_told(study.provenance, shown), indent=1) + "\n")


def _told(known: dict, shown: dict) -> dict:
    """Where results and what is shown came from, without what names a machine or a place on it."""
    machines = [one | {"hardware": one["hardware"] | {"host": ""}} for one in known["environments"]]
    kept = ("script", "code", "finished", "environment")
    results = {folder: {key: result[key] for key in kept} for folder, result in known["results"].items()}
    return known | {"products": shown, "environments": machines, "results": results}


def _checked(made: products.Product, folder: Path, known: dict) -> dict:
    """What provenance.json says of a table or figure.

    Raises ValueError where it was made by other code than that of this checkout, or its file is another by now, such as
    that of a study laid over this one.
    """
    found = provenance.checked({made.place: hash_here(made.script, made.module)}, folder)[made.place]
    told = known.get("products", {}).get(made.place)
    told = told if isinstance(told, dict) else {"code": None}  # of another version, or none
    for key, problem in (
        ("code", "not made by the code as it is here"),
        ("files", f"changed since tables/{provenance.FILE}"),
    ):
        if found[key] != told.get(key):
            raise ValueError(
                f"{folder}/{made.place}: {problem}. Run the study again, which makes it and tables/{provenance.FILE} "
                "anew; if the study does not make it any more, move it away"
            )
    suffixes = SHOWN if isinstance(made, products.Figure) else made.suffixes
    shown = [f"{made.name}.{suffix}" for suffix in suffixes]
    return found | {"files": {name: found["files"][name] for name in shown}}


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
    """The tables of a folder and provenance.json beside them, results/{study}/tables or docs/results/{study}."""
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
