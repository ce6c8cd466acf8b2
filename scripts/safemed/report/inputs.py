"""How the scripts of the report read what a table or figure is made from, and call its function.

--function safemed.report.tables.suite.suite   what is called
--input attacks A/rows.parquet B/rows.parquet  the files of one of its parameters, as often as it has inputs
--settings '{"eps": 8}'                        its other parameters
"""

import argparse
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pandas as pd

from safemed.report.tables.rows import COST_RECORD, TEXT, TEXT_OF, require_columns, seed_of
from safemed.utils.files import read_csv


def parser(doc: str) -> argparse.ArgumentParser:
    """The options that the scripts of the report have in common."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--function", required=True, help="dotted name of the function that makes it")
    made.add_argument(
        "--input", nargs="+", action="append", default=[], metavar="NAME FILE", help="a parameter and its files"
    )
    made.add_argument("--settings", type=json.loads, default={}, help="the function's other parameters, as JSON")
    made.add_argument("--out", required=True, type=Path, help="what is written")
    return made


def call(args: argparse.Namespace, kept: Callable = lambda read: read):
    """What the function returns for the inputs and settings that a script was given. kept: what of an input it sees."""
    return function(args.function)(**{name: kept(read(paths)) for name, *paths in args.input}, **args.settings)


def of_own_seed(read: pd.DataFrame | dict[str, Path]) -> pd.DataFrame | dict[str, Path]:
    """What `read` returned, without the models of further seeds."""
    if isinstance(read, dict):
        return {model: path for model, path in read.items() if not seed_of(pd.Series([model]))[0]}
    for column in {"model", "source", "target"} & set(read):
        read = read[seed_of(read[column]) == ""]
    return read.reset_index(drop=True)


def function(name: str) -> Callable:
    """The function of a dotted name, imported here: no script depends on it. Raises ValueError if there is none."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--function {name}: {error}; name a function of a module, package.module.function") from error


def read(paths: list[str]) -> pd.DataFrame | dict[str, Path]:
    """What the files of one kind, at least one, hold, in order.

    rows.parquet, cost.json, curves.csv (with the name of the model's folder as `model`) and tables: one data frame.
    images.npz: model -> path, for MODEL/ATTACK/images.npz. Raises ValueError naming the file if a file of rows is
    empty, or lacks a column that the others have.
    """
    files = [Path(path) for path in paths]
    if files[0].suffix == ".npz":
        return {path.parts[-3]: path for path in files}
    return pd.concat(_alike({path: _frame(path) for path in files}), ignore_index=True)


def read_table(path: Path) -> pd.DataFrame:
    """A table of the report or of the audit's baselines, as its function made it; missing text is ""."""
    return read_csv(path, TEXT | TEXT_OF.get(path.stem, frozenset()))


def _frame(path: Path) -> pd.DataFrame:
    """One file as a data frame."""
    if path.name == "cost.json":
        record = pd.DataFrame([json.loads(path.read_text())])
        require_columns(record, COST_RECORD, path)
        return record
    if path.name == "curves.csv":
        return read_csv(path, ()).assign(model=path.parent.name)
    if path.suffix == ".csv":
        return read_table(path)
    rows = pd.read_parquet(path)
    if rows.empty:
        raise ValueError(f"{path}: no rows; a failed evaluation is not a score, re-run its rule")
    return rows


def _alike(frames: dict[Path, pd.DataFrame]) -> list[pd.DataFrame]:
    """The frames, none of which lacks a column of rows that another has."""
    rows = {path: frame for path, frame in frames.items() if path.suffix == ".parquet"}
    columns = dict.fromkeys(column for frame in rows.values() for column in frame)
    for path, frame in rows.items():
        require_columns(frame, list(columns), path)
    return list(frames.values())
