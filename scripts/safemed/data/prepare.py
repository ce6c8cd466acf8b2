"""Published records and image files -> the prepared questions: texts first, then images, block by block.

The texts of all records fit into memory; images are read, resized and written a block of questions at a time, by
threads (decoding, resizing and compressing release the interpreter's lock). A finished block is a file of its own, so
that a killed run goes on where it was.
"""

import hashlib
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pandas as pd
from datasets.arrow_writer import ArrowWriter
from tqdm import tqdm

from safemed.data import images
from safemed.data.dataset import FEATURES, IDENTITY
from safemed.data.records import BOXES, BadRecord, label, parse_record, read_records, unread_files
from safemed.utils import cli, files
from safemed.utils.dependencies import fingerprint
from safemed.utils.files import walk

BLOCK = 256  # questions; what a kill may cost, and what a thread holds in memory
LOG_BLOCKS = 16  # blocks between log lines
MOST_REASONS = 8  # in a log line
COUNTED = ("dataset", "modality_type", "modality", "image_path")  # keys of a record
LOG = ["record", "question_id", "action", "reason"]


class Journal:
    """What was dropped or repaired, and why: the rows of drops.csv."""

    def __init__(self):
        self.rows: list[dict] = []

    def dropped(self, record: str, question_id: str | None, reason: str) -> None:
        """This record did not become a question."""
        self.rows.append(dict(zip(LOG, (record, question_id, "dropped", reason), strict=True)))

    def repaired(self, record: str, question_id: str, reasons: list[str]) -> None:
        """This one did, after a repair."""
        self.rows += [dict(zip(LOG, (record, question_id, "repaired", reason), strict=True)) for reason in reasons]

    def table(self) -> pd.DataFrame:
        """The rows, in the order of their making."""
        return pd.DataFrame(self.rows, columns=LOG)

    def summary(self) -> str:
        """The most frequent drops and repairs, for the log."""
        counts = Counter((row["action"], row["reason"]) for row in self.rows).most_common(MOST_REASONS)
        return "; ".join(f"{n} {action}: {reason}" for (action, reason), n in counts) or "none dropped or repaired"


