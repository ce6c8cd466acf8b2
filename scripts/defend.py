"""Ask a model through defences at inference: plain questions, those under attacks, and those under attacks made for it.

Goes on after a kill with the defence that it was at. A question whose loss, gradient or logits are not numbers, or that
has no memory alone, is stored as "failed", which no table counts as an answer.
"""

from safemed.evaluation import arguments, defence_answers
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a question, defence and condition), images.npz and cost.json."""
    args = arguments.evaluation_parser(__doc__, "templates", "attack").parse_args()
    cli.start_logging()
    defence_answers.run(args, __file__)


if __name__ == "__main__":
    main()
