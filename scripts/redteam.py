"""Set a red team on a model: sets of changes of each question that it answers rightly, until its answer is not right.

Goes on after a kill with the round that it was at. A question whose logits are not numbers, or that has no memory
alone, is stored as "failed", which no table counts as an answer.
"""

from safemed.evaluation import arguments, red_team
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a query) and cost.json."""
    args = arguments.evaluation_parser(__doc__, "templates").parse_args()
    cli.start_logging()
    red_team.run(args, __file__)


if __name__ == "__main__":
    main()
