"""The entries of a corpus: the images of the training split, each with its report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from datasets import Dataset

from safemed.data.prompts import MARKUP, gold_text
from safemed.retrieval.reports import Report


@dataclass(frozen=True)
class Entry:
    """An image with its report. question_id: of a question about the image, with which the image is found."""

    image_key: str
    image_path: str
    question_id: str
    modality: str
    report: Report


def entries_of(questions: Dataset) -> list[Entry]:
    """An entry for each image that the questions, those of the training split, are about, in their order.

    Raises ValueError where a text would be read as a token of the model's own.
    """
    kept = ["image_key", "image_path", "question_id", "modality", "question_type", "options", "gold"]
    found: dict[str, dict] = {}
    for question in questions.select_columns(kept):
        entry = found.setdefault(question["image_key"], question | {"statements": {}})
        entry["statements"][question["question_type"], gold_text(question)] = None
    entries = [
        Entry(key, one["image_path"], one["question_id"], one["modality"], Report(tuple(one["statements"])))
        for key, one in found.items()
    ]
    for entry in entries:
        if spelt := MARKUP.search(entry.report.text):
            raise ValueError(f"image {entry.image_path}: its report holds {spelt[0]!r}, a token of the model's own")
    return entries


def read_entries(folder: Path) -> list[Entry]:
    """The entries that `write_entries` has written."""
    rows = pd.read_parquet(folder / "entries.parquet").to_dict("records")
    reports = [Report(tuple(zip(row.pop("kinds"), row.pop("answers"), strict=True))) for row in rows]
    kept = ("image_key", "image_path", "question_id", "modality")
    return [Entry(*(row[name] for name in kept), report) for row, report in zip(rows, reports, strict=True)]


def write_entries(entries: Sequence[Entry], folder: Path) -> None:
    """Write entries.parquet into a folder: a row an entry, with the statements of its report and the report as text."""
    rows = [
        {
            "image_key": one.image_key, "image_path": one.image_path, "question_id": one.question_id,
            "modality": one.modality, "kinds": [kind for kind, _ in one.report.statements],
            "answers": [answer for _, answer in one.report.statements], "report": one.report.text,
        }
        for one in entries
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / "entries.parquet", index=False)
