"""OmniMedVQA's records -> prepared questions (Arrow), image-disjoint splits, and the evaluation subset.

The layout read is the published one: Images/... and QA_information/{Open-access,Restricted-access}/<dataset>.json.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from datasets.arrow_writer import ArrowWriter
from PIL import Image

from safemed.prompts import LETTERS

# OmniMedVQA's own strings (one of them is never closed) -> the names used everywhere else.
MODALITIES = {
    "CT(Computed Tomography)": "CT",
    "MR (Mag-netic Resonance Imaging)": "MR",
    "X-Ray": "X-ray",
    "ultrasound": "ultrasound",
    "Dermoscopy": "dermoscopy",
    "Fundus Photography": "fundus photography",
    "OCT (Optical Coherence Tomography": "OCT",
    "Microscopy Images": "microscopy",
}
SPLITS = ("train", "val", "test")
FEATURES = Features(
    {
        "question_id": Value("string"),
        "dataset": Value("string"),
        "modality": Value("string"),
        "question_type": Value("string"),
        "question": Value("string"),
        "options": List(Value("string")),
        "gold": Value("string"),
        "finding": Value("string"),
        "image_path": Value("string"),
        "image": ImageFeature(),
    }
)


class BadRecord(ValueError):
    """A record that cannot become a question; the message is the reason written to drops.csv."""


def read_records(source: Path) -> Iterator[tuple[str, dict]]:
    """All records below `source`, in the order of their file names, each with `file:index` to name it by.

    Raises FileNotFoundError where the layout is not OmniMedVQA's, ValueError where a file is not a JSON list.
    """
    files = sorted((source / "QA_information").glob("*/*.json"))
    if not files:
        raise FileNotFoundError(
            f"{source}: no QA_information/*/*.json. Point data.source at a folder in OmniMedVQA's layout "
            "(Images/ and QA_information/Open-access/<dataset>.json), or leave it empty to render phantoms."
        )
    for file in files:
        try:
            records = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}: not JSON ({error}); fetch the file again") from error
        if not isinstance(records, list):
            raise ValueError(f"{file}: a JSON list of records is expected, found {type(records).__name__}")
        for index, record in enumerate(records):
            yield f"{file.name}:{index}", record


def parse_record(record: dict) -> dict:
    """One OmniMedVQA record as a row of FEATURES, without its image.

    The answer is matched to the options after lower-casing and stripping a trailing dot, as the published answers need.
    Raises BadRecord with the reason.
    """
    for key in ("question_id", "question_type", "question", "gt_answer", "image_path"):
        if not record.get(key):
            raise BadRecord(f"no {key}")
    options = [str(record[f"option_{letter}"]).strip() for letter in LETTERS if record.get(f"option_{letter}")]
    modality = record.get("modality_type") or record.get("modality")
    if modality not in MODALITIES:
        raise BadRecord(f"unknown modality {modality!r}")
    return {
        "question_id": str(record["question_id"]),
        "dataset": str(record.get("dataset", "")),
        "modality": MODALITIES[modality],
        "question_type": record["question_type"].strip(),
        "question": record["question"].strip(),
        "options": options,
        "gold": _gold_letter(record["gt_answer"], options),
        "finding": record.get("finding"),
        "image_path": record["image_path"],
    }


def normalise(answer: str) -> str:
    """An option's text as answers are compared: lower case, outer blanks and one trailing dot gone."""
    return answer.strip().lower().removesuffix(".").strip()


def _gold_letter(answer: str, options: list[str]) -> str:
    """The letter of the one option that is the answer; raises BadRecord where there is none, or more than one."""
    if len(options) < 2:
        raise BadRecord(f"{len(options)} options")
    matches = [i for i, option in enumerate(options) if normalise(option) == normalise(answer)]
    if len(matches) != 1:
        raise BadRecord(f"the answer {answer!r} matches {len(matches)} options")
    return LETTERS[matches[0]]


