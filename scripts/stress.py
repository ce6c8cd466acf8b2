"""Stress-test a model: ask the evaluation questions with misleading hints, edited options and edited images, and the
chains of evidence.

Goes on after a kill with the stress test that it was at. A question whose logits are not numbers, or that has no memory
alone, is stored as "failed", which no table counts as an answer.
"""

from safemed.evaluation import arguments, stress_answers
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a question and stress test) and cost.json."""
    args = arguments.evaluation_parser(__doc__, "templates", "attack").parse_args()
    cli.start_logging()
    stress_answers.run(args, __file__)


if __name__ == "__main__":
    main()
