"""Files and folders that are there whole or not at all, and what the contents of some hash to."""

import contextlib
import csv
import errno
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd

SHORT = 200  # bytes of a name


@contextlib.contextmanager
def atomic_folder(path: Path, resume: bool = False) -> Iterator[Path]:
    """A sibling folder to fill; it becomes `path` when the block ends, and only then.

    resume: what a killed run left in it is still there, to go on from; otherwise it is empty.
    """
    partial = path.with_name(f".{path.name}.partial")
    if not resume:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    yield partial
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A sibling file name to write to; it becomes `path` when the block ends, and only then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    short = path.stem.encode()[:SHORT].decode(errors="ignore")  # a file system's longest name must not become longer
    partial = path.with_name(f".{short}.partial{path.suffix}")
    yield partial
    os.replace(partial, path)


@contextlib.contextmanager
def exit_on_full_disk(path: Path) -> Iterator[None]:
    """Exit with one clear error where the block finds the disk full; `path` is what it writes."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = f"{path}: the disk is full ({error.strerror}). Make room and run again: what is done is kept."
        raise SystemExit(message) from error


def walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below one, sorted, links followed, and the names of its files; none twice, wherever links lead."""
    seen: set[str] = set()
    for below, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        if (real := os.path.realpath(below)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield below, sorted(names)


def content_hash(*paths: Path) -> str:
    """A hash of the contents of files, one after the other."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as CSV, all digits kept, whole or not at all; a header alone if it has no rows."""
    texts = frame.select_dtypes(exclude=["number", "bool"])
    returns = texts.apply(lambda column: column.astype(str).str.contains("\r", regex=False).any()).any()
    # The csv module quotes a line feed by itself, but not a carriage return, which ends a line when it is read.
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", quoting=quoting)


def read_csv(path: Path, text: Collection[str]) -> pd.DataFrame:
    """What `write_csv` wrote. text: the columns that hold text; a file may lack some of them.

    Text is as it was written, whatever it looks like ("NA", "007"), and "" where it was missing. All other columns are
    numbers, to the last digit, where an empty cell is missing, or true and false, where none may be. Raises ValueError
    naming file and column where one holds anything else.
    """
    names = pd.read_csv(path, nrows=0, dtype=str).columns
    frame = pd.read_csv(
        path,
        dtype={name: str for name in names if name in text},
        keep_default_na=False,
        na_values={name: [""] for name in names if name not in text},
    )
    for name in frame.columns.difference(list(text)) if len(frame) else []:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise ValueError(f"{path}: the column {name} holds more than numbers; re-run the rule that wrote it")
    return frame