def resize(path: Path, side: int) -> Image.Image:
    """The one resize of the study: RGB, 8 bits, side x side, Lanczos; the aspect ratio is not kept.

    Raises BadRecord where the file is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    except (OSError, ValueError) as error:
        raise BadRecord(f"image: {error}") from error


def prepare(source: Path, side: int, drops: list[dict]) -> Iterator[dict]:
    """Rows of FEATURES for every usable record; the others go to `drops` (record, question_id, reason)."""
    seen: set[str] = set()
    for name, record in read_records(source):
        try:
            row = parse_record(record)
            if row["question_id"] in seen:
                raise BadRecord("question_id already seen")
            row["image"] = resize(source / row["image_path"], side)
        except BadRecord as error:
            drops.append({"record": name, "question_id": record.get("question_id"), "reason": str(error)})
            continue
        seen.add(row["question_id"])
        yield row


def write_arrow(rows: Iterator[dict], folder: Path) -> int:
    """Stream rows of FEATURES into a dataset folder; memory does not grow with their number. Returns how many."""
    stream = folder.with_name(f"{folder.name}.stream")
    with ArrowWriter(path=str(stream), features=FEATURES) as writer:
        for row in rows:
            writer.write(FEATURES.encode_example({**row, "image": {"bytes": _png(row["image"]), "path": None}}))
        kept, _ = writer.finalize()
    if kept:
        Dataset.from_file(str(stream)).save_to_disk(str(folder))
    stream.unlink()
    return kept


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def image_keys(questions: Dataset) -> pd.DataFrame:
    """Columns question_id, modality, question_type and image_key: the hash of the stored image's bytes."""
    table = questions.select_columns(["question_id", "modality", "question_type"]).to_pandas()
    stored = questions.select_columns(["image"]).cast_column("image", ImageFeature(decode=False))
    table["image_key"] = [hashlib.sha256(row["image"]["bytes"]).hexdigest()[:16] for row in stored]
    return table


def assign_splits(questions: pd.DataFrame, shares: dict[str, float], seed: int) -> pd.Series:
    """A split for each question such that no image is in two, stratified by modality and question types.

    questions: columns image_key (equal for questions that show the same pixels), modality, question_type.
    shares: split name -> share of the images; must sum to 1.

    Images are sorted by stratum (modality, the set of their question types), shuffled inside it, and dealt out
    systematically, so each stratum's shares are right to within two images or so. Deterministic in (questions, seed).
    """
    images = questions.groupby("image_key").agg(
        modality=("modality", "first"), types=("question_type", lambda t: "|".join(sorted(set(t))))
    )
    rng = np.random.default_rng(seed)
    images["order"] = rng.permutation(len(images))
    images = images.sort_values(["modality", "types", "order"])
    position = (np.arange(len(images)) + rng.random()) * _golden_step() % 1.0  # [images], equidistributed in [0, 1)
    edges = np.cumsum(list(shares.values()))
    images["split"] = np.array(list(shares))[np.searchsorted(edges, position, side="right").clip(max=len(edges) - 1)]
    return questions["image_key"].map(images["split"])


def _golden_step() -> float:
    """The step of the low-discrepancy sequence (Weyl 1916, golden ratio): any run of it fills [0, 1) evenly."""
    return (5**0.5 - 1) / 2


def read_splits(folder: Path, questions: Dataset) -> pd.DataFrame:
    """splits.csv, a row a prepared question, in their order; ValueError where it is not of these questions."""
    splits = pd.read_csv(folder / "splits.csv", dtype=str)
    if splits["question_id"].tolist() != list(questions["question_id"]):
        raise ValueError(f"{folder / 'splits.csv'} is not of the questions beside it; re-run split_questions")
    return splits


def load_questions(folder: Path, split: str) -> Dataset:
    """The prepared questions of one split, in the order of splits.csv.

    folder: a study's data folder, holding `questions` (Arrow) and splits.csv (question_id, split).
    Raises ValueError for an unknown or empty split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    questions = Dataset.load_from_disk(str(folder / "questions"))
    rows = np.flatnonzero(read_splits(folder, questions)["split"] == split)
    if not len(rows):
        raise ValueError(f"{folder / 'splits.csv'}: no question in split {split!r}; raise its share in data.split")
    return questions.select(rows)


def subset(questions: Dataset, n: int, seed: int) -> Dataset:
    """At most n questions drawn by a hash of their ids: the same ones for the same (questions, n, seed).

    A question's rank does not depend on the others, so few change when questions come or go.
    """
    ids = questions["question_id"]
    order = sorted(range(len(ids)), key=lambda i: zlib.crc32(f"{seed}:{ids[i]}".encode()))
    return questions.select(sorted(order[:n]))


def as_array(image: Image.Image) -> np.ndarray:
    """A prepared image as uint8 [H, W, 3]."""
    return np.asarray(image.convert("RGB"))


def as_arrays(images: Iterable[Image.Image]) -> np.ndarray:
    """Prepared images as uint8 [B, H, W, 3]."""
    return np.stack([as_array(image) for image in images])
