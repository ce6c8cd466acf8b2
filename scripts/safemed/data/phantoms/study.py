"""A study of questions about rendered phantoms, in OmniMedVQA's layout."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from safemed.data.phantoms.anatomy import MODALITIES, Modality
from safemed.data.phantoms.canvas import Truth
from safemed.data.phantoms.faults import FAULTS, FAULTY, SOUND, impair
from safemed.data.phantoms.lesions import CENTRE, CORNERS, FINDINGS, RADII, SIDES, render

MIN_IMAGES = 80  # one image for each modality, anatomy and finding
QUESTIONS = ("basic", "ladder")
PRESENCE = ("lesion", "no lesion")
WORDINGS = {
    "Modality Recognition": (
        "What is the imaging modality?",
        "Which imaging technique was used?",
        "How was this image acquired?",
    ),
    "Anatomy Identification": ("Which anatomy is shown?", "What part of the body is this?"),
    "Disease Diagnosis": ("What is the diagnosis?", "Which finding is present?", "What is the main finding?"),
    "Lesion Grading": ("How large is the lesion?", "What is the size of the lesion?"),
    "Image Quality": (
        "What is the image quality?",
        "How good is this acquisition?",
        "Which acquisition fault is visible, if any?",
    ),
    "Lesion Presence": ("Is a lesion present?", "Does the image show a lesion?"),
    "Lesion Localization": ("Where is the lesion?", "Where in the image is the lesion?"),
}


@dataclass(frozen=True)
class Case:
    """What one image of a study is to show."""

    modality: Modality
    anatomy: str
    finding: str
    size: str | None


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Endless shuffled cases, balanced early: a longer study starts with the cases of a shorter one.

    Each 16 in turn hold every anatomy of every modality once and every finding 3 or 4 times; each 80 hold every
    finding in every anatomy once; each 240 every lesion in every anatomy in every size once.
    """
    anatomies = [(modality, anatomy) for modality in MODALITIES.values() for anatomy in modality.anatomies]
    lesions, sizes = len(FINDINGS) - 1, list(RADII)
    while True:
        first_finding = rng.permutation(len(anatomies))
        # [modality, lesion of either anatomy]: permuted within a modality, so that sizes are even there within 80.
        first_size = rng.permuted(np.tile(np.arange(2 * lesions), (len(MODALITIES), 1)), axis=1)
        for turn in range(len(FINDINGS) * len(sizes)):
            for cell in rng.permutation(len(anatomies)):
                finding = (first_finding[cell] + turn) % len(FINDINGS)
                lesion = cell % 2 * lesions + finding - 1
                size = sizes[(first_size[cell // 2, lesion] + turn // len(FINDINGS)) % len(sizes)]
                yield Case(*anatomies[cell], FINDINGS[finding], size if finding else None)


def _options(case: Case, rng: np.random.Generator) -> dict[str, tuple[str, list[str]]]:
    """For each question type that applies: the gold option and all options, in a random order."""
    answers = [modality.answer for modality in MODALITIES.values()]
    drawn = {
        "Modality Recognition": (case.modality.answer, answers, 4),
        "Anatomy Identification": (case.anatomy, list(case.modality.anatomies), 2),
        "Disease Diagnosis": (case.finding, list(FINDINGS), 4),
    }
    if case.size:
        drawn["Lesion Grading"] = (case.size, list(RADII), 3)
    return {kind: (gold, _draw(gold, names, number, rng)) for kind, (gold, names, number) in drawn.items()}


def _ladder_options(truth: Truth, quality: str, rng: np.random.Generator) -> dict[str, tuple[str, list[str]]]:
    """The same for the question types that the ladder adds."""
    presence = PRESENCE[truth.place is None]
    drawn = {
        "Image Quality": (quality, _draw(quality, [SOUND, *FAULTS], 4, rng)),
        "Lesion Presence": (presence, _draw(presence, list(PRESENCE), 2, rng)),
    }
    if truth.place:
        drawn["Lesion Localization"] = (truth.place, _draw_places(truth.place, rng))
    return drawn


def _draw(gold: str, names: list[str], number: int, rng: np.random.Generator) -> list[str]:
    """`number` of the names in random order: gold, and the rest drawn uniformly."""
    others = rng.permutation([name for name in names if name != gold])[: number - 1]
    return rng.permutation([gold, *others]).tolist()


def _draw_places(gold: str, rng: np.random.Generator) -> list[str]:
    """The centre and three sides or three corners, gold among them, in random order.

    A quarter of the lesions lie at the centre, an eighth on each side, a sixteenth in each corner: offered together,
    each option is right about equally often, which it would not be among places drawn uniformly.
    """
    cornered = gold in CORNERS or (gold == CENTRE and rng.random() < 1 / 3)
    others = rng.permutation(CORNERS if cornered else SIDES).tolist()
    return rng.permutation(list(dict.fromkeys([CENTRE, gold, *others]))[:4]).tolist()


def _records(
    case: Case, truth: Truth, image_path: str, asked: dict[str, tuple[str, list[str]]], rng: np.random.Generator
) -> Iterator[dict]:
    """OmniMedVQA's records of what is asked of one image, their question_id still to be filled in."""
    for kind, (gold, options) in asked.items():
        yield {
            "dataset": case.modality.dataset,
            "question_id": None,
            "question_type": kind,
            "question": str(rng.choice(WORDINGS[kind])),
            "gt_answer": gold,
            "image_path": image_path,
            **{f"option_{letter}": option for letter, option in zip("ABCD", options, strict=False)},
            "modality_type": case.modality.modality_type,
            "finding": case.finding,
            "size": case.size,
            "anatomy": case.anatomy,
            "place": truth.place,
            "box": truth.box,
            "organ": truth.organ,
        }


def _phantom(
    case: Case, image_path: str, seed: np.random.SeedSequence, side: int, questions: str
) -> tuple[np.ndarray, list[dict]]:
    """One image of a study, uint8 [side, side, 3], and its records."""
    # The ladder has generators of its own: what is drawn and asked in a basic study is the same in it.
    picture_rng, question_rng, fault_rng, ladder_rng = map(np.random.default_rng, seed.spawn(4))
    image, truth = render(case.modality.modality_type, case.anatomy, case.finding, case.size, picture_rng, side)
    records = list(_records(case, truth, image_path, _options(case, question_rng), question_rng))
    if questions == "basic":
        return image, records
    quality = str(fault_rng.choice(list(FAULTS))) if fault_rng.random() < FAULTY else SOUND
    asked = _ladder_options(truth, quality, ladder_rng)
    records += _records(case, truth, image_path, asked, ladder_rng)
    return impair(image, quality, fault_rng), [record | {"quality": quality} for record in records]


def write_study(out: Path, images: int, seed: int, side: int = 64, questions: str = "basic") -> None:
    """Write a study of `images` phantoms of side x side pixels in OmniMedVQA's layout into the folder `out`.

    Images/<dataset>/<number>.png (8-bit, grey modalities in mode L) and QA_information/Open-access/<dataset>.json, a
    list of 3 records an image, 4 where it has a lesion. Reproducible to the byte; image i and its questions are the
    same however many images follow.

    questions: "ladder" adds to them the image quality, whether there is a lesion and where it lies (2 records an image,
    3 where it has a lesion), and gives a share FAULTY of the images an acquisition fault (see `impair`), told by the
    records' "quality": SOUND and each fault are as frequent. 4 of 5 have a lesion, which the text may know.

    Raises ValueError if images is below MIN_IMAGES or questions none of QUESTIONS.
    """
    if images < MIN_IMAGES:
        raise ValueError(f"a balanced study needs at least {MIN_IMAGES} images, got {images}")
    if questions not in QUESTIONS:
        raise ValueError(f"questions must be one of {', '.join(QUESTIONS)}, got {questions!r}")
    plan_seed, images_seed = np.random.SeedSequence(seed).spawn(2)
    plan = cases(np.random.default_rng(plan_seed))
    records = {modality.dataset: [] for modality in MODALITIES.values()}
    for dataset in records:
        (out / "Images" / dataset).mkdir(parents=True, exist_ok=True)
    for number, image_seed in enumerate(tqdm(images_seed.spawn(images), desc="phantoms", unit="image")):
        case = next(plan)
        path = f"Images/{case.modality.dataset}/{number:06d}.png"
        image, rows = _phantom(case, path, image_seed, side, questions)
        _save(image, out / path)
        records[case.modality.dataset] += rows
    _write_questions(out / "QA_information" / "Open-access", records)


def _save(image: np.ndarray, path: Path) -> None:
    """Write a PNG, in one channel if all three are equal."""
    grey = (image == image[..., :1]).all()
    Image.fromarray(image[..., 0] if grey else image).save(path)


def _write_questions(folder: Path, records: dict[str, list[dict]]) -> None:
    """Number the records within their dataset and write one JSON list a dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    for dataset, rows in records.items():
        numbered = [row | {"question_id": f"{dataset}_{number:04d}"} for number, row in enumerate(rows, 1)]
        (folder / f"{dataset}.json").write_text(json.dumps(numbered, indent=1) + "\n")
