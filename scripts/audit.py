"""Audit the prepared questions: chance and blind baselines a modality, leaks between splits, composition."""

import argparse
from pathlib import Path

from datasets import Dataset

from safemed import audit, run
from safemed.data import read_splits


def main() -> None:
    """Write baselines.csv, leaks.csv and composition.csv; fails where an image stands in two splits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the study's data folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    run.start_logging()
    prepared = Dataset.load_from_disk(str(args.data / "questions")).remove_columns("image")
    splits = read_splits(args.data, prepared)
    questions = prepared.to_pandas().assign(split=splits["split"].to_numpy())
    found = audit.leaks(splits)
    if len(found):
        raise SystemExit(
            f"{args.data / 'splits.csv'}: {len(found)} images in two splits, first {found.iloc[0].to_dict()}"
        )
    by_split = dict(list(questions.groupby("split")))
    with run.atomic_folder(args.out) as folder:
        audit.baselines(by_split["train"], by_split["test"]).to_csv(folder / "baselines.csv", index=False)
        found.to_csv(folder / "leaks.csv", index=False)
        audit.composition(questions).to_csv(folder / "composition.csv", index=False)


if __name__ == "__main__":
    main()