def parse(
    source: Path, journal: Journal, modalities: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The questions' texts, as published but for the repairs, and the counts of all records.

    modalities: see `parse_record`. Files of the source that are not read are named in the log. The texts have the
    columns of FEATURES that need no image, the boxes still in pixels of the published image, and `record`. Counts:
    dataset, modality, questions, images, with what was published, be it readable or not. Raises what `read_records`
    does, and BadRecord where no record is a question.
    """
    rows, seen, counted = [], set(), []
    for name, record in read_records(source):
        counted.append({key: _counted(record.get(key)) for key in COUNTED})
        try:
            row, repairs = parse_record(record, modalities)
            if row["question_id"] in seen:
                raise BadRecord("question_id already seen")
        except BadRecord as error:
            journal.dropped(name, label(record.get("question_id")), str(error))
            continue
        seen.add(row["question_id"])
        journal.repaired(name, row["question_id"], repairs)
        rows.append({"record": name, **row})
    if not rows:
        raise BadRecord(f"{source}: no usable record; {journal.summary()}")
    _name_unread(source, {str(PurePosixPath(row["image_path"])) for row in rows})
    return pd.DataFrame(rows, dtype=object), count(pd.DataFrame(counted, dtype=object))


def _counted(value) -> str | None:
    """A text of a record as it is counted; None where it is missing, or no text."""
    return label(value) if isinstance(value, str) and value.strip() else None


def _name_unread(source: Path, image_paths: set[str]) -> None:
    """Log which files below QA_information are no records that are read, and how many images no question shows."""
    if other := unread_files(source):
        logging.warning("not read: %s", ", ".join(str(path.relative_to(source)) for path in other))
    found = (Path(folder, name) for folder, names in walk(source / "Images") for name in names)
    if unshown := sorted(path for path in map(str, (p.relative_to(source) for p in found)) if path not in image_paths):
        logging.warning("%d files below Images/ are shown by no question, such as %s", len(unshown), unshown[0])


def count(records: pd.DataFrame) -> pd.DataFrame:
    """Questions and distinct images a dataset and modality, as the records name them."""
    records["modality"] = records["modality_type"].fillna(records["modality"]).fillna("none")
    groups = records.fillna({"dataset": "none"}).groupby(["dataset", "modality"])["image_path"]
    return groups.agg(questions="size", images="nunique").reset_index()


def asked(texts: pd.DataFrame, harden: Callable | None, seed: int, journal: Journal) -> pd.DataFrame:
    """The texts as published, or as data.hardening's `harden` makes them; what hardening leaves out is dropped.

    Raises ValueError where it leaves none.
    """
    if harden is None:
        return texts
    hardened = harden(texts, seed)
    if hardened.empty:
        raise ValueError("data.questions: hardening finds no distractor for any of the questions; use published")
    for row in texts[~texts["question_id"].isin(hardened["question_id"])].to_dict("records"):
        journal.dropped(row["record"], row["question_id"], "hardening: no distractor in its pool")
    return hardened


def write(texts: pd.DataFrame, source: Path, side: int, folder: Path, workers: int, journal: Journal) -> list[str]:
    """Write part-*.arrow (rows of FEATURES) and identity.json into the folder; gives the ids of the questions written.

    A part that an earlier run finished from the same texts, image files and code is kept as it is. Rows keep the order
    of the texts. Raises OSError where the disk is full: what is finished is kept.
    """
    blocks = [texts[start : start + BLOCK].to_dict("records") for start in range(0, len(texts), BLOCK)]
    code = fingerprint("prepare.py")
    written: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        made = pool.map(lambda job: _part(folder, job[0], job[1], source, side, code), enumerate(blocks))
        for done, part in enumerate(_watched(made, len(texts)), 1):
            journal.rows += part["journal"]
            written += part["question_ids"]
            if not cli.watched() and done % LOG_BLOCKS == 0:
                logging.info("%d of %d questions", min(done * BLOCK, len(texts)), len(texts))
    _finish(folder, len(blocks))
    return written


def _watched(parts: Iterator[dict], total: int) -> Iterator[dict]:
    """The parts, with a bar that counts questions where somebody watches."""
    with tqdm(total=total, desc="prepare", unit=" questions", disable=not cli.watched()) as bar:
        for part in parts:
            yield part
            bar.update(min(BLOCK, total - bar.n))


def _part(folder: Path, number: int, rows: list[dict], source: Path, side: int, code: str) -> dict:
    """Write one part and its record {identity, question_ids, journal}, unless they are there."""
    identity = _identity(rows, source, side, code)
    record = folder / f"part-{number:05d}.json"
    if record.exists() and (done := json.loads(record.read_text()))["identity"] == identity:
        return done
    record.unlink(missing_ok=True)  # first, so that it never stands beside another part than its own
    journal, cache = Journal(), {}
    with_images = (_with_image(row, source, side, cache, journal) for row in rows)
    kept = [row for row in with_images if row]
    with files.atomic_file(record.with_suffix(".arrow")) as path, _writer(path) as writer:
        for row in kept:
            writer.write(FEATURES.encode_example({key: row[key] for key in FEATURES}))
        writer.finalize()
    done = {"identity": identity, "question_ids": [row["question_id"] for row in kept], "journal": journal.rows}
    with files.atomic_file(record) as path:
        path.write_text(json.dumps(done))
    return done


def _writer(path: Path) -> ArrowWriter:
    return ArrowWriter(path=str(path), features=FEATURES)


def _with_image(row: dict, source: Path, side: int, cache: dict, journal: Journal) -> dict | None:
    """The row and its image; None, with the reason in the journal, where it has none.

    A new row: the given ones live as long as the run, and would keep every image in memory.
    """
    path = row["image_path"]
    if path not in cache:
        cache[path] = _stored(source / path, side)
    stored, size, repairs = cache[path]
    if stored is None:
        journal.dropped(row["record"], row["question_id"], repairs[0])
        return None
    repairs = [f"image: {repair}" for repair in repairs]
    boxes = {key: _scaled(row, key, size, side, repairs) for key in BOXES}
    journal.repaired(row["record"], row["question_id"], repairs)
    return row | stored | boxes


def _stored(path: Path, side: int) -> tuple[dict | None, tuple[int, int] | None, list[str]]:
    """The columns that an image file gives, its own width and height, and its repairs; or None, None and the reason.

    Exits where the machine cannot read the file: it may be whole.
    """
    try:
        image, repairs = images.load(path)
    except BadRecord as error:
        return None, None, [str(error)]
    except (OSError, MemoryError) as error:
        why = getattr(error, "strerror", None) or "there is not enough memory"
        raise SystemExit(f"{path}: {why}. The file may be whole: run again, and what is done is kept.") from error
    small = images.resize(image, side)
    stored = {"bytes": images.to_png(small), "path": None}
    columns = {"image_key": images.image_key(small), "dhash": images.dhash(small), "image": stored}
    return columns, image.size, repairs


def _scaled(row: dict, key: str, size: tuple[int, int], side: int, repairs: list[str]) -> list[int]:
    """A box of the row in pixels of an image of `size` (width, height) in those of the stored one, rounded outward.

    [] where it is, and, with a repair, where it reaches out of the image.
    """
    if not row[key]:
        return []
    (x0, y0, x1, y1), (width, height) = row[key], size
    if x1 > width or y1 > height:
        repairs.append(f"{key} left out: it reaches out of the image")
        return []
    low = [math.floor(x0 * side / width), math.floor(y0 * side / height)]
    return low + [math.ceil(x1 * side / width), math.ceil(y1 * side / height)]


def _identity(rows: list[dict], source: Path, side: int, code: str) -> str:
    """A hash of all that a part depends on; a changed image file shows by its size or time."""
    files = [_stamp(source / row["image_path"]) for row in rows]
    return hashlib.sha256(json.dumps([rows, files, side, code], sort_keys=True).encode()).hexdigest()


def _stamp(path: Path) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno not in images.NO_FILE:
            raise SystemExit(f"{path}: {error.strerror}. The file may be whole: run again.") from error
        return None
    return [found.st_size, found.st_mtime_ns]


def _finish(folder: Path, parts: int) -> None:
    """Leave the parts of this run, nothing of an earlier one, and one identity of them all."""
    records = [folder / f"part-{number:05d}.json" for number in range(parts)]
    identities = [json.loads(record.read_text())["identity"] for record in records]
    (folder / IDENTITY).write_text(json.dumps(identities, indent=1) + "\n")
    kept = {folder / IDENTITY, *(record.with_suffix(".arrow") for record in records)}
    for path in set(folder.iterdir()) - kept:
        path.unlink()
