"""Divide the prepared questions into train, val and test so that no image is in two of them."""

from pathlib import Path

from datasets import Dataset

from safemed import data, run


def main() -> None:
    """Write splits.csv (question_id, image_key, split), one row a question in the dataset's order."""
    parser = run.parser(__doc__)
    parser.add_argument("--questions", type=Path, required=True, help="Arrow folder of prepare")
    parser.add_argument("--out", type=Path, required=True, help="splits.csv to write")
    args = parser.parse_args()
    run.start_logging()
    questions = data.image_keys(Dataset.load_from_disk(str(args.questions)))
    questions["split"] = data.assign_splits(questions, args.settings, args.seed)
    with run.atomic_file(args.out) as path:
        questions[["question_id", "image_key", "split"]].to_csv(path, index=False)


if __name__ == "__main__":
    main()
