"""Sample the start model's own answers to the training questions, for methods with `targets: own`.

Goes on after a kill with the batch that it was at. A question that cannot be asked has no target, and says why.
"""

from safemed.evaluation import arguments
from safemed.training import target_samples
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a training question) and cost.json."""
    args = arguments.evaluation_parser(__doc__).parse_args()
    cli.start_logging()
    target_samples.run(args, __file__)


if __name__ == "__main__":
    main()
