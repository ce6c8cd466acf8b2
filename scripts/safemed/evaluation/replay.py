"""Stored adversarial images scored on a model: no attack is run, only the text generated from each image is read."""

import logging
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import registry, results
from safemed.evaluation.arguments import load, model_columns
from safemed.evaluation.batching import Failure, for_each
from safemed.evaluation.evaluator import Evaluator
from safemed.models.chat import check_template
from safemed.models.vlm import VLM
from safemed.utils import cli, cost

log = logging.getLogger(__name__)


def run(args: Namespace, script: str) -> None:
    """Write the folder args.out: rows.parquet, one row a source model, attack, eps and question, cost, provenance."""
    meter, vlm = cost.CostMeter("replay", args.model), load(args)
    questions, tables = load_questions(args.data, "test"), []
    check_template(vlm.processor, questions.remove_columns("image")[0], args.variant)  # another model may be meant
    for folder in tqdm(args.attacks, desc="replay", disable=not cli.watched()):
        tables.append(replayed(vlm, questions, folder, args))
        right = tables[-1].groupby("eps").outcome.agg(lambda outcomes: (outcomes == "right").mean())
        log.info("%s: right %s", folder, right.round(3).to_dict())
    results.write(pd.concat(tables, ignore_index=True), args, script, meter, vlm)


def replayed(vlm: VLM, questions: Dataset, folder: Path, args: Namespace) -> pd.DataFrame:
    """The rows of an attack's folder with the texts, answers and outcomes of this model.

    The model is smoothed, and asked after a hint or in a second turn, as the attacked one was; the first answer of such
    a turn is this model's own. Raises ValueError where the folder is about other questions or hints, or, with
    args.same, where a row differs from the stored one.
    """
    stored = stored_rows(folder, args.settings["eps"])
    asked = subset(questions, stored.question_id.nunique(), args.seed)
    attack, longest = args.settings["attacks"].get(folder.name), args.settings["max_new_tokens"][args.variant]
    evaluator = registry.evaluator_for(
        vlm, asked, args.variant, longest, attack, args.seed, args.settings["batch_size"], args.templates
    )
    tables = []
    for eps, rows in stored.groupby("eps"):
        check_questions(rows, evaluator, folder)
        with np.load(folder / "images.npz") as archive:
            images = torch.from_numpy(archive[f"eps{eps:g}"])
        before = rows.reset_index(drop=True)
        after = answered(evaluator, before, images, args.settings["batch_size"], model_columns(args))
        if args.same:
            check_same(before, after, folder)
        tables.append(after)
    return pd.concat(tables, ignore_index=True)


def stored_rows(folder: Path, eps: float | None) -> pd.DataFrame:
    """The rows of an attack's folder at eps, None for all radii. Raises ValueError where there are none."""
    rows = pd.read_parquet(folder / "rows.parquet")
    rows = rows if eps is None else rows[rows.eps == eps]
    if rows.empty:
        raise ValueError(f"{folder}: no rows at eps {eps}; re-run that attack with this radius")
    return rows


def check_questions(rows: pd.DataFrame, evaluator: Evaluator, folder: Path) -> None:
    """Refuse rows about other questions than the evaluator's, or under other hints."""
    if rows.question_id.tolist() != [row["question_id"] for row in evaluator.rows]:
        raise ValueError(f"{folder}: other questions than this study's; re-run that attack")
    if rows.hint.tolist() != [row.get("hint", "") for row in evaluator.rows]:
        raise ValueError(f"{folder}: other hints than --templates has now; re-run that attack")


def answered(
    evaluator: Evaluator, rows: pd.DataFrame, images: Tensor, batch_size: int, model: dict[str, str]
) -> pd.DataFrame:
    """The rows with the evaluator's texts, answers and outcomes; `source` is the model that was attacked.

    A question that the attack could not evaluate stays failed, with its text; one that cannot be evaluated now is
    failed. images: uint8 [N, H, W, 3]. model: the columns that name the model.
    """
    failed = {i: Failure(text) for i, text in rows.text[rows.outcome == FAILED].items()}
    failed = {i: Failure(row["failed"]) for i, row in enumerate(evaluator.rows) if "failed" in row} | failed
    sound = torch.tensor([i for i in range(len(rows)) if i not in failed], dtype=torch.long)
    found = for_each(evaluator.batches(sound, batch_size), lambda part: evaluator.answers(images[part], part))
    read = [_read(evaluator, i, (found | failed)[i]) for i in range(len(rows))]
    texts, answers, outcomes = zip(*read, strict=True)
    cut = [cut and outcome != FAILED for cut, outcome in zip(evaluator.cut(texts), outcomes, strict=True)]
    said = {"text": texts, "answer": answers, "outcome": outcomes, "cut": cut}
    return rows.assign(source=rows.model, **model, **said)


def _read(evaluator: Evaluator, row: int, text: str | Failure) -> tuple[str, str, str]:
    """Text, answer and outcome; of what failed, the reason for its text."""
    if isinstance(text, Failure):
        return text.why, "", FAILED
    return text, evaluator.answer(text, row), evaluator.outcome(text, row)


def check_same(before: pd.DataFrame, after: pd.DataFrame, folder: Path) -> None:
    """Refuse a replay in which a text, answer or outcome differs from the stored one."""
    columns = ["question_id", "text", "answer", "outcome"]
    other = (before[columns] != after[columns]).any(axis=1)
    if other.any():
        first = before[other].iloc[0]
        raise ValueError(
            f"{folder}: {int(other.sum())} of {len(before)} rows are not what the stored images show, first question "
            f"{first.question_id}: stored {first.text!r}, now {after[other].iloc[0].text!r}; the model or the images "
            "were changed: re-run the attack"
        )
