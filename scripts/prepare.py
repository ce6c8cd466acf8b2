"""Parse, repair, word and resize OmniMedVQA's records into one Arrow dataset; every drop and repair has its reason."""

import importlib
import logging
from pathlib import Path

from safemed.data import prepare
from safemed.utils import cli, files


def main() -> None:
    """Write questions/ (Arrow), texts.parquet, drops.csv and counts.csv; fails where no record is usable."""
    parser = cli.parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder in OmniMedVQA's layout")
    parser.add_argument("--questions", type=Path, required=True, help="Arrow folder to write")
    parser.add_argument("--texts", type=Path, required=True, help="parquet of the texts as published to write")
    parser.add_argument("--drops", type=Path, required=True, help="CSV of dropped and repaired records to write")
    parser.add_argument("--counts", type=Path, required=True, help="CSV of what was published to write")
    parser.add_argument("--hardening", nargs="?", help="the module that hardens the questions; as published without")
    parser.add_argument("--workers", type=int, default=1, help="threads that read and resize images")
    args = parser.parse_args()
    cli.start_logging()
    # By name: questions as published do not depend on the code that hardens them.
    harden = importlib.import_module(args.hardening).harden if args.hardening else None
    journal = prepare.Journal()
    try:
        texts, counts = prepare.parse(args.source, journal, args.settings.get("modalities"))
        asked = prepare.asked(texts, harden, args.seed, journal)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from error
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}. The file may be whole: run again.") from error
    with files.exit_on_full_disk(args.questions):
        with files.atomic_folder(args.questions, resume=True) as folder:
            side = args.settings["image_size"]
            written = prepare.write(asked, args.source, side, folder, args.workers, journal)
            if not written:
                raise SystemExit(f"{args.source}: no usable image; {journal.summary()}")
        logging.info("%d of %d records kept. %s", len(written), counts["questions"].sum(), journal.summary())
        for table, out in ((counts, args.counts), (journal.table(), args.drops)):
            files.write_csv(table, out)
        with files.atomic_file(args.texts) as path:
            texts[texts["question_id"].isin(written)].to_parquet(path, index=False)


if __name__ == "__main__":
    main()
