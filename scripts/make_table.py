"""Compute one table of the study from the rows that it needs, and write it as CSV, whole or not at all.

  make_table.py --function safemed.report.tables.hints.hints --input stress MODEL/rows.parquet... --out hints.csv

An input's file is read by its kind: rows.parquet, cost.json, curves.csv or another table. safemed/report/products.py
declares what each table needs.
"""

from safemed.report import inputs
from safemed.utils import files


def main(argv: list[str] | None = None) -> None:
    args = inputs.parser(__doc__).parse_args(argv)
    files.write_csv(inputs.call(args), args.out)


if __name__ == "__main__":
    main()
