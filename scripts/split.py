"""Divide the prepared questions into train, val and test by the scheme of the config."""

from pathlib import Path

from safemed import run, splits
from safemed.data import read_questions


def main() -> None:
    """Write splits.csv (question_id, image_key, group, split), one row a question in the dataset's order."""
    parser = run.parser(__doc__)
    parser.add_argument("--questions", type=Path, required=True, help="Arrow folder of prepare")
    parser.add_argument("--out", type=Path, required=True, help="splits.csv to write")
    args = parser.parse_args()
    run.start_logging()
    try:
        made = splits.split(splits.keys(read_questions(args.questions)), args.settings, args.seed)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from error
    with run.atomic_file(args.out) as path:
        made.to_csv(path, index=False)


if __name__ == "__main__":
    main()
