"""Fetch a dataset's zip from the Hugging Face hub at a pinned revision; a killed download is gone on with."""

from pathlib import Path

from safemed.data import archive
from safemed.utils import cli, files


def main() -> None:
    """Write the zip; one clear error where it cannot be had."""
    parser = cli.parser(__doc__)
    parser.add_argument("--repo", required=True, help="dataset on the hub")
    parser.add_argument("--revision", required=True, help="its commit")
    parser.add_argument("--file", required=True, help="the zip in it")
    parser.add_argument("--out", type=Path, required=True, help="zip to write")
    args = parser.parse_args()
    cli.start_logging()
    try:
        with files.exit_on_full_disk(args.out):
            archive.download(args.repo, args.revision, args.file, args.out)
    except archive.BadArchive as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
