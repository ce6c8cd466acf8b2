"""Published records -> questions as plain rows: OmniMedVQA's own files, and Med-R1's split files of the same questions.

Every departure from what was published is told: a record that cannot be a question raises BadRecord, one that was
mended carries its repairs.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from safemed.data.prompts import LETTERS

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
BOXES = ("box", "organ")  # keys of a record: where its lesion lies, and where the organ
TOLD = re.compile(r"\s*\(answer:[^)]*\)", re.IGNORECASE)  # "(Answer: No)", in a few published questions
OPTION = re.compile(r"(?:^|, )([A-D])\)")
SOLUTION = re.compile(r"<answer>\s*([A-D])\s*</answer>")


class BadRecord(ValueError):
    """A record that cannot become a question; the message is the reason written to drops.csv."""


def read_records(source: Path) -> Iterator[tuple[str, dict]]:
    """All open-access records below `source`, in the order of their file names, each with `file:index` to name it by.

    The images of restricted datasets are not published; their questions are not read.
    Raises FileNotFoundError where the layout is not OmniMedVQA's, ValueError where a file is not a JSON list.
    """
    files = sorted((source / "QA_information" / "Open-access").glob("*.json"))
    if not files:
        raise FileNotFoundError(
            f"{source}: no QA_information/Open-access/*.json. Point data.source at a folder in OmniMedVQA's layout "
            "(Images/ and QA_information/Open-access/<dataset>.json), or leave it empty to render phantoms."
        )
    for file in files:
        for index, record in enumerate(read_list(file)):
            yield f"{file.name}:{index}", record


def read_list(file: Path) -> list[dict]:
    """The records of one JSON file; raises ValueError naming it where it is not a list of objects."""
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); fetch the file again") from error
    if not isinstance(records, list):
        raise ValueError(f"{file}: a JSON list of records is expected, found {type(records).__name__}")
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{file}:{index}: a JSON object is expected, found {type(record).__name__}")
    return records


def parse_record(record: dict) -> tuple[dict, list[str]]:
    """An OmniMedVQA record as a question (a row of data.FEATURES, without its image), and the repairs it needed.

    box and organ, which OmniMedVQA's own records lack and the phantoms' have: x0, y0, x1, y1 of the lesion and of the
    organ in pixels of the image as it is shown, x1 and y1 exclusive; [] where the record does not say.

    Repaired: the key `modality` instead of `modality_type`; gaps among the options; options equal but for case, blanks
    or a trailing dot (the answer's own writing is kept); an answer written otherwise than its option; a question that
    tells its answer; a box or an organ that is no box is left out. Raises BadRecord with the reason.
    """
    for key in ("question_id", "question_type", "question", "gt_answer", "image_path"):
        if not _text(record, key):
            raise BadRecord(f"no {key}")
    repairs: list[str] = []
    modality = _modality(record, repairs)
    options = _distinct(_options(record, repairs), record["gt_answer"], repairs)
    gold = _gold_letter(record["gt_answer"], options, repairs)
    row = {
        "question_id": _text(record, "question_id"),
        "dataset": _text(record, "dataset"),
        "modality": modality,
        "question_type": _text(record, "question_type"),
        "question": _question(record, repairs),
        "options": options,
        "gold": gold,
        "finding": _text(record, "finding") or None,
        "image_path": inside(_text(record, "image_path")),
        **{key: _box(record, key, repairs) for key in BOXES},
    }
    return row, repairs


def parse_med_r1(record: dict) -> dict:
    """A record {image, problem, solution} of Med-R1 as question, options (list), gold, image_path and dataset.

    problem is the question, " A)" and the options joined by ", B)" and so on; options hold commas and "(ECG)" of their
    own, so only a letter after ", " starts one. Nothing is repaired. Raises BadRecord with the reason.
    """
    for key in ("image", "problem", "solution"):
        if not _text(record, key):
            raise BadRecord(f"no {key}")
    question, found, rest = record["problem"].partition(" A)")
    solution = SOLUTION.search(record["solution"])
    if not found:
        raise BadRecord("no options: ' A)' does not occur in the problem")
    if not solution:
        raise BadRecord(f"no answer in the solution {record['solution']!r}")
    parts = OPTION.split(f"A){rest}")[1:]  # letter, text, letter, text ...
    letters, options = parts[0::2], parts[1::2]
    if letters != list(LETTERS[: len(letters)]) or len(options) < 2:
        raise BadRecord(f"the options are lettered {''.join(letters)}")
    if solution[1] not in letters:
        raise BadRecord(f"the answer {solution[1]} is none of {''.join(letters)}")
    path = inside(record["image"])
    return {
        "question": question,
        "options": options,
        "gold": solution[1],
        "image_path": path,
        "dataset": PurePosixPath(path).parts[1],
    }


def normalise(answer: str) -> str:
    """An option's text as answers are compared: lower case, blanks and underscores alike, no trailing dot."""
    return re.sub(r"[\s_]+", " ", answer).strip().lower().removesuffix(".").strip()


def inside(path: str) -> str:
    """The path of an image below its source; raises BadRecord where it leads out of it."""
    parts = PurePosixPath(path).parts
    if len(parts) < 2 or parts[0] != "Images" or ".." in parts:
        raise BadRecord(f"the image's path {path!r} is not one below Images/")
    return path


def without_answer(question: str, repairs: list[str]) -> str:
    """The question without "(Answer: ...)", where it tells its own answer."""
    mended = TOLD.sub("", question)
    if mended != question:
        repairs.append("the question told its answer")
    return mended


def _text(record: dict, key: str) -> str:
    value = record.get(key)
    return "" if value is None else str(value).strip()


def _question(record: dict, repairs: list[str]) -> str:
    question = without_answer(_text(record, "question"), repairs)
    if not question:
        raise BadRecord("no question but its answer")
    return question


def _box(record: dict, key: str, repairs: list[str]) -> list[float]:
    """x0 < x1 and y0 < y1, none negative, or []; whether they lie in the image shows when it is read."""
    if (box := record.get(key)) is None:
        return []
    if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)):
        x0, y0, x1, y1 = box
        if 0 <= x0 < x1 and 0 <= y0 < y1:
            return box
    repairs.append(f"{key} left out: not x0, y0, x1, y1 with 0 <= x0 < x1 and 0 <= y0 < y1")
    return []


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _modality(record: dict, repairs: list[str]) -> str:
    if not record.get("modality_type") and record.get("modality"):
        repairs.append("the key modality read as modality_type")
    name = _text(record, "modality_type") or _text(record, "modality")
    if name not in MODALITIES:
        raise BadRecord(f"unknown modality {name!r}")
    return MODALITIES[name]


def _options(record: dict, repairs: list[str]) -> list[str]:
    texts = [_text(record, f"option_{letter}") for letter in LETTERS]
    options = [text for text in texts if text]
    if "" in texts[: len(options)]:
        repairs.append("options after a missing one moved up")
    return options


def _distinct(options: list[str], answer: str, repairs: list[str]) -> list[str]:
    """The options, of those that mean the same only the one written as the answer is, or else the first."""
    kept: dict[str, str] = {}
    for option in options:
        meaning = normalise(option)
        if meaning not in kept or option == str(answer).strip():
            kept[meaning] = option
    if len(kept) < len(options):
        repairs.append("options equal but for case, blanks or a dot: one kept")
    return list(kept.values())


def _gold_letter(answer: str, options: list[str], repairs: list[str]) -> str:
    """The letter of the option that is the answer; raises BadRecord where there is none."""
    if len(options) < 2:
        raise BadRecord(f"{len(options)} options")
    meanings = [normalise(option) for option in options]
    if normalise(str(answer)) not in meanings:
        raise BadRecord(f"the answer {answer!r} is none of the options")
    index = meanings.index(normalise(str(answer)))
    if options[index] != str(answer).strip():
        repairs.append("the answer is written otherwise than its option")
    return LETTERS[index]
