"""Published records -> questions as plain rows: OmniMedVQA's own files, and Med-R1's split files of the same questions.

Every departure from what was published is told: a record that cannot be a question raises BadRecord, one that was
mended carries its repairs.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

from safemed.data.prompts import LETTERS, MARKUP

# OmniMedVQA's own strings (one of them is never closed) -> the names used everywhere else, which records may have, too.
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
OPTION_KEYS = tuple(f"option_{letter}" for letter in LETTERS)
OPTION_LIKE = re.compile(r"option_[a-z]", re.IGNORECASE)
FAR = 2**31  # pixels; no image is as wide
UNTEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")  # control characters, and halves of a character
KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
TOLD = re.compile(r"\s*\(answer:[^)]*\)", re.IGNORECASE)  # "(Answer: No)", in a few published questions
OPTION = re.compile(r"(?:^|, )([A-D])\)")
SOLUTION = re.compile(r"<answer>\s*([A-D])\s*</answer>")


class BadRecord(ValueError):
    """A record that cannot become a question; the message is the reason written to drops.csv."""


def json_files(folder: Path) -> list[Path]:
    """The record files of a folder, sorted: *.json in any case, but for hidden ones, such as macOS's `._x.json`."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.suffix.lower() == ".json" and not path.name.startswith(".")]


def record_files(source: Path) -> list[Path]:
    """The files of open-access records below `source`, sorted."""
    return json_files(source / "QA_information" / "Open-access")


def unread_files(source: Path) -> list[Path]:
    """The other files below QA_information, sorted: the images of restricted datasets are not published."""
    found = (path for path in (source / "QA_information").rglob("*") if not path.is_dir())
    return sorted(set(found) - set(record_files(source)))


def read_records(source: Path) -> Iterator[tuple[str, dict]]:
    """All open-access records below `source`, in the order of their file names, each with `file:index` to name it by.

    Raises FileNotFoundError where the layout is not OmniMedVQA's, ValueError where a file is not a JSON list.
    """
    files = record_files(source)
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
    if not file.is_file():
        raise ValueError(f"{file}: no file, or a link that leads nowhere; remove it, or put the file there")
    try:
        text = file.read_text(encoding="utf-8-sig")  # with or without a byte order mark
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    try:
        records = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: {_not_json(text, error)}") from error
    if not isinstance(records, list):
        raise ValueError(f"{file}: a JSON list of records is expected, found {type(records).__name__}")
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(f"{file}:{index}: a JSON object is expected, found {type(record).__name__}")
    return records


