"""Divide the prepared questions into train, val and test by the scheme of the config."""

from pathlib import Path

from safemed.data import splits
from safemed.data.dataset import read_questions
from safemed.utils import cli, files


def main() -> None:
    """Write splits.csv (question_id, image_key, group, split), one row a question in the dataset's order."""
    parser = cli.parser(__doc__)
    parser.add_argument("--questions", type=Path, required=True, help="Arrow folder of prepare")
    parser.add_argument("--out", type=Path, required=True, help="splits.csv to write")
    args = parser.parse_args()
    cli.start_logging()
    try:
        made = splits.split(splits.keys(read_questions(args.questions)), args.settings, args.seed)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from error
    files.write_csv(made, args.out)


if __name__ == "__main__":
    main()
