"""Files and folders that are there whole or not at all, and what the contents of some hash to."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
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


def content_hash(*paths: Path) -> str:
    """A hash of the contents of files, one after the other."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write `frame` as CSV, all digits kept, whole or not at all; a header alone if it has no rows."""
    with atomic_file(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")