def _object(pairs: list[tuple]) -> dict:
    """A JSON object; raises ValueError for a key that stands in it twice, of which json would keep the last."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the object of question_id {made.get('question_id')!r} has the key {twice!r} twice")
    return made


def _not_json(text: str, error: Exception) -> str:
    """What is wrong with a text that cannot be read as JSON, and the way out."""
    if not text.strip():
        return "empty; fetch the file again"
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.lstrip().startswith("{") for line in lines):
        return "JSON lines, an object a line; a JSON list is expected: put [ and ] round them and commas between them"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error}); fetch the file again"
    return f"{error}; mend the file" if isinstance(error, ValueError) else "nested too deeply to be records"


def parse_record(record: dict, modalities: Mapping[str, str] | None = None) -> tuple[dict, list[str]]:
    """An OmniMedVQA record as a question (a row of data.FEATURES, without its image), and the repairs it needed.

    modalities: further names that records give to modalities -> ours; upper and lower case are alike. A value that is
    null or NaN is missing.

    box and organ, which OmniMedVQA's own records lack and the phantoms' have: x0, y0, x1, y1 of the lesion and of the
    organ in pixels of the image as it is shown, x1 and y1 exclusive; [] where the record does not say.

    Repaired: the key `modality` instead of `modality_type`; gaps among the options; options equal but for case, blanks
    or a trailing dot (the answer's own writing is kept); an answer written otherwise than its option; a question that
    tells its answer; a box or an organ that is no box is left out. Raises BadRecord with the reason, also where a value
    is no text, or holds what the model's tokenizer reads as a token of its own.
    """
    for key in ("question_id", "question_type", "question", "gt_answer", "image_path"):
        if not _text(record, key):
            raise BadRecord(f"no {key}")
    repairs: list[str] = []
    modality = _modality(record, modalities or {}, repairs)
    answer = _shown(record, "gt_answer")
    options = _distinct(_options(record, repairs), answer, repairs)
    gold = _gold_letter(answer, options, repairs)
    row = {
        "question_id": _text(record, "question_id"),
        "dataset": _text(record, "dataset"),
        "modality": modality,
        "question_type": _text(record, "question_type"),
        "question": _question(record, repairs),
        "options": options,
        "gold": gold,
        "finding": _shown(record, "finding") or None,
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


def known_modalities(modalities: Mapping[str, str]) -> dict[str, str]:
    """Every name of a modality that records may have, as `normalise` sees it -> ours; modalities: further ones."""
    return _known_modalities(tuple(modalities.items()))


@cache
def _known_modalities(modalities: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Every record asks for them."""
    known = {normalise(name): own for name, own in MODALITIES.items()}
    known |= {normalise(own): own for own in MODALITIES.values()}
    further = {name: known.get(normalise(own), own) for name, own in modalities}
    known |= {normalise(own): own for own in further.values()}
    return known | {normalise(name): own for name, own in further.items()}


def label(value) -> str | None:
    """A value of a record as it can be written to a table: a text as it is, anything else as JSON."""
    return value if value is None or (isinstance(value, str) and not UNTEXT.search(value)) else json.dumps(value)


def _text(record: dict, key: str) -> str:
    """The text of a key, without blanks round it; "" where it is missing, null or NaN (a gap, as pandas writes it)."""
    value = record.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        raise BadRecord(f"{key}: {json.dumps(value)} is {KINDS[type(value)]}, not text")
    if found := UNTEXT.search(value):
        raise BadRecord(f"{key}: U+{ord(found[0]):04X} is no character of a text")
    return value.strip()


def _shown(record: dict, key: str) -> str:
    """A text that a model is shown, or taught."""
    text = _text(record, key)
    if found := MARKUP.search(text):
        raise BadRecord(f"{key}: {found[0]!r} is a token of the model's own")
    return text


def _question(record: dict, repairs: list[str]) -> str:
    question = without_answer(_shown(record, "question"), repairs)
    if not question:
        raise BadRecord("no question but its answer")
    if found := MARKUP.search(question):  # that the answer stood in the middle of
        raise BadRecord(f"question: {found[0]!r} is a token of the model's own")
    return question


def _box(record: dict, key: str, repairs: list[str]) -> list[float]:
    """x0 < x1 and y0 < y1, none negative, or []; whether they lie in the image shows when it is read."""
    box = record.get(key)
    if box is None or (isinstance(box, float) and math.isnan(box)):
        return []
    if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)):
        x0, y0, x1, y1 = box
        if 0 <= x0 < x1 and 0 <= y0 < y1:
            return box
    repairs.append(f"{key} left out: not x0, y0, x1, y1 with 0 <= x0 < x1 and 0 <= y0 < y1")
    return []


def _is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) < FAR


def _modality(record: dict, modalities: Mapping[str, str], repairs: list[str]) -> str:
    name = _text(record, "modality_type")
    if not name and (name := _text(record, "modality")):
        repairs.append("the key modality read as modality_type")
    known = known_modalities(modalities)
    if normalise(name) not in known:
        raise BadRecord(f"unknown modality {name!r}; data.modalities gives it a name")
    return known[normalise(name)]


def _options(record: dict, repairs: list[str]) -> list[str]:
    odd = (key for key in record if OPTION_LIKE.fullmatch(key) and key not in OPTION_KEYS)
    if unread := sorted(key for key in odd if _text(record, key)):
        raise BadRecord(f"{unread[0]}: options are {OPTION_KEYS[0]} to {OPTION_KEYS[-1]}")
    texts = [_shown(record, key) for key in OPTION_KEYS]
    options = [text for text in texts if text]
    if "" in texts[: len(options)]:
        repairs.append("options after a missing one moved up")
    return options


def _distinct(options: list[str], answer: str, repairs: list[str]) -> list[str]:
    """The options, of those that mean the same only the one written as the answer is, or else the first."""
    kept: dict[str, str] = {}
    for option in options:
        meaning = normalise(option)
        if meaning not in kept or option == answer:
            kept[meaning] = option
    if len(kept) < len(options):
        repairs.append("options equal but for case, blanks or a dot: one kept")
    return list(kept.values())


def _gold_letter(answer: str, options: list[str], repairs: list[str]) -> str:
    """The letter of the option that is the answer; raises BadRecord where there is none."""
    if len(options) < 2:
        raise BadRecord(f"{len(options)} options")
    meanings = [normalise(option) for option in options]
    if normalise(answer) not in meanings:
        raise BadRecord(f"the answer {answer!r} is none of the options")
    index = meanings.index(normalise(answer))
    if options[index] != answer:
        repairs.append("the answer is written otherwise than its option")
    return LETTERS[index]
