"""Audit the prepared questions: what the text alone gives away, what the splits share, what was dropped or is missing.

Writes audit.html and its tables as CSV: baselines (of the study's questions), blind (as published and hardened), tells,
leaks, nearest, subjects, composition, repairs and, where the published counts are configured, counts. Fails where an
image stands in two splits, but under the scheme med-r1, whose leaks it counts.
"""

from pathlib import Path

from safemed.data.audit import CAPTIONS
from safemed.data.audited_study import audited
from safemed.report.html import page
from safemed.utils import cli, files


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the study's data folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of CSVs to write")
    parser.add_argument("--page", type=Path, required=True, help="HTML page to write")
    args = parser.parse_args()
    cli.start_logging()
    tables = audited(args.data, args.settings, args.seed)
    with files.atomic_folder(args.out) as folder:
        for name, table in tables.items():
            files.write_csv(table, folder / f"{name}.csv")
    with files.atomic_file(args.page) as path:
        path.write_text(page("Audit of the questions", CAPTIONS, tables), encoding="utf-8")


if __name__ == "__main__":
    main()
