"""Ask a model questions beside reports that are retrieved, from a sound corpus and from poisoned ones.

Goes on after a kill with the corpus that it was at. A question whose logits are not numbers, or that has no memory
alone, is stored as "failed", which no table counts as an answer.
"""

from pathlib import Path

from safemed.evaluation import arguments, retrieved_answers
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a question and condition) and cost.json."""
    parser = arguments.evaluation_parser(__doc__, "templates", "attack")
    parser.add_argument("--towers", nargs="+", type=Path, required=True, help="model folders of the retrievers' towers")
    parser.add_argument("--corpora", nargs="+", type=Path, required=True, help="the corpus of each, in their order")
    args = parser.parse_args()
    cli.start_logging()
    retrieved_answers.run(args, __file__)


if __name__ == "__main__":
    main()
