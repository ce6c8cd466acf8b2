"""Probe the attack on a model: direct attacks of several budgets, and what the gradient and the verdicts are like."""

from safemed.evaluation import arguments, diagnostics
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a question and probe) and cost.json."""
    args = arguments.evaluation_parser(__doc__).parse_args()
    cli.start_logging()
    diagnostics.run(args, __file__)


if __name__ == "__main__":
    main()
