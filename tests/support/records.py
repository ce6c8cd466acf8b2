"""A data folder in OmniMedVQA's layout, for the tests of the data stage."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from safemed.data.records import MODALITIES
from safemed.data.splits import read_published
from safemed.workflow.sources import HARDENING
from support.commands import command
from support.paths import ROOT

MINI = Path(os.environ.get("OMNIMEDVQA_MINI", ROOT / "../shared/data/omnimedvqa-mini"))
QA = Path(os.environ.get("OMNIMEDVQA_QA", ROOT / "../shared/data/omnimedvqa-qa"))


def record(**changes) -> dict:
    """A record as OmniMedVQA publishes it; a key changed to None is absent."""
    made = {
        "dataset": "Chest CT Scan", "question_id": "c1", "question_type": "Disease Diagnosis", "question": "What?",
        "gt_answer": "Cyst", "image_path": "Images/a.png", "option_A": "Nodule", "option_B": "Cyst",
        "option_C": "Fissure", "option_D": "No finding", "modality_type": "CT(Computed Tomography)",
    } | changes  # fmt: skip
    return {key: value for key, value in made.items() if value is not None}


def write_source(folder: Path, records: list[dict], images: dict[str, np.ndarray | Image.Image]) -> Path:
    """A folder in OmniMedVQA's layout."""
    for name, pixels in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(folder / name)
    file = folder / "QA_information" / "Open-access" / "some.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(records))
    return folder


def picture(seed: int, side: int = 16) -> np.ndarray:
    """Random pixels."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def prepare_arguments(source: Path, folder: Path, workers: int = 2) -> list:
    """The arguments of prepare.py for a data folder."""
    return [
        "--source", source, "--questions", folder / "questions", "--texts", folder / "texts.parquet",
        "--drops", folder / "drops.csv", "--counts", folder / "counts.csv", "--workers", workers,
    ]  # fmt: skip


def prepared(source: Path, folder: Path, side: int = 8, questions: str = "published", fails: bool = False) -> str:
    """Run prepare.py as its rule does."""
    given = prepare_arguments(source, folder)
    given += ["--hardening", HARDENING] if questions == "hardened" else []
    return command("prepare.py", *given, settings={"image_size": side}, fails=fails)


def audited(folder: Path, fails: bool = False, **changes) -> str:
    """Run audit.py on a data folder as its rule does."""
    settings = {"scheme": "grouped", "questions": "published", "published_counts": None, "train_on": {}} | changes
    arguments = ["--data", folder, "--out", folder / "audit", "--page", folder / "audit.html"]
    return command("audit.py", *arguments, settings=settings, fails=fails)


def real_questions() -> pd.DataFrame:
    """The real test questions, as published: question_id, modality, dataset, question_type, question, options, gold."""
    rows = pd.DataFrame(read_published(QA / "test"))
    types = pd.read_json(QA / "question_types.jsonl.gz", lines=True).rename(columns={"modality": "modality_file"})
    rows["index"] = rows.groupby("modality_file").cumcount()
    rows = rows.merge(types[["modality_file", "index", "question_type"]], validate="one_to_one")
    return rows.assign(modality=rows["modality_file"].map(MODALITIES), question_id=[f"q{i}" for i in range(len(rows))])


def halves(questions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two random halves: to learn what the text tells, and to test it."""
    mixed = questions.sample(frac=1, random_state=0)
    return mixed[::2], mixed[1::2]
