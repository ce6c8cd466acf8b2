"""Push a model in a second turn: ask the evaluation questions, then push the answers: silently, by a doubt, by claims.

Goes on after a kill with the batch that it was at. A question whose logits are not numbers, or that has no memory
alone, is stored as "failed", which no table counts as an answer.
"""

from safemed.evaluation import arguments, turn_answers
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a question, push, wording and kind of image) and cost.json."""
    args = arguments.evaluation_parser(__doc__, "templates", "attack").parse_args()
    cli.start_logging()
    turn_answers.run(args, __file__)


if __name__ == "__main__":
    main()
