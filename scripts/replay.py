"""Score stored adversarial images on a model: no attack is run, only the text generated from each image is read.

With --same the rows must be those that the attack wrote, and the program fails where one is not.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from tqdm import tqdm

from safemed.data.dataset import load_questions, subset
from safemed.data.prompts import FAILED
from safemed.evaluation import arguments, registry
from safemed.evaluation.batching import halving
from safemed.evaluation.evaluator import Evaluator
from safemed.models.vlm import VLM
from safemed.utils import cli, cost, files, provenance

log = logging.getLogger(__name__)


def main() -> None:
    """Write a folder with rows.parquet, one row a source model, attack, eps and question, and cost.json."""
    parser = arguments.evaluation_parser(__doc__)
    parser.add_argument("--attacks", type=Path, nargs="+", required=True, help="folders of scripts/attack.py")
    parser.add_argument("--templates", type=Path, nargs="?", help="the file of templates, where an attack knew a hint")
    parser.add_argument("--same", action="store_true", help="fail unless the rows are those of the attack")
    args = parser.parse_args()
    cli.start_logging()
    meter, vlm = cost.CostMeter("replay", args.model), VLM.load(args.weights)
    questions, tables = load_questions(args.data, "test"), []
    for folder in tqdm(args.attacks, desc="replay", disable=not cli.watched()):
        tables.append(replayed(vlm, questions, folder, args))
        log.info("%s: right %s", folder, tables[-1].groupby("eps").outcome.apply(_right).round(3).to_dict())
    with files.atomic_folder(args.out) as folder:
        pd.concat(tables, ignore_index=True).to_parquet(folder / "rows.parquet", index=False)
        meter.write(folder / "cost.json", vlm.passes)
        provenance.write(folder, args, __file__)


def replayed(vlm: VLM, questions: Dataset, folder: Path, args) -> pd.DataFrame:
    """The rows of one attack's folder, with the outcomes of this model, smoothed where the attacked one was, and asked
    after the hint where that one was.

    Raises ValueError where the folder is about other questions or hints, or, with --same, a row is not what it was.
    """
    stored = pd.read_parquet(folder / "rows.parquet")
    if args.settings["eps"] is not None:
        stored = stored[stored.eps == args.settings["eps"]]
    if stored.empty:
        raise ValueError(f"{folder}: no rows at eps {args.settings['eps']}; re-run that attack with this radius")
    asked, longest = subset(questions, stored.question_id.nunique(), args.seed), args.settings["max_new_tokens"]
    attack = args.settings["attacks"].get(folder.name)
    evaluator = registry.evaluator_for(
        vlm, asked, args.variant, longest[args.variant], attack, args.seed, args.templates
    )
    tables = []
    for eps, rows in stored.groupby("eps"):
        if rows.question_id.tolist() != [row["question_id"] for row in evaluator.rows]:
            raise ValueError(f"{folder}: other questions than this study's; re-run that attack")
        if rows.hint.tolist() != [row.get("hint", "") for row in evaluator.rows]:
            raise ValueError(f"{folder}: other hints than --templates has now; re-run that attack")
        with np.load(folder / "images.npz") as archive:
            images = torch.from_numpy(archive[f"eps{eps:g}"])
        again = answered(evaluator, rows.reset_index(drop=True), images, args)
        if args.same:
            check_same(rows.reset_index(drop=True), again, folder)
        tables.append(again)
    return pd.concat(tables, ignore_index=True)


def answered(evaluator: Evaluator, rows: pd.DataFrame, images: torch.Tensor, args) -> pd.DataFrame:
    """The rows with this model's texts, answers and outcomes; `source` is the model that was attacked.

    What the attack could not evaluate stays failed; what cannot be evaluated now is failed.
    """
    failed = (rows.outcome == FAILED).to_numpy().copy()
    texts = rows.text.where(failed, "").tolist()

    def hear(part: torch.Tensor) -> None:
        for row, text in zip(part.tolist(), evaluator.answers(images[part], part), strict=True):
            texts[row] = text

    def fail(part: torch.Tensor, why: str) -> None:
        texts[int(part)], failed[int(part)] = why, True

    for batch in evaluator.batches(torch.from_numpy(np.flatnonzero(~failed)), args.settings["batch_size"]):
        list(halving(batch, hear, fail))
    read = [
        ("", FAILED) if failed[i] else (evaluator.answer(t, i), evaluator.outcome(t, i)) for i, t in enumerate(texts)
    ]
    answers, outcomes = zip(*read, strict=True)
    told = {"model": args.model, "method": args.method, "variant": args.variant}
    return rows.assign(source=rows.model, **told, text=texts, answer=answers, outcome=outcomes)


def check_same(before: pd.DataFrame, after: pd.DataFrame, folder: Path) -> None:
    """Refuse a replay that reads another answer than the attack stored."""
    columns = ["question_id", "text", "answer", "outcome"]
    other = (before[columns] != after[columns]).any(axis=1)
    if other.any():
        first = before[other].iloc[0]
        raise ValueError(
            f"{folder}: {int(other.sum())} of {len(before)} rows are not what the stored images show, first question "
            f"{first.question_id}: stored {first.text!r}, now {after[other].iloc[0].text!r}; the model or the images "
            "were changed: re-run the attack"
        )


def _right(outcomes: pd.Series) -> float:
    return (outcomes == "right").mean()


if __name__ == "__main__":
    main()
