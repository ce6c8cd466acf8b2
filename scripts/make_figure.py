"""Draw one figure of the study from its tables, rows or curves.

  make_figure.py --function safemed.report.figures.chain.chain --input chain tables/chain.csv --out figures/chain.png

Shows the models of the study's own seed; those of further seeds are in the tables, and in the figure of seeds. Writes
OUT.pdf, OUT.png and OUT.csv (the numbers drawn), each whole or not at all and the same bytes for the same inputs.
safemed/report/products.py declares what each figure needs.
"""

from safemed.report import inputs
from safemed.report.figures import style


def main(argv: list[str] | None = None) -> None:
    args = inputs.parser(__doc__).parse_args(argv)
    figure, drawn = inputs.call(args, inputs.of_own_seed)
    style.save(figure, drawn, args.out.with_suffix(""))


if __name__ == "__main__":
    main()
