"""Check a zip in OmniMedVQA's layout by size and hash, and unpack it; a killed run goes on where it was."""

import logging
from pathlib import Path

from safemed.data import archive
from safemed.utils import cli, files


def main() -> None:
    """Write the folder with Images/ and QA_information/; one clear error where the zip is broken."""
    parser = cli.parser(__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="zip to unpack")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    cli.start_logging()
    try:
        archive.verify(args.archive, args.settings.get("bytes"), args.settings.get("sha256"))
        with files.exit_on_full_disk(args.out):
            written = archive.unpack(args.archive, args.out)
    except archive.BadArchive as error:
        raise SystemExit(str(error)) from error
    logging.info("%s: %d files", args.out, written)


if __name__ == "__main__":
    main()
