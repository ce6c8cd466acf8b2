"""Fetch a model from the Hugging Face hub into its cache (HF_HOME), where no later stage needs a network."""

import json
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from safemed.models.untrusted import check_folder
from safemed.utils import cli, files


def main() -> None:
    """Write a JSON that says where the snapshot lies; one clear error where it cannot be had, or be trusted."""
    parser = cli.parser(__doc__)
    parser.add_argument("--model", required=True, help="model on the hub")
    parser.add_argument("--revision", required=True, help="its commit")
    parser.add_argument("--out", type=Path, required=True, help="JSON to write")
    args = parser.parse_args()
    cli.start_logging()
    try:
        with files.exit_on_full_disk(args.out):
            snapshot = snapshot_download(args.model, revision=args.revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise SystemExit(
            f"model.name: {args.model} at {args.revision} cannot be fetched ({error}). Where there is no network, put "
            "it into the hub's cache (HF_HOME), or name a local folder as model.name."
        ) from error
    try:
        check_folder(Path(snapshot))
    except ValueError as error:
        raise SystemExit(f"config: model.name: {error}") from error
    with files.atomic_file(args.out) as file:
        file.write_text(json.dumps({"model": args.model, "revision": args.revision, "path": snapshot}) + "\n")


if __name__ == "__main__":
    main()
