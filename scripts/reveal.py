"""Reveal the images of the evaluation questions step by step, and ask a model how sure it is of its answers.

Goes on after a kill with the share that it was at. A question whose logits are not numbers, or that has no memory
alone, is stored as "failed", which no table counts as an answer.
"""

from safemed.certificates import reveal_answers
from safemed.evaluation import arguments
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a question, order, kind of image and share) and cost.json."""
    args = arguments.evaluation_parser(__doc__, "attack").parse_args()
    cli.start_logging()
    reveal_answers.run(args, __file__)


if __name__ == "__main__":
    main()
