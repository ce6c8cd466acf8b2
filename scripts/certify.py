"""Certify an L2 radius for each evaluation question by randomized smoothing of a function of a model.

Goes on after a kill with the questions that are not done. One job may take a shard of the questions.
"""

from safemed.certificates import certification, smoothing
from safemed.evaluation import arguments
from safemed.evaluation.evaluator import FUNCTIONS
from safemed.utils import cli


def main() -> None:
    """Write a folder with rows.parquet (one row a question) and cost.json."""
    parser = arguments.evaluation_parser(__doc__)
    parser.add_argument("--sigma", type=float, required=True, help="noise in [0, 1] pixel units")
    parser.add_argument("--function", choices=FUNCTIONS, required=True, help="what is smoothed")
    parser.add_argument("--shard", default="1-of-1", metavar="I-of-K", help="every K-th question, from the I-th on")
    args = parser.parse_args()
    cli.start_logging()
    smoothing.check(args.sigma, args.settings["alpha"], args.settings["n"], args.settings["mode"])
    certification.run(args, __file__)


if __name__ == "__main__":
    main()
