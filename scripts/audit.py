"""Audit the prepared questions: what the text alone gives away, what the splits share, what was dropped or is missing.

Writes audit.html and its tables as CSV: baselines (of the study's questions), blind (as published and hardened), tells,
leaks, nearest, subjects, composition, repairs and, where the published counts are configured, counts. Fails where an
image stands in two splits, but under the scheme med-r1, whose leaks it counts.
"""

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd

from safemed.data import audit
from safemed.data.dataset import SPLITS, read_questions, read_splits
from safemed.data.hardening import harden
from safemed.report.html import page
from safemed.utils import cli, files


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the study's data folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of CSVs to write")
    parser.add_argument("--page", type=Path, required=True, help="HTML page to write")
    args = parser.parse_args()
    cli.start_logging()
    questions, texts = read(args.data)
    found = audit.leaks(questions)
    refuse_leaks(found, args.data / "splits.csv", args.settings["scheme"])
    for name in SPLITS:
        if not (questions["split"] == name).any():
            raise SystemExit(
                f"{args.data / 'splits.csv'}: no question in split {name!r}; raise its share in data.split"
            )
    refuse_empty_parts(questions, args.settings["train_on"])
    hardened = questions if args.settings["questions"] == "hardened" else harden(texts, args.seed)
    wordings = {"published": texts[texts["question_id"].isin(hardened["question_id"])], "hardened": hardened}
    if any(part.empty for part in trained_and_tested(hardened)):
        logging.warning("hardening leaves no question to train on or to test: the audit tells of the published alone")
        wordings = {"published": texts}
    tables = {
        "baselines": audit.baselines(*trained_and_tested(questions)),
        "blind": blind(wordings),
        "tells": audit.tells(wordings),
        "leaks": found,
        "nearest": audit.nearest(questions),
        "subjects": audit.subjects(questions),
        "composition": audit.composition(questions),
        "repairs": audit.repairs(pd.read_csv(args.data / "drops.csv")),
    }
    if args.settings["published_counts"]:
        counted = audit.counts_against(pd.read_csv(args.data / "counts.csv"), args.settings["published_counts"])
        tables["counts"] = counted
        logging.info(
            "counts that differ from the published: %s", counted[counted["difference"] != 0].to_dict("records")
        )
    with files.atomic_folder(args.out) as folder:
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
    with files.atomic_file(args.page) as path:
        path.write_text(page("Audit of the questions", audit.CAPTIONS, tables), encoding="utf-8")


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
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


def refuse_leaks(found: pd.DataFrame, path: Path, scheme: str) -> None:
    """Exit where images leak, but from train or val to test under a published scheme that is known to."""
    leaking = found[found["images"] > 0]
    if len(leaking):
        logging.warning("shared between splits: %s", json.dumps(leaking.to_dict("records")))
    if scheme == "med-r1":
        leaking = leaking[~leaking["splits"].str.endswith("|test")]
    if len(leaking):
        raise SystemExit(f"{path}: images or groups in two splits, {leaking.iloc[0].to_dict()}; re-run split_questions")


def refuse_empty_parts(questions: pd.DataFrame, parts: dict[str, dict]) -> None:
    """Exit where a method's train_on leaves nothing to learn from; parts: method -> train_on."""
    train = questions[questions["split"] == "train"]
    for method, part in parts.items():
        if not np.logical_and.reduce([train[column] == value for column, value in part.items()]).any():
            raise SystemExit(f"methods.{method}.train_on: no training question with {part}")


def trained_and_tested(questions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The questions of the train and of the test split."""
    return questions[questions["split"] == "train"], questions[questions["split"] == "test"]


def blind(wordings: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The baselines of each wording of the same questions."""
    parts = [audit.baselines(*trained_and_tested(q)).assign(questions=name) for name, q in wordings.items()]
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    main()
