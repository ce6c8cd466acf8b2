"""Parse, repair and resize OmniMedVQA's records into one Arrow dataset; what is dropped is listed with its reason."""

import logging
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from safemed import data, run


def main() -> None:
    """Write the dataset folder and drops.csv; fails where no record is usable."""
    parser = run.parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder in OmniMedVQA's layout")
    parser.add_argument("--questions", type=Path, required=True, help="Arrow folder to write")
    parser.add_argument("--drops", type=Path, required=True, help="CSV of dropped records to write")
    args = parser.parse_args()
    run.start_logging()
    drops: list[dict] = []
    with run.atomic_folder(args.questions) as folder:
        rows = data.prepare(args.source, args.settings["image_size"], drops)
        counted = tqdm(rows, desc="prepare", unit=" questions", disable=not run.watched())
        kept = data.write_arrow(counted, folder)
        if not kept:
            raise SystemExit(f"{args.source}: no usable record; the first reasons: {drops[:3]}")
        logging.info("%d questions kept, %d dropped", kept, len(drops))
    with run.atomic_file(args.drops) as path:
        pd.DataFrame(drops, columns=["record", "question_id", "reason"]).to_csv(path, index=False)


if __name__ == "__main__":
    main()
