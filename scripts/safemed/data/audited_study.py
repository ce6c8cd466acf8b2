"""The audit of one study: what its data folder holds, what it refuses, and the tables that come of it."""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from safemed.data import audit
from safemed.data.dataset import SPLITS, read_questions, read_splits
from safemed.data.hardening import harden
from safemed.utils.files import read_csv

# The columns of text in what `prepare` wrote.
DROPS_TEXT = ("record", "question_id", "action", "reason")
COUNTS_TEXT = ("dataset", "modality")
log = logging.getLogger(__name__)


def audited(folder: Path, settings: dict, seed: int) -> dict[str, pd.DataFrame]:
    """The audit's tables by name, those of audit.CAPTIONS, of a study's data folder.

    settings: scheme and wording (`questions`) of the study, train_on: method -> the part of the training split that it
    learns from, and published_counts or None. Exits, naming the file or the key, where an image stands in two splits, a
    split is empty, or a method has nothing to learn from.
    """
    questions, texts = _read(folder)
    shared = audit.leaks(questions)
    _refuse_leaks(shared, folder / "splits.csv", settings["scheme"])
    _refuse_empty_splits(questions, folder / "splits.csv")
    _refuse_empty_parts(questions, settings["train_on"])
    wordings = _wordings(questions, texts, settings["questions"], seed)
    tables = {
        "baselines": audit.baselines(*_trained_and_tested(questions)),
        "blind": _blind(wordings),
        "tells": audit.tells(wordings),
        "leaks": shared,
        "nearest": audit.nearest(questions),
        "subjects": audit.subjects(questions),
        "composition": audit.composition(questions),
        "repairs": audit.repairs(read_csv(folder / "drops.csv", DROPS_TEXT)),
    }
    if published := settings["published_counts"]:
        tables["counts"] = audit.counts_against(read_csv(folder / "counts.csv", COUNTS_TEXT), published)
        differing = tables["counts"][tables["counts"]["difference"] != 0]
        log.info("counts that differ from the published: %s", differing.to_dict("records"))
    return tables


def _read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The study's questions without their pixels, and the published texts of the same, both with their split.

    The keys that tell equal images are computed anew from the stored images.
    """
    prepared = read_questions(folder / "questions")
    splits = read_splits(folder, prepared)
    questions = prepared.remove_columns("image").to_pandas()
    questions = questions.assign(
        image_key=audit.stored_keys(prepared), split=splits["split"].to_numpy(), group=splits["group"].to_numpy()
    )
    texts = pd.read_parquet(folder / "texts.parquet")
    return questions, texts.merge(questions[["question_id", "split"]], on="question_id", validate="one_to_one")


def _refuse_leaks(found: pd.DataFrame, path: Path, scheme: str) -> None:
    """Exit where images leak, but from train or val to test under a published scheme that is known to."""
    leaking = found[found["images"] > 0]
    if len(leaking):
        log.warning("shared between splits: %s", json.dumps(leaking.to_dict("records")))
    if scheme == "med-r1":
        leaking = leaking[~leaking["splits"].str.endswith("|test")]
    if len(leaking):
        raise SystemExit(f"{path}: images or groups in two splits, {leaking.iloc[0].to_dict()}; re-run split_questions")


def _refuse_empty_splits(questions: pd.DataFrame, path: Path) -> None:
    """Exit where a split has no question, saying whether there are too few groups to fill it."""
    images, groups = questions["image_path"].nunique(), questions.groupby("group")["image_path"].nunique()
    way_out = "raise its share in data.split"
    if len(groups) < images:
        way_out = (
            f"the {images} images are {len(groups)} group{'s' * (len(groups) > 1)}, the largest of {groups.max()}, "
            "whose images are near-duplicates or of one subject and stay together: add images that differ, lower "
            "data.split.near_duplicate_bits, or raise its share in data.split"
        )
    for name in SPLITS:
        if not (questions["split"] == name).any():
            raise SystemExit(f"{path}: no question in split {name!r}; {way_out}")


def _refuse_empty_parts(questions: pd.DataFrame, parts: dict[str, dict]) -> None:
    """Exit where a method's train_on leaves nothing to learn from; parts: method -> train_on."""
    train = questions[questions["split"] == "train"]
    for method, part in parts.items():
        if not np.logical_and.reduce([train[column] == value for column, value in part.items()]).any():
            raise SystemExit(f"methods.{method}.train_on: no training question with {part}")


def _wordings(questions: pd.DataFrame, texts: pd.DataFrame, wording: str, seed: int) -> dict[str, pd.DataFrame]:
    """The same questions as published and hardened; as published alone where hardening leaves none in train or test."""
    hardened = questions if wording == "hardened" else harden(texts, seed)
    if any(part.empty for part in _trained_and_tested(hardened)):
        log.warning("hardening leaves no question to train on or to test: the audit is of the published alone")
        return {"published": texts}
    return {"published": texts[texts["question_id"].isin(hardened["question_id"])], "hardened": hardened}


def _trained_and_tested(questions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The questions of the train and of the test split."""
    return questions[questions["split"] == "train"], questions[questions["split"] == "test"]


def _blind(wordings: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The baselines of each wording of the same questions."""
    parts = [audit.baselines(*_trained_and_tested(q)).assign(questions=name) for name, q in wordings.items()]
    return pd.concat(parts, ignore_index=True)
