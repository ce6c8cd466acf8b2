"""Write one page of the report from the study's tables, rows or images, as HTML that loads nothing.

  make_page.py --function safemed.report.pages.tables.tables --input hints tables/hints.csv --out pages/tables.html

The same inputs give the same bytes. safemed/report/products.py declares what each page needs.
"""

from safemed.report import inputs
from safemed.utils import files


def main(argv: list[str] | None = None) -> None:
    args = inputs.parser(__doc__).parse_args(argv)
    with files.atomic_file(args.out) as temporary:
        temporary.write_text(inputs.call(args), encoding="utf-8")


if __name__ == "__main__":
    main()
